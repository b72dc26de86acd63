"""The SwiGLU sublayer `norm(x + swiglu(x))` over the last axis, in bf16 on CUDA.

One kernel computes `silu(gate) * up` without writing gate and up to memory, and one multiplies its gradients in the
epilogue of a product. The remaining products are the library's, and the compiler fuses the residual with the norm.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.tools.tensor_descriptor import TensorDescriptor

from models.fused.gpu import rows_kernels
from models.fused.gpu.pairs import interleave, separate
from models.fused.gpu.tiles import Tiles, processors, run, sizes


class Packed(NamedTuple):
    """The two weights in the dtype of x: gate_up [2 * inner, width], interleaved, and down [width, inner]."""

    gate_up: Tensor
    down: Tensor


def pack(gate_up: Tensor, down: Tensor, dtype: torch.dtype) -> Packed:
    """Pack weights of any dtype for `swiglu` of an x of `dtype`."""
    return Packed(interleave(gate_up.detach().to(dtype)).contiguous(), down.detach().to(dtype).contiguous())


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor, packed: Packed, eps: float) -> Tensor:
    """`norm(x + down(silu(gate(x)) * up(x)))` over the last axis: bf16 [..., width] -> the same.

    Gradients go to x and to the fp32 weights gate_up and down, of which `packed` is the result of `pack`.
    """
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    if not torch.is_grad_enabled():
        h, _ = _product(flat, packed.gate_up, False)
        return _norm(flat, h @ packed.down.t(), eps)[0].view_as(x)
    return _Rows.apply(flat, gate_up, down, *packed, eps).view_as(x)  # pyright: ignore[reportAttributeAccessIssue]


def _norm(x: Tensor, update: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(norm(x + update), the factors [rows, 1] that normalise)."""
    total = x.float() + update.float()
    factors = torch.rsqrt(total.square().mean(-1, keepdim=True) + eps)
    return (total * factors).to(x.dtype), factors


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_gate_up: Tensor, w_down: Tensor, gate_up: Tensor, down: Tensor, eps: float
    ) -> Tensor:
        h, kept = _product(x, gate_up, True)
        y, factors = _norm(x, h @ down.t(), eps)
        ctx.save_for_backward(x, h, kept, y, factors, gate_up, down)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, h, kept, y, factors, gate_up, down = ctx.saved_tensors
        dy32, y32 = dy.float(), y.float()
        d_sum = ((dy32 - y32 * (dy32 * y32).mean(-1, keepdim=True)) * factors).to(x.dtype)
        d_gate_up = _product_backward(d_sum, down, kept)
        dx = d_sum + d_gate_up @ gate_up
        _, needs_gate_up, needs_down, *_ = ctx.needs_input_grad
        d_w_gate_up = separate(d_gate_up.t() @ x).float() if needs_gate_up else None
        d_w_down = (d_sum.t() @ h).float() if needs_down else None
        return dx, d_w_gate_up, d_w_down, None, None, None


@torch.library.custom_op("recursive_reasoning::gpu_swiglu_rows", mutates_args=())
def _product(x: Tensor, gate_up: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """(silu(gate(x)) * up(x) [rows, inner], gate and up [rows, 2 * inner]; the latter empty unless `keep`).

    gate_up, and with it gate and up, are interleaved.
    """
    return launch_product(x, gate_up, keep, sizes(x.device).rows_forward)


def launch_product(
    x: Tensor, gate_up: Tensor, keep: bool, tiles: Tiles, approximate: bool = True
) -> tuple[Tensor, Tensor]:
    """The operator, with tiles of these sizes."""
    (rows, width), inner = x.shape, len(gate_up) // 2
    h, kept = x.new_empty(rows, inner), x.new_empty(rows if keep else 0, 2 * inner)
    block = [tiles.rows, tiles.columns]
    count = triton.cdiv(rows, tiles.rows) * (inner // tiles.columns)
    run(
        rows_kernels.forward,
        (_programs(count, tiles, x.device),),
        tiles,
        TensorDescriptor.from_tensor(x, [tiles.rows, tiles.depth]),
        TensorDescriptor.from_tensor(gate_up, [2 * tiles.columns, tiles.depth]),
        TensorDescriptor.from_tensor(h, block),
        TensorDescriptor.from_tensor(kept if keep else h, block),
        rows,
        WIDTH=width, INNER=inner, ROWS=tiles.rows, COLUMNS=tiles.columns, DEPTH=tiles.depth,
        APPROXIMATE=approximate and x.is_cuda, KEEP=keep, FLATTEN=tiles.resident > 0,
    )  # fmt: skip
    return h, kept


def _programs(count: int, tiles: Tiles, device: torch.device) -> int:
    """How many programs compute `count` tiles."""
    return min(count, tiles.resident * processors(device)) if tiles.resident else count


@_product.register_fake
def _(x: Tensor, gate_up: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    rows, inner = len(x), len(gate_up) // 2
    return x.new_empty(rows, inner), x.new_empty(rows if keep else 0, 2 * inner)


@torch.library.custom_op("recursive_reasoning::gpu_swiglu_rows_backward", mutates_args=())
def _product_backward(d_sum: Tensor, down: Tensor, kept: Tensor) -> Tensor:
    """The gradients of gate and up, [rows, 2 * inner], from that of `h @ down.t()`."""
    return launch_product_backward(d_sum, down, kept, sizes(d_sum.device).rows_backward)


def launch_product_backward(
    d_sum: Tensor, down: Tensor, kept: Tensor, tiles: Tiles, approximate: bool = True
) -> Tensor:
    """The operator, with tiles of these sizes."""
    (rows, width), inner = d_sum.shape, down.shape[1]
    d_gate_up = torch.empty_like(kept)
    pair = [tiles.rows, 2 * tiles.columns]
    count = triton.cdiv(rows, tiles.rows) * (inner // tiles.columns)
    run(
        rows_kernels.backward,
        (_programs(count, tiles, d_sum.device),),
        tiles,
        TensorDescriptor.from_tensor(d_sum, [tiles.rows, tiles.depth]),
        TensorDescriptor.from_tensor(down, [tiles.depth, tiles.columns]),
        TensorDescriptor.from_tensor(kept, pair),
        TensorDescriptor.from_tensor(d_gate_up, pair),
        rows,
        WIDTH=width, INNER=inner, ROWS=tiles.rows, COLUMNS=tiles.columns, DEPTH=tiles.depth,
        APPROXIMATE=approximate and d_sum.is_cuda, FLATTEN=tiles.resident > 0,
    )  # fmt: skip
    return d_gate_up


@_product_backward.register_fake
def _(d_sum: Tensor, down: Tensor, kept: Tensor) -> Tensor:
    return torch.empty_like(kept)
