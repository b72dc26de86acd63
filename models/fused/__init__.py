"""Sublayers of post-norm blocks as single operators, in bf16 on CPUs with AVX-512 bf16; and the optimizer's update.

The .cpp files here say how; they are compiled on first use. `load` comes before any other function.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import torch

from models.fused import attention, build, swiglu


@functools.cache
def load() -> str | None:
    """Make the operators ready. Returns why they cannot be, or None."""
    reason = build.cannot_build() or build.build_and_load(Path(__file__).parent)
    if reason is None:
        swiglu.register_shapes()
        attention.register_shapes()
    return reason


def optimizer_update() -> Callable[..., None]:
    """The pass of `utils.optimizers.AdamATan2.compile`."""
    return torch.ops.recursive_reasoning.adam_atan2
