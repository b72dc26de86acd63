"""Fused operators in bf16: C++ for CPUs with AVX-512 bf16, Triton for CUDA. See README.md in this folder.

`models.fused.convert.convert` makes a model use them; `models.fused.convert.optimizer_update` is for AdamATan2.
"""
