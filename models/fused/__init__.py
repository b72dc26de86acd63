"""Sublayers of post-norm blocks as single operators, in bf16 on CPUs with AVX-512 bf16; and the optimizer's update.

The .cpp files here say how; they are compiled on first use. `load` comes before any other function.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from models.fused import attention, build, swiglu
from models.fused.packing import PANEL


@functools.cache
def load() -> str | None:
    """Make the operators ready. Returns why they cannot be, or None."""
    reason = build.cannot_build() or build.build_and_load(Path(__file__).parent)
    if reason is not None:
        return reason
    swiglu.register_shapes()
    attention.register_shapes()
    return cannot_compute()


@torch.no_grad()
def cannot_compute() -> str | None:
    """Why the operators do not compute, found by trying one; or None.

    Their products are oneDNN's, which may have been built or told to do without what this CPU has.
    """
    x, one = torch.linspace(-1, 1, PANEL, dtype=torch.bfloat16).unsqueeze(0), torch.eye(PANEL)
    weights = torch.cat((one, one)), one
    try:
        found = swiglu.rows(x, *weights, swiglu.pack_rows(*weights, backward=False), eps=0.0)
    except RuntimeError as error:
        return f"torch's matrix products for them do not work: {str(error).splitlines()[0]}"
    exact = F.rms_norm(x + F.silu(x.float()) * x, (PANEL,), eps=0.0)
    wrong = (found - exact).abs().max().item()
    return None if wrong < 0.02 else f"they compute wrongly here: off by {wrong:.3g} of 1"


def optimizer_update() -> Callable[..., None]:
    """The pass of `utils.optimizers.AdamATan2.update_in_one_pass`."""
    return torch.ops.recursive_reasoning.adam_atan2
