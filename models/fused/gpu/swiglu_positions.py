"""The SwiGLU sublayer `norm(x + swiglu(x))` over positions, in bf16 on CUDA: one kernel forward, four backward."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.tools.tensor_descriptor import TensorDescriptor

from models.fused.gpu import positions_kernels
from models.fused.gpu.pairs import interleave, separate
from models.fused.gpu.tiles import Tiles, processors, run, sizes

MOST_POSITIONS = 128  # a program holds all positions of its channels


class Packed(NamedTuple):
    """The two weights in the dtype of x, positions last and padded with zeros.

    gate_up is [2 * inner, padded], interleaved, and down [inner, padded].
    """

    gate_up: Tensor
    down: Tensor


def pack(gate_up: Tensor, down: Tensor, dtype: torch.dtype) -> Packed:
    """Pack gate_up [2 * inner, positions] and down [positions, inner] for `swiglu` of an x of `dtype`."""
    positions = len(down)
    padding = (0, _padded(positions) - positions)
    pairs = interleave(gate_up.detach().to(dtype))
    return Packed(F.pad(pairs, padding).contiguous(), F.pad(down.detach().to(dtype).t(), padding).contiguous())


def _padded(positions: int) -> int:
    return max(16, triton.next_power_of_2(positions))


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor, packed: Packed, eps: float) -> Tensor:
    """`norm(x + down @ (silu(gate @ x) * (up @ x)))` over the middle axis: bf16 [batch, positions, hidden] -> the same.

    Gradients go to x and to the fp32 weights gate_up and down, of which `packed` is the result of `pack`.
    """
    x = x.contiguous()
    if not torch.is_grad_enabled():
        return _sublayer(x, *packed, eps, False)[0]
    return _Positions.apply(x, gate_up, down, *packed, eps)  # pyright: ignore[reportReturnType]


class _Positions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_gate_up: Tensor, w_down: Tensor, gate_up: Tensor, down: Tensor, eps: float
    ) -> Tensor:
        y, factors = _sublayer(x, gate_up, down, eps, True)
        ctx.save_for_backward(x, y, factors, gate_up, down)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        dx, d_gate_up, d_down = _sublayer_backward(dy.contiguous(), *ctx.saved_tensors)
        return dx, d_gate_up, d_down.t(), None, None, None


@torch.library.custom_op("recursive_reasoning::gpu_swiglu_positions", mutates_args=())
def _sublayer(x: Tensor, gate_up: Tensor, down: Tensor, eps: float, keep: bool) -> tuple[Tensor, Tensor]:
    """(norm(x + swiglu(x)), the factors that normalise, fp32 [batch, hidden]; the latter empty unless `keep`)."""
    return launch(x, gate_up, down, eps, keep, sizes(x.device).positions_forward)


def launch(
    x: Tensor, gate_up: Tensor, down: Tensor, eps: float, keep: bool, tiles: Tiles, approximate: bool = True
) -> tuple[Tensor, Tensor]:
    """The operator, with tiles of these sizes."""
    (batch, positions, hidden), (inner, padded) = x.shape, down.shape
    y, factors = torch.empty_like(x), x.new_empty(batch if keep else 0, hidden, dtype=torch.float32)
    channels = _channels(hidden, tiles)
    tile = [1, padded, channels]
    run(
        positions_kernels.forward,
        (batch * (hidden // channels),),
        tiles,
        TensorDescriptor.from_tensor(x, tile),
        TensorDescriptor.from_tensor(gate_up, [2 * tiles.columns, padded]),
        TensorDescriptor.from_tensor(down, [tiles.columns, padded]),
        TensorDescriptor.from_tensor(y, tile),
        factors,
        eps,
        POSITIONS=positions, HIDDEN=hidden, INNER=inner, PADDED=padded, COLUMNS=channels, CHUNK=tiles.columns,
        APPROXIMATE=approximate and x.is_cuda, KEEP=keep,
    )  # fmt: skip
    return y, factors


def _channels(hidden: int, tiles: Tiles) -> int:
    """How many channels a program takes: as many as the tile has rows, or fewer, so that they divide `hidden`."""
    return math.gcd(hidden, tiles.rows)


@_sublayer.register_fake
def _(x: Tensor, gate_up: Tensor, down: Tensor, eps: float, keep: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(len(x) if keep else 0, x.shape[2], dtype=torch.float32)


@torch.library.custom_op("recursive_reasoning::gpu_swiglu_positions_backward", mutates_args=())
def _sublayer_backward(
    dy: Tensor, x: Tensor, y: Tensor, factors: Tensor, gate_up: Tensor, down: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, of gate_up [2 * inner, positions] and of down [inner, positions]; the latter two in fp32."""
    tiles = sizes(x.device)
    d_sum = launch_norm_backward(dy, y, factors, tiles.norm_backward)
    dx, inner = launch_backward(d_sum, x, gate_up, down, tiles.positions_backward)
    split = len(gate_up)
    d_gate_up = weight_gradient(inner, x, 0, split, tiles.weight_gradient)
    d_down = weight_gradient(inner, d_sum, split, split // 2, tiles.weight_gradient)
    return dx, separate(d_gate_up), d_down


def launch_norm_backward(dy: Tensor, y: Tensor, factors: Tensor, tiles: Tiles) -> Tensor:
    """The gradient of the sum before the norm."""
    batch, positions, hidden = y.shape
    d_sum, channels = torch.empty_like(y), _channels(hidden, tiles)
    run(
        positions_kernels.norm_backward,
        (batch * (hidden // channels),),
        tiles,
        dy, y, d_sum, factors,
        POSITIONS=positions, HIDDEN=hidden, PADDED=_padded(positions), COLUMNS=channels,
    )  # fmt: skip
    return d_sum


def launch_backward(
    d_sum: Tensor, x: Tensor, gate_up: Tensor, down: Tensor, tiles: Tiles, approximate: bool = True
) -> tuple[Tensor, Tensor]:
    """The gradient of x; and the gradients of gate and up beside h, [batch * hidden, 3 * inner]."""
    (batch, _, hidden), (width, padded) = x.shape, down.shape
    dx, inner = torch.empty_like(x), x.new_empty(batch * hidden, 3 * width)
    channels = _channels(hidden, tiles)
    tile = [1, padded, channels]
    run(
        positions_kernels.backward,
        (batch * (hidden // channels),),
        tiles,
        TensorDescriptor.from_tensor(d_sum, tile),
        TensorDescriptor.from_tensor(x, tile),
        TensorDescriptor.from_tensor(gate_up, [2 * tiles.columns, padded]),
        TensorDescriptor.from_tensor(down, [tiles.columns, padded]),
        TensorDescriptor.from_tensor(dx, tile),
        TensorDescriptor.from_tensor(inner, [channels, tiles.columns]),
        TensorDescriptor.from_tensor(inner, [channels, 2 * tiles.columns]),
        HIDDEN=hidden, INNER=width, PADDED=padded, COLUMNS=channels, CHUNK=tiles.columns,
        APPROXIMATE=approximate and x.is_cuda,
    )  # fmt: skip
    return dx, inner


def weight_gradient(inner: Tensor, z: Tensor, first: int, count: int, tiles: Tiles) -> Tensor:
    """The sum over examples and channels of inner times z: fp32 [count, positions].

    Args:
        inner: [batch * hidden, :], of which `count` columns from `first` on are used.
        z: [batch, positions, hidden].
        tiles: sizes of the kernel's tiles.
    """
    (_, positions, hidden), padded = z.shape, _padded(z.shape[1])
    steps = len(inner) // tiles.depth
    parts = max(1, min(steps, processors(z.device) // (count // tiles.rows)))
    steps_each = triton.cdiv(steps, parts)
    sums = z.new_empty(parts, count, padded, dtype=torch.float32)
    run(
        positions_kernels.weight_gradient,
        (count // tiles.rows, parts),
        tiles,
        TensorDescriptor.from_tensor(inner, [tiles.depth, tiles.rows]),
        TensorDescriptor.from_tensor(z, [1, padded, tiles.depth]),
        sums, first, count, steps_each, len(inner),
        HIDDEN=hidden, PADDED=padded, ROWS=tiles.rows, DEPTH=tiles.depth,
    )  # fmt: skip
    return sums.sum(0)[:, :positions].contiguous()


@_sublayer_backward.register_fake
def _(
    dy: Tensor, x: Tensor, y: Tensor, factors: Tensor, gate_up: Tensor, down: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    d_gate_up, d_down = (x.new_empty(len(w), x.shape[1], dtype=torch.float32) for w in (gate_up, down))
    return torch.empty_like(x), d_gate_up, d_down
