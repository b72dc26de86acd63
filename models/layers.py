"""Layers of all architectures: linear and embedding with cast weights, rotary attention, SwiGLU, post-norm block.

Weights are stored in fp32 and cast to the dtype of the activations where they are used. A recursion uses each weight
many times; within `cast_once` it is cast only once.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.attention import attend
from models.recipes.config import GatedUnit
from models.silu import silu
from models.view import Rotation, View

# Standard deviation of a unit normal truncated at +-2: dividing by it gives the truncated
# distribution the requested std (as jax.nn.initializers.truncated_normal does).
STD_OF_TRUNCATED_NORMAL = 0.87962566103423978
GATE_EPS = 1e-5  # added to the mean square in the norm of a gated unit


@torch.no_grad()
def trunc_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill with a normal distribution truncated at two standard deviations, rescaled so that its std is `std`.

    Values outside are drawn again, all at once, until there are none. In fp32 these are the bits of
    `nn.init.trunc_normal_` in torch 2.15. It is written out because that function inverts the cumulative distribution
    in torch 2.11, so that a seed would give other weights there.
    """
    if tensor.is_meta:
        return tensor
    scale = std / STD_OF_TRUNCATED_NORMAL
    low, high = (tensor.new_tensor(bound, device="cpu").item() for bound in (-2 * scale, 2 * scale))
    drawn = tensor.normal_(0, scale)
    while (outside := (drawn < low) | (drawn > high)).any():
        drawn = torch.where(outside, torch.empty_like(drawn).normal_(0, scale), drawn)
    return tensor.copy_(drawn)


def rms_norm(x: Tensor, eps: float, axis: int = -1) -> Tensor:
    """`x / sqrt(mean(x^2) + eps)` over one axis, without a weight; computed in fp32 and cast back."""
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(axis, keepdim=True) + eps)).to(x.dtype)


class CastsWeights(nn.Module):
    """A module that computes with a cast of its fp32 weights: a new cast at each use, or one held for many uses.

    What a cast is (a tensor, or several in some layout) is up to the subclass.
    """

    def __init__(self):
        super().__init__()
        self._held_cast: Any = None

    def cast_weights(self, dtype: torch.dtype) -> Any:
        """The weights in `dtype`, without gradient, in the form that this module computes with.

        None if they already have that dtype.
        """
        raise NotImplementedError

    @property
    def held_cast(self) -> Any:
        """The cast that this module holds, or None."""
        return self._held_cast

    def hold_cast(self, cast: Any) -> None:
        """From now on compute with `cast`, a result of `cast_weights`. None: cast at each use."""
        self._held_cast = cast


class _UseCast(torch.autograd.Function):
    """Computes with the cast of a weight, and passes the gradient to the weight itself, in fp32.

    This way the gradients of many uses are summed in fp32, as if each use had cast the weight. (They would be summed in
    bf16 if the cast were part of the graph.)
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, cast: Tensor) -> Tensor:
        return cast.view_as(cast)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient.float(), None


class CastedLinear(CastsWeights):
    """Linear layer with an fp32 weight, computed in the input's dtype. [..., in] -> [..., out]."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(trunc_normal_(torch.empty(out_features, in_features), in_features**-0.5))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def cast_weights(self, dtype: torch.dtype) -> Tensor | None:
        """The weight [out, in] in `dtype`, without gradient; None if it already has that dtype."""
        return None if self.weight.dtype == dtype else self.weight.detach().to(dtype)

    def weight_as(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in] in `dtype`: the held cast if it has that dtype, else a new one."""
        cast: Tensor | None = self.held_cast
        if cast is None or cast.dtype != dtype:
            return self.weight.to(dtype)
        return _UseCast.apply(self.weight, cast) if torch.is_grad_enabled() else cast

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight_as(x.dtype), bias)


class _MultiplyEach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(weight, x)
        return torch.bmm(weight.expand(x.shape[0], -1, -1), x)  # len(x) would fix the batch size of an export

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, x = ctx.saved_tensors
        # transposed in memory once; a transposed view would be copied for each example
        transposed = weight.t().contiguous().expand(len(x), -1, -1)
        return torch.bmm(gradient, x.mT).sum(0), torch.bmm(transposed, gradient)


def multiply_each(weight: Tensor, x: Tensor) -> Tensor:
    """`weight @ x` for each example. [out, in], [batch, in, width] -> [batch, out, width]."""
    return _MultiplyEach.apply(weight, x)  # pyright: ignore[reportReturnType]


@contextmanager
def cast_once(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within the block `module` uses its weights as they were at the start, cast to `dtype` once for all uses."""
    with _holding({part: part.cast_weights(dtype) for part in _casting_parts(module)}):
        yield


def _casting_parts(module: nn.Module) -> list[CastsWeights]:
    """The outermost modules in `module` that cast weights; each may also cast the weights of modules inside it."""
    if isinstance(module, CastsWeights):
        return [module]
    return [part for child in module.children() for part in _casting_parts(child)]


@contextmanager
def _holding(casts: Mapping[CastsWeights, Any]) -> Iterator[None]:
    """Within the block each module holds the given cast; afterwards it holds what it held before."""
    before = {part: part.held_cast for part in casts}
    for part, cast in casts.items():
        part.hold_cast(cast)
    try:
        yield
    finally:
        for part, cast in before.items():
            part.hold_cast(cast)


def recomputed(module: nn.Module, *inputs: Any) -> Tensor:
    """`module(*inputs)`, keeping only the inputs for the backward pass, which recomputes everything else.

    The recomputation uses the same casts of the weights (although `cast_once` has ended by then), and so the same
    compiled graph; its results and sums of gradients are the same to the last bit.
    """
    casts = {part: part.held_cast for part in _casting_parts(module)}

    def compute(*inputs: Any) -> Tensor:
        with _holding(casts):
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
    """Rotate [batch, heads, positions, head_dim] by the angles of its positions, in fp32, and cast back."""
    x32 = x.float()
    parts = x32.chunk(2 * rotation.sections, dim=-1)
    turned = [part for first, second in zip(parts[::2], parts[1::2], strict=True) for part in (-second, first)]
    return (x32 * rotation.cos + torch.cat(turned, dim=-1) * rotation.sin).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over all positions, no biases. [batch, positions, hidden] -> the same.

    Each head is `head_dim` wide, by default `hidden // heads`; if that does not divide evenly, the attention is
    narrower than the model (the published baseline: 12 heads of 42 in 512).
    """

    def __init__(self, hidden_size: int, num_heads: int, head_dim: int | None = None):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim or hidden_size // num_heads
        width = self.head_dim * num_heads
        self.qkv_proj = CastedLinear(hidden_size, 3 * width)
        self.o_proj = CastedLinear(width, hidden_size)

    def sublayer(self, x: Tensor, view: View, eps: float) -> Tensor:
        """`norm(x + attention(x))`."""
        return rms_norm(x + self(x, view), eps)

    def forward(self, x: Tensor, view: View) -> Tensor:
        # one projection holds all query heads, then all key heads, then all value heads
        q, k, v = rearrange(self.qkv_proj(x), "b s (qkv h d) -> qkv b h s d", qkv=3, h=self.num_heads)
        if view.rotation is not None:
            q, k = rotate(q, view.rotation), rotate(k, view.rotation)
        y = self.attend(q, k, v, view)
        return self.o_proj(rearrange(y, "b h s d -> b s (h d)"))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        """The values weighted by attention; inputs and result are [batch, heads, positions, head_dim]."""
        return attend(q, k, v)


def swiglu_width(width: int, expansion: float) -> int:
    """Inner width of a SwiGLU: two thirds of `expansion * width`, rounded up to a multiple of 256."""
    return math.ceil(round(expansion * width * 2 / 3) / 256) * 256


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (arXiv 2002.05202), no biases, over the last axis or over another.

    The inner width is `inner` if it is given, else `swiglu_width(width, expansion)`. With `unit="rms_gate"`, the
    product is another one, see `gated`.
    """

    def __init__(
        self,
        width: int,
        expansion: float,
        inner: int | None = None,
        over_positions: bool = False,
        unit: GatedUnit = "swiglu",
    ):
        super().__init__()
        inner = inner or swiglu_width(width, expansion)
        self.gate_up_proj = CastedLinear(width, 2 * inner)
        self.down_proj = CastedLinear(inner, width)
        self.over_positions, self.unit = over_positions, unit

    def gated(self, gate: Tensor, up: Tensor, axis: int = -1) -> Tensor:
        """`silu(gate) * up`, or with `unit="rms_gate"` `sigmoid(gate) * rms_norm(gate * up)`, normed over `axis`.

        The second is the unit of a fast recipe for Sudoku-Extreme (docs/recipes.md). All arguments and the result have
        one shape.
        """
        if self.unit == "rms_gate":
            return torch.sigmoid(gate) * rms_norm(gate * up, GATE_EPS, axis)
        return silu(gate) * up

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same; `over_positions` [batch, width, hidden] -> the same."""
        if self.over_positions:
            # W @ x, so that nothing is transposed in memory
            gate_up, down = (layer.weight_as(x.dtype) for layer in (self.gate_up_proj, self.down_proj))
            gate, up = multiply_each(gate_up, x).chunk(2, dim=1)
            return multiply_each(down, self.gated(gate, up, axis=1))
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(self.gated(gate, up))

    def sublayer(self, x: Tensor, eps: float) -> Tensor:
        """`norm(x + swiglu(x))`, with the norm over the same axis as the SwiGLU."""
        return rms_norm(x + self(x), eps, axis=1 if self.over_positions else -1)


class Block(nn.Module):
    """Post-norm block: `h = norm(h + mix(h)); h = norm(h + swiglu(h))`. [batch, positions, hidden] -> the same.

    `mix` is attention, or with `mlp_t` a SwiGLU over the positions, whose norm is over the positions too.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        expansion: float,
        positions: int,
        mlp_t: bool,
        eps: float,
        unit: GatedUnit = "swiglu",
    ):
        super().__init__()
        self.eps = eps
        if mlp_t:
            self.mlp_t, self.self_attn = SwiGLU(positions, expansion, over_positions=True, unit=unit), None
        else:
            self.mlp_t, self.self_attn = None, Attention(hidden_size, num_heads)
        self.mlp = self.make_mlp(hidden_size, expansion, unit)

    def make_mlp(self, hidden_size: int, expansion: float, unit: GatedUnit) -> SwiGLU:
        """The second sublayer."""
        return SwiGLU(hidden_size, expansion, unit=unit)

    def forward(self, h: Tensor, view: View) -> Tensor:
        if self.mlp_t is not None:
            h = self.mlp_t.sublayer(h, self.eps)
        elif self.self_attn is not None:
            h = self.self_attn.sublayer(h, view, self.eps)
        return self.mlp.sublayer(h, self.eps)
