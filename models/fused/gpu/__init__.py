"""Triton kernels for training and inference in bf16 on CUDA. See the README.md of models/fused.

`models.fused.gpu.convert.convert` makes a model use them.
"""
