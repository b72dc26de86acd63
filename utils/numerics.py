"""How a GPU adds up: precision of fp32 products, order of sums, and the allocator, each set and said explicitly."""

import os
from typing import Literal

import torch

MatmulPrecision = Literal["highest", "high"]
ALLOCATOR = "expandable_segments:True"  # evaluations need other sizes than steps, and would leave gaps between them
CUBLAS_WORKSPACE = ":4096:8"  # without it cuBLAS refuses to work in a fixed order

_IN_WORDS: dict[MatmulPrecision, str] = {"highest": "in fp32", "high": "in TF32, with a mantissa of 10 bits"}


def set_numerics(device: torch.device, matmul_precision: MatmulPrecision, deterministic: bool) -> str | None:
    """Set what torch leaves to global switches, for the whole process and before anything is computed on a GPU.

    Variables of the environment that the user has set take precedence.

    Args:
        device: where the run computes.
        matmul_precision: of fp32 products on CUDA. Products in bfloat16 do not depend on it.
        deterministic: use only operators that give the same bits in each run, and raise an error where torch has none.

    Returns:
        What was set, for the user; None if there is nothing to say.
    """
    torch.use_deterministic_algorithms(deterministic)
    said = ["deterministic: operators with a fixed order only"] if deterministic else []
    if device.type == "cuda":
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
        if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
            os.environ["PYTORCH_ALLOC_CONF"] = ALLOCATOR
        torch.set_float32_matmul_precision(matmul_precision)
        allocator = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
        said = [f"fp32 products: {_IN_WORDS[matmul_precision]}", f"allocator: {allocator}", *said]
    return "; ".join(said) or None
