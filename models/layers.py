"""Layers shared by every architecture: casted linear and embedding, rotary attention, SwiGLU, post-norm block.

Weights are fp32 masters, computed with in the dtype of the activations. A recursion uses each of them many times, so
inside `cast_once` they are cast one time for all uses.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.attention import attend
from models.fused import attention as fused_attention
from models.fused import swiglu as fused_swiglu
from models.fused.packing import PANEL
from models.silu import silu

# Standard deviation of a unit normal truncated at +-2: dividing by it gives the truncated
# distribution the requested std (as jax.nn.initializers.truncated_normal does).
_STD_OF_TRUNCATED_NORMAL = 0.87962566103423978


def trunc_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill with a normal truncated at two standard deviations, rescaled so that its std is `std`."""
    scale = std / _STD_OF_TRUNCATED_NORMAL
    return nn.init.trunc_normal_(tensor, std=scale, a=-2 * scale, b=2 * scale)


def rms_norm(x: Tensor, eps: float, axis: int = -1) -> Tensor:
    """`x / sqrt(mean(x^2) + eps)` over one axis, without a weight, in fp32, cast back."""
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(axis, keepdim=True) + eps)).to(x.dtype)


class _UseOfCopy(torch.autograd.Function):
    """A copy of a weight in the place of the weight.

    The gradient goes to the weight, in its own dtype: so the gradients of many uses are summed in fp32, as if each
    use had cast the weight itself. (A copy that is part of the graph would sum them in bf16.)
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient.float(), None


class CastedLinear(nn.Module):
    """Linear layer with an fp32 weight, computed in the input's dtype. [..., in] -> [..., out]."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(trunc_normal_(torch.empty(out_features, in_features), in_features**-0.5))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.copy: Tensor | None = None  # of the weight, inside `cast_once`

    def make_copy(self, dtype: torch.dtype) -> Tensor | None:
        """The weight in `dtype`, without gradient; None where it has that dtype itself."""
        return None if self.weight.dtype == dtype else self.weight.detach().to(dtype)

    def weight_as(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in] in `dtype`."""
        if self.copy is None or self.copy.dtype != dtype:
            return self.weight.to(dtype)
        return _UseOfCopy.apply(self.weight, self.copy) if torch.is_grad_enabled() else self.copy

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight_as(x.dtype), bias)


class _MultiplyEach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(weight, x)
        return torch.bmm(weight.expand(len(x), -1, -1), x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, x = ctx.saved_tensors
        # transposed in memory once; a transposed view would be copied for each example
        transposed = weight.t().contiguous().expand(len(x), -1, -1)
        return torch.bmm(gradient, x.mT).sum(0), torch.bmm(transposed, gradient)


def multiply_each(weight: Tensor, x: Tensor) -> Tensor:
    """`weight @ x` of each example. [out, in], [batch, in, width] -> [batch, out, width]."""
    return _MultiplyEach.apply(weight, x)  # pyright: ignore[reportReturnType]


@contextmanager
def cast_once(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block the linear layers of `module` compute with copies of their weights made at its start."""
    with _computing_with({layer: layer.make_copy(dtype) for layer in _copying_layers(module)}):
        yield


def _copying_layers(module: nn.Module) -> "list[CastedLinear | Attention | SwiGLU]":
    """Those of `module` that compute with a copy. One that is fused has its own of the weights of its layers."""
    if isinstance(module, CastedLinear) or (isinstance(module, Attention | SwiGLU) and module.fused):
        return [module]
    return [layer for child in module.children() for layer in _copying_layers(child)]


@contextmanager
def _computing_with(copies: Mapping[Any, Any]) -> Iterator[None]:
    before = {layer: layer.copy for layer in copies}
    for layer, copy in copies.items():
        layer.copy = copy
    try:
        yield
    finally:
        for layer, copy in before.items():
            layer.copy = copy


def recomputed(module: nn.Module, *inputs: Any) -> Tensor:
    """`module(*inputs)`, keeping for the backward pass the inputs alone; it computes the rest again, once.

    The second time as the first: with the same copies of the weights (`cast_once` is over by then), so with the same
    compiled graph, the same bits, and the same sums of gradients.
    """
    copies = {layer: layer.copy for layer in _copying_layers(module)}

    def compute(*inputs: Any) -> Tensor:
        with _computing_with(copies):
            return module(*inputs)

    return checkpoint(compute, *inputs, use_reentrant=False)  # pyright: ignore[reportReturnType]


class CastedEmbedding(nn.Module):
    """Embedding with an fp32 table, cast to `dtype`. int [...] -> [..., width]."""

    def __init__(self, num_embeddings: int, width: int, std: float, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.embedding_weight = nn.Parameter(trunc_normal_(torch.empty(num_embeddings, width), std))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.embedding_weight.to(self.dtype))


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the rotary angles, fp32 [positions, head_dim]."""

    cos: Tensor
    sin: Tensor


class RotaryEmbedding(nn.Module):
    """Angles of rotary position embeddings (arXiv 2104.09864), in the "rotate-half" layout."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, positions: int, theta: float):
        super().__init__()
        frequencies = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
        angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self) -> Rotation:
        return Rotation(self.cos, self.sin)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate [batch, heads, positions, head_dim] by its positions, in fp32, cast back."""
    x32 = x.float()
    first, second = x32.chunk(2, dim=-1)
    return (x32 * rotation.cos + torch.cat((-second, first), dim=-1) * rotation.sin).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over all positions, no biases. [batch, positions, hidden] -> the same.

    The heads are `hidden // heads` wide each; where that does not divide evenly the attention is narrower
    than the model (the published baseline: 12 heads of 42 in 512).
    """

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        width = self.head_dim * num_heads
        self.qkv_proj = CastedLinear(hidden_size, 3 * width)
        self.o_proj = CastedLinear(width, hidden_size)
        self.fused = False  # whether `sublayer` is one operator
        self.copy: fused_attention.Packed | None = None  # of the weights for that operator, inside `cast_once`

    def sublayer(self, x: Tensor, rotation: Rotation | None, eps: float) -> Tensor:
        """`norm(x + attention(x))`."""
        if not self.fused:
            return rms_norm(x + self(x, rotation), eps)
        angles = None if rotation is None else (rotation.cos, rotation.sin)
        weights, packed = (self.qkv_proj.weight, self.o_proj.weight), self.copy or self.make_copy(x.dtype)
        return fused_attention.attention(x, *weights, packed, angles, self.num_heads, eps)

    @property
    def fits_fused(self) -> bool:
        """Whether the widths are such that the operator can compute this."""
        return self.head_dim % PANEL == 0 and self.o_proj.weight.shape[0] % PANEL == 0

    def make_copy(self, dtype: torch.dtype) -> fused_attention.Packed:
        """The weights as the operator of `sublayer` reads them, always bf16."""
        return fused_attention.pack(self.qkv_proj.weight, self.o_proj.weight, backward=torch.is_grad_enabled())

    def forward(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        # one projection holds all query heads, then all key heads, then all value heads
        q, k, v = rearrange(self.qkv_proj(x), "b s (qkv h d) -> qkv b h s d", qkv=3, h=self.num_heads)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        y = self.attend(q, k, v, rotation)
        return self.o_proj(rearrange(y, "b h s d -> b s (h d)"))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rotation: Rotation | None) -> Tensor:
        """The values weighted by attention, each [batch, heads, positions, head_dim]."""
        return attend(q, k, v)


def swiglu_width(width: int, expansion: float) -> int:
    """Inner width of a SwiGLU: two thirds of `expansion * width`, rounded up to a multiple of 256."""
    return math.ceil(round(expansion * width * 2 / 3) / 256) * 256


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (arXiv 2002.05202), no biases, over the last axis or over another.

    The inner width is `inner` where it is given, else `swiglu_width(width, expansion)`.
    """

    def __init__(self, width: int, expansion: float, inner: int | None = None, over_positions: bool = False):
        super().__init__()
        inner = inner or swiglu_width(width, expansion)
        self.gate_up_proj = CastedLinear(width, 2 * inner)
        self.down_proj = CastedLinear(inner, width)
        self.over_positions = over_positions
        self.fused = False  # whether `sublayer` is one operator
        self.copy: fused_swiglu.Packed | None = None  # of the weights for that operator, inside `cast_once`

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same; `over_positions` [batch, width, hidden] -> the same."""
        if self.over_positions:
            # W @ x, so that nothing is transposed in memory
            gate_up, down = (layer.weight_as(x.dtype) for layer in (self.gate_up_proj, self.down_proj))
            gate, up = multiply_each(gate_up, x).chunk(2, dim=1)
            return multiply_each(down, silu(gate) * up)
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(silu(gate) * up)

    def sublayer(self, x: Tensor, eps: float) -> Tensor:
        """`norm(x + swiglu(x))`, the norm over the same axis as the SwiGLU."""
        if not self.fused:
            return rms_norm(x + self(x), eps, axis=1 if self.over_positions else -1)
        compute = fused_swiglu.positions if self.over_positions else fused_swiglu.rows
        packed = self.copy or self.make_copy(x.dtype)
        return compute(x, self.gate_up_proj.weight, self.down_proj.weight, packed, eps)

    @property
    def fits_fused(self) -> bool:
        """Whether the widths are such that the operator can compute this (over positions: the inner one)."""
        width, inner = self.down_proj.weight.shape
        return inner % PANEL == 0 and (self.over_positions or width % PANEL == 0)

    def make_copy(self, dtype: torch.dtype) -> fused_swiglu.Packed:
        """The weights as the operator of `sublayer` reads them, always bf16."""
        pack = fused_swiglu.pack_positions if self.over_positions else fused_swiglu.pack_rows
        return pack(self.gate_up_proj.weight, self.down_proj.weight, backward=torch.is_grad_enabled())


class Block(nn.Module):
    """Post-norm block: `h = norm(h + mix(h)); h = norm(h + swiglu(h))`. [batch, positions, hidden] -> the same.

    `mix` is attention, or with `mlp_t` a SwiGLU over the positions, whose norm runs over the positions too.
    """

    def __init__(self, hidden_size: int, num_heads: int, expansion: float, positions: int, mlp_t: bool, eps: float):
        super().__init__()
        self.eps = eps
        if mlp_t:
            self.mlp_t, self.self_attn = SwiGLU(positions, expansion, over_positions=True), None
        else:
            self.mlp_t, self.self_attn = None, Attention(hidden_size, num_heads)
        self.mlp = SwiGLU(hidden_size, expansion)

    def forward(self, h: Tensor, rotation: Rotation | None) -> Tensor:
        if self.mlp_t is not None:
            h = self.mlp_t.sublayer(h, self.eps)
        elif self.self_attn is not None:
            h = self.self_attn.sublayer(h, rotation, self.eps)
        return self.mlp.sublayer(h, self.eps)

    @property
    def sublayers(self) -> "list[Attention | SwiGLU]":
        """Mixing, then the SwiGLU over the channels."""
        return [m for m in (self.mlp_t, self.self_attn, self.mlp) if m is not None]
