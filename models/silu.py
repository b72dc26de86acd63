"""silu(x) = x * sigmoid(x): torch's, and one for compiled bf16 code on the CPU that takes two thirds of the time."""

import torch
import torch.nn.functional as F
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`, of any shape."""
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.compiler.is_compiling():
        return _FastSilu.apply(x)  # pyright: ignore[reportReturnType]
    return F.silu(x)


def fast_sigmoid(x: Tensor) -> Tensor:
    """sigmoid(x) in fp32: relative error below 5e-5 for |x| < 8 and 4e-4 for |x| < 12, where bf16 rounds by 4e-3.

    e^x = (e^t)^32 with t = x / 32, and e^t = (1 + t/2 + t^2/12) / (1 - t/2 + t^2/12) (Pade). This takes one
    division and no exponential, for which the compiler would call a library at twice the cost.
    """
    t = x.clamp(-30.0, 30.0) * (1 / 32)
    even, odd = t * t * (1 / 12) + 1, t * 0.5
    above, below = even + odd, even - odd
    for _ in range(5):
        above, below = above * above, below * below
    return above / (above + below)


class _FastSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        x32 = x.float()
        return (x32 * fast_sigmoid(x32)).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        x32 = x.float()
        s = fast_sigmoid(x32)
        return (gradient.float() * (s * (1 + x32 * (1 - s)))).to(x.dtype)
