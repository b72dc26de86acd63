"""Makes the C++ operators of this folder available; they are compiled on first use on a machine."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from models.fused import attention, build, swiglu
from models.fused.packing import PANEL
from utils.optimizers import for_each


@functools.cache
def load() -> str | None:
    """Build the operators if needed, register them with torch and try one. Returns why they cannot be used, or None.

    Nothing else in this folder works before this has been called.
    """
    reason = build.cannot_build() or build.build_and_load(Path(__file__).parent)
    if reason is not None:
        return reason
    swiglu.register_shapes()
    attention.register_shapes()
    return cannot_compute()


@torch.no_grad()
def cannot_compute() -> str | None:
    """Try an operator on a small SwiGLU. Returns why that failed, or None.

    The operators use oneDNN's matrix products. oneDNN may have been built without support for the instructions of this
    CPU, or the environment may tell it not to use them.
    """
    x, one = torch.linspace(-1, 1, PANEL, dtype=torch.bfloat16).unsqueeze(0), torch.eye(PANEL)
    weights = torch.cat((one, one)), one
    try:
        y = swiglu.rows(x, *weights, swiglu.pack_rows(*weights, backward=False), eps=0.0)
    except RuntimeError as error:
        return f"torch's matrix products for them do not work: {str(error).splitlines()[0]}"
    expected = F.rms_norm(x + F.silu(x.float()) * x, (PANEL,), eps=0.0)
    deviation = (y - expected).abs().max().item()
    return None if deviation < 0.02 else f"they compute wrongly here: off by {deviation:.3g} of 1"


@functools.cache
def optimizer_update() -> Callable[..., None]:
    """The function that `utils.optimizers.AdamATan2.update_in_one_pass` takes as `update`."""
    return for_each(torch.ops.recursive_reasoning.adam_atan2)
