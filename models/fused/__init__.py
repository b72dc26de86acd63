"""Sublayers of post-norm blocks as single operators, in bf16 on CPUs with AVX-512 bf16 instructions.

The .cpp files here say how; they are compiled on first use. `load` comes before any other function.
"""

import functools
from pathlib import Path

from models.fused import attention, build, swiglu


@functools.cache
def load() -> str | None:
    """Make the operators ready. Returns why they cannot be, or None."""
    reason = build.cannot_build() or build.build_and_load(Path(__file__).parent)
    if reason is None:
        swiglu.register_shapes()
        attention.register_shapes()
    return reason
