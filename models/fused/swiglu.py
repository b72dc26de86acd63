"""The SwiGLU sublayer `norm(x + swiglu(x))` as one operator, in bf16 on CPUs (see swiglu.cpp).

There are two operators: `rows` works over the last axis, `positions` over the middle one. Each reads weights that were
packed for it, by `pack_rows` or `pack_positions`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.fused.packing import PANEL, panels


class Packed(NamedTuple):
    """The two weights in bf16, in the layout that the operator reads.

    The backward pass reads other layouts of them, which are None if they were packed for inference.
    """

    gate_up: Tensor
    down: Tensor
    gate_up_backward: Tensor | None
    down_backward: Tensor | None


def pack_rows(gate_up: Tensor, down: Tensor, backward: bool) -> Packed:
    """Pack gate_up [2 * inner, width] and down [width, inner], of any dtype, for `rows`.

    `backward`: whether there will be a backward pass.
    """
    return Packed(
        panels(gate_up.t()), panels(down.t()), *((panels(gate_up), panels(down)) if backward else (None, None))
    )


def pack_positions(gate_up: Tensor, down: Tensor, backward: bool) -> Packed:
    """Pack gate_up [2 * inner, positions] and down [positions, inner], of any dtype, for `positions`.

    `backward`: whether there will be a backward pass.
    """
    gate_up, down = gate_up.detach().bfloat16(), down.detach().bfloat16()
    odd = gate_up.shape[1] % 2
    back = (gate_up.t().contiguous(), F.pad(down.t(), (0, odd)).contiguous()) if backward else (None, None)
    return Packed(F.pad(gate_up, (0, odd)).contiguous(), down.contiguous(), *back)


def rows(x: Tensor, gate_up: Tensor, down: Tensor, packed: Packed, eps: float) -> Tensor:
    """`norm(x + down(silu(gate(x)) * up(x)))` over the last axis: bf16 [..., width] -> the same.

    Gradients go to x and to the fp32 weights gate_up and down. `packed` is the result of
    `pack_rows(gate_up, down, ...)`, with backward=True if a gradient is needed.
    """
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    if not torch.is_grad_enabled():
        return torch.ops.recursive_reasoning.swiglu_rows(flat, packed.gate_up, packed.down, eps, False)[0].view_as(x)
    return _Rows.apply(flat, gate_up, down, *packed, eps).view_as(x)  # pyright: ignore[reportAttributeAccessIssue]


def positions(x: Tensor, gate_up: Tensor, down: Tensor, packed: Packed, eps: float) -> Tensor:
    """`rows` over the middle axis, with weights from `pack_positions`: bf16 [batch, positions, hidden] -> the same."""
    x = x.contiguous()
    if not torch.is_grad_enabled():
        return torch.ops.recursive_reasoning.swiglu_positions(x, packed.gate_up, packed.down, eps, False)[0]
    return _Positions.apply(x, gate_up, down, *packed, eps)  # pyright: ignore[reportReturnType]


def _forward(
    ctx: Any,
    operator: Callable[..., tuple[Tensor, Tensor, Tensor]],
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    gate_up_backward: Tensor,
    down_backward: Tensor,
    eps: float,
) -> Tensor:
    y, kept, factors = operator(x, gate_up, down, eps, True)
    ctx.save_for_backward(x, y, kept, factors, gate_up_backward, down_backward)
    return y


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w_gate_up: Tensor, w_down: Tensor, *rest: Any) -> Tensor:
        return _forward(ctx, torch.ops.recursive_reasoning.swiglu_rows, x, *rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, y, kept, factors, gate_up, down = ctx.saved_tensors
        dx, d_gate_up, product, d_sum = torch.ops.recursive_reasoning.swiglu_rows_backward(
            dy.contiguous(), y, kept, factors, gate_up, down
        )
        # these products sum in fp32 and round once, like the plain ones; a frozen weight needs no gradient
        _, needs_gate_up, needs_down, *_ = ctx.needs_input_grad
        d_w_gate_up = (d_gate_up.t() @ x).float() if needs_gate_up else None
        d_w_down = (d_sum.t() @ product).float() if needs_down else None
        return dx, d_w_gate_up, d_w_down, None, None, None, None, None


class _Positions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w_gate_up: Tensor, w_down: Tensor, *rest: Any) -> Tensor:
        return _forward(ctx, torch.ops.recursive_reasoning.swiglu_positions, x, *rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        dx, d_gate_up, d_down = torch.ops.recursive_reasoning.swiglu_positions_backward(
            dy.contiguous(), *ctx.saved_tensors
        )
        return dx, _unpanel(d_gate_up).t(), _unpanel(d_down), None, None, None, None, None


def _unpanel(panels: Tensor) -> Tensor:
    """[n / PANEL, m, PANEL] -> [m, n]."""
    return panels.transpose(0, 1).flatten(1)


def register_shapes() -> None:
    """Tell the compiler the shapes and dtypes of what the operators return."""

    def fake(name: str):
        return torch.library.register_fake(f"recursive_reasoning::swiglu_{name}")

    @fake("rows")
    def _(x: Tensor, gate_up: Tensor, down: Tensor, eps: float, keep: bool):
        rows, inner = len(x) if keep else 0, down.shape[1] * 2
        return torch.empty_like(x), x.new_empty(rows, 2 * inner), x.new_empty(rows, dtype=torch.float32)

    @fake("rows_backward")
    def _(dy: Tensor, y: Tensor, kept: Tensor, factors: Tensor, gate_up: Tensor, down: Tensor):
        product = y.new_empty(len(y), kept.shape[1] // 2)
        return torch.empty_like(y), torch.empty_like(kept), product, torch.empty_like(y)

    @fake("positions")
    def _(x: Tensor, gate_up: Tensor, down: Tensor, eps: float, keep: bool):
        rows, hidden = len(x) if keep else 0, x.shape[2]
        kept = x.new_empty(rows, hidden * len(gate_up))
        return torch.empty_like(x), kept, x.new_empty(rows, hidden, dtype=torch.float32)

    @fake("positions_backward")
    def _(dy: Tensor, x: Tensor, y: Tensor, kept: Tensor, factors: Tensor, gate_up: Tensor, down: Tensor):
        panels, inner = len(x[0]), len(down)
        d_gate_up = y.new_empty(2 * inner // PANEL, panels, PANEL, dtype=torch.float32)
        return torch.empty_like(y), d_gate_up, torch.empty_like(d_gate_up[: inner // PANEL])
