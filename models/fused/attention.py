"""The attention sublayer `norm(x + out(attention(x)))` as one operator, in bf16 on CPUs (see attention.cpp)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.fused.packing import PANEL, panels


class Packed(NamedTuple):
    """The two weights in bf16, in the layout that the operator reads.

    The backward pass reads other layouts of them, which are None if they were packed for inference.
    """

    qkv: Tensor
    out: Tensor
    qkv_backward: Tensor | None
    out_backward: Tensor | None


def pack(qkv: Tensor, out: Tensor, backward: bool) -> Packed:
    """Pack qkv [3 * width, hidden] and out [hidden, width], of any dtype; `width` is the width of all heads together.

    `backward`: whether there will be a backward pass.
    """
    return Packed(panels(qkv.t()), panels(out.t()), *((panels(qkv), panels(out)) if backward else (None, None)))


def attention(
    x: Tensor,
    qkv: Tensor,
    out: Tensor,
    packed: Packed,
    angles: tuple[Tensor, Tensor] | None,
    heads: int,
    eps: float,
) -> Tensor:
    """`norm(x + out(attention(x)))`: bf16 [batch, positions, hidden] -> the same.

    Gradients go to x and to the fp32 weights qkv and out.

    Args:
        packed: the result of `pack(qkv, out, ...)`, with backward=True if a gradient is needed.
        angles: cosines and sines of the rotary embedding, fp32 [positions, head_dim] each; None: no rotary embedding.
    """
    x = x.contiguous()
    cos, sin = (torch.empty(0), torch.empty(0)) if angles is None else angles
    if not torch.is_grad_enabled():
        return torch.ops.recursive_reasoning.attention(x, packed.qkv, packed.out, cos, sin, heads, eps, False)[0]
    return _Attention.apply(x, qkv, out, *packed, cos, sin, heads, eps)  # pyright: ignore[reportReturnType]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w_qkv: Tensor, w_out: Tensor, *rest: Any) -> Tensor:
        qkv, out, qkv_backward, out_backward, cos, sin, heads, eps = rest
        y, *kept = torch.ops.recursive_reasoning.attention(x, qkv, out, cos, sin, heads, eps, True)
        ctx.save_for_backward(x, y, *kept, qkv_backward, out_backward, cos, sin)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, *kept = ctx.saved_tensors
        attended = kept[2]
        dx, d_qkv, d_sum = torch.ops.recursive_reasoning.attention_backward(dy.contiguous(), *kept)
        # these products sum in fp32 and round once, like the plain ones; a frozen weight needs no gradient
        _, needs_qkv, needs_out, *_ = ctx.needs_input_grad
        d_w_qkv = (d_qkv.t() @ x.flatten(0, 1)).float() if needs_qkv else None
        d_w_out = (d_sum.t() @ attended.flatten(0, 1)).float() if needs_out else None
        return dx, d_w_qkv, d_w_out, *(None for _ in range(8))


def register_shapes() -> None:
    """Tell the compiler the shapes and dtypes of what the operators return."""

    @torch.library.register_fake("recursive_reasoning::attention")
    def _(x: Tensor, qkv: Tensor, out: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float, keep: bool):
        batch, positions, _ = x.shape
        rows, width, padded = batch if keep else 0, out.shape[1] * 2, -(-positions // PANEL) * PANEL
        return (
            torch.empty_like(x),
            x.new_empty(rows, heads, 3, padded, width // heads),
            x.new_empty(batch, positions, width),
            x.new_empty(rows, heads, padded, dtype=torch.float32),
            x.new_empty(rows * positions, dtype=torch.float32),
        )

    @torch.library.register_fake("recursive_reasoning::attention_backward")
    def _(dy: Tensor, y: Tensor, kept: Tensor, attended: Tensor, *rest: Tensor):
        rows = y.shape[0] * y.shape[1]
        return torch.empty_like(y), y.new_empty(rows, 3 * attended.shape[2]), y.new_empty(rows, y.shape[2])
