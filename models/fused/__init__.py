"""C++ operators for training and inference in bf16 on CPUs with AVX-512 bf16. See README.md in this folder.

`models.fused.convert.convert` makes a model use them; `models.fused.operators.optimizer_update` is for AdamATan2.
"""
