"""The SwiGLU of text models, which computes large batches on CPUs a few tokens at a time."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers import SwiGLU
from models.view import View

CHUNK = 256  # tokens; their intermediate values take 4 MB with an inner width of 1024 in fp32
KEPT = 2**25  # largest size in bytes of gate and up to be kept; malloc reuses blocks up to this size


class _ChunkedSwiGLU(torch.autograd.Function):
    """`down(silu(gate) * up)`, (gate, up) = gate_up(x), x [tokens, width], without keeping gate and up.

    On CPUs the system spends more time on clearing the pages of large new tensors than the products take. The
    intermediate values of a chunk stay in the cache, and recomputing them in the backward pass is cheaper than keeping
    them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(x, gate_up, down)
        out = torch.empty_like(x)
        for part, y in zip(x.split(CHUNK), out.split(CHUNK), strict=True):
            gate, up = F.linear(part, gate_up).chunk(2, dim=-1)
            torch.mm(F.silu(gate).mul_(up), down.t(), out=y)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, gate_up, down = ctx.saved_tensors
        x_gradient = torch.empty_like(x)
        # sums over the chunks, in fp32
        gate_up_gradient, down_gradient = (torch.zeros(w.shape, device=w.device) for w in (gate_up, down))
        parts = (tensor.split(CHUNK) for tensor in (x, gradients[0].contiguous(), x_gradient))
        for part, gradient, part_gradient in zip(*parts, strict=True):
            both = F.linear(part, gate_up)
            gate, up = both.chunk(2, dim=-1)
            inner_gradient = gradient @ down
            activated = F.silu(gate)
            down_gradient += gradient.t() @ (activated * up)
            # gate and up are no longer needed: their gradients take their place
            gate_gradient = torch.ops.aten.silu_backward(inner_gradient * up, gate)
            torch.mul(activated, inner_gradient, out=up)
            gate.copy_(gate_gradient)
            torch.mm(both, gate_up, out=part_gradient)
            gate_up_gradient += both.t() @ part
        return x_gradient, gate_up_gradient.to(gate_up.dtype), down_gradient.to(down.dtype)


class FeedForward(SwiGLU):
    """A SwiGLU with the signature of `ExpertFeedForward`; it ignores the view. [rows, seq, width] -> the same."""

    def forward(self, x: Tensor, view: View | None = None) -> Tensor:
        gate_up_bytes = x.numel() // x.shape[-1] * self.gate_up_proj.weight.shape[0] * x.element_size()
        if self.unit != "swiglu" or x.device.type != "cpu" or gate_up_bytes <= KEPT or torch.compiler.is_compiling():
            return super().forward(x)
        gate_up, down = (projection.weight.to(x.dtype) for projection in (self.gate_up_proj, self.down_proj))
        tokens = x.flatten(0, -2).contiguous()
        return _ChunkedSwiGLU.apply(tokens, gate_up, down).view_as(x)  # pyright: ignore[reportAttributeAccessIssue]
