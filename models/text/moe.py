"""Mixtures of experts: the feed-forward of MoEUT (arXiv 2405.16039) and the attention of SwitchHead (arXiv 2312.07987).

They are sparse: each token is computed only by the experts that it chooses, so the work grows with the number of chosen
experts and hardly with that of all. The (token, expert) pairs are sorted by expert, and each expert works on its range.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import CastedLinear, rotate, trunc_normal_
from models.text.causal import TextView, attend
from models.text.selection import Selector
from models.view import View

BLOCK = 128  # rows of a block of `blocked_product`


class _Take(torch.autograd.Function):
    """`x[index]`, where `index` holds each row of x equally often, and `places[i]` are the places of row i in it.

    The backward pass is a gather too. That of plain indexing adds up rows one by one, which is slow on CPUs and has no
    fixed order on GPUs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        (gradient,) = gradients
        taken = gradient.index_select(0, places.flatten())
        return (taken if places.shape[1] == 1 else taken.view(*places.shape, -1).sum(1)), None, None


class Dispatch:
    """Sends rows to the experts that they have chosen, and combines the results.

    Args:
        ids: int64 [rows, k], the experts of each row.
        experts: number of experts.
    """

    def __init__(self, ids: Tensor, experts: int):
        rows, chosen = ids.shape
        pairs = ids.flatten()
        self.order = pairs.argsort(stable=True)  # the pairs, numbered row by row, sorted by expert
        self.rows = self.order // chosen
        places = torch.empty_like(self.order)
        places[self.order] = torch.arange(len(pairs), device=ids.device)
        self.places = places.view(rows, chosen)  # where each pair is in that order
        # found by searching, because bincount waits for a GPU
        numbers = torch.arange(experts, device=ids.device)
        self.ends = torch.searchsorted(pairs.index_select(0, self.order), numbers, right=True, out_int32=True)

    def spread(self, x: Tensor) -> Tensor:
        """The row of each pair, sorted by expert. [rows, width] -> [pairs, width]."""
        return _Take.apply(x, self.rows, self.places)  # pyright: ignore[reportReturnType]

    def gather(self, y: Tensor, scores: Tensor) -> Tensor:
        """The score-weighted sum of the results of each row's experts. [pairs, width], [rows, k] -> [rows, width]."""
        y = _Take.apply(y, self.places.flatten(), self.order.unsqueeze(1))  # pyright: ignore[reportAssignmentType]
        return (y.view(*scores.shape, -1) * scores.unsqueeze(-1)).sum(1)

    def apply(self, x: Tensor, weights: Tensor) -> Tensor:
        """Each expert's matrix times its pairs. [pairs, in], [experts, in, out] -> [pairs, out]."""
        weights = weights.to(x.dtype)
        if has_grouped_product(x):
            return F.grouped_mm(x, weights, offs=self.ends)
        return blocked_product(x, weights, self.ends)


def has_grouped_product(x: Tensor) -> bool:
    """Whether PyTorch has a fast grouped matrix product for the device and dtype of `x`.

    On GPUs it has one for bfloat16 only. For fp32 it reads the ranges of the experts on the host and takes one product
    for each, so the host waits for the device in every layer.
    """
    return x.device.type == "cpu" or (x.device.type == "cuda" and x.dtype == torch.bfloat16)


def blocked_product(x: Tensor, weights: Tensor, ends: Tensor, block: int = BLOCK) -> Tensor:
    """`F.grouped_mm(x, weights, offs=ends)` as one batched product of fixed size, without reading `ends` on the host.

    The rows of each expert are padded to a multiple of `block`, so each block of rows belongs to one expert. Whatever
    the choice of the rows, `rows // block + experts` blocks suffice.

    Args:
        x: [rows, in], sorted by expert.
        weights: [experts, in, out].
        ends: int32 [experts], the end of the rows of each expert.
        block: rows of a block.

    Returns:
        [rows, out]
    """
    rows, experts, device = len(x), len(weights), x.device
    starts = F.pad(ends[:-1], (1, 0))
    block_ends = ((ends - starts + block - 1) // block).cumsum(0)
    blocks = rows // block + experts
    row = torch.arange(rows, device=device)
    expert = torch.searchsorted(ends, row.int(), right=True)
    places = row + (F.pad(block_ends[:-1], (1, 0)) * block - starts)[expert]
    padded = x.new_zeros(blocks * block, x.shape[1]).index_copy(0, places, x)
    y = padded.view(blocks, block, -1) @ _OfBlocks.apply(weights, block_ends, blocks)  # pyright: ignore[reportOperatorIssue]
    return y.flatten(0, 1).index_select(0, places)


class _OfBlocks(torch.autograd.Function):
    """The matrix of each block: that of its expert, or any for the blocks behind the last expert, which are empty.

    The gradient of an expert is the sum over its blocks in their order, while plain indexing would add them up on a GPU
    in no fixed order.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, block_ends: Tensor, blocks: int) -> Tensor:
        ctx.save_for_backward(block_ends)
        expert = torch.searchsorted(block_ends, torch.arange(blocks, device=weights.device), right=True)
        return weights.index_select(0, expert.clamp_(max=len(weights) - 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (block_ends,) = ctx.saved_tensors
        (gradient,) = gradients
        if gradient.device.type == "mps":  # which has no segment_reduce
            expert = torch.searchsorted(block_ends, torch.arange(len(gradient), device=gradient.device), right=True)
            total = gradient.new_zeros(len(block_ends) + 1, *gradient.shape[1:])
            return total.index_add_(0, expert, gradient)[:-1], None, None
        return torch.segment_reduce(gradient, "sum", offsets=F.pad(block_ends, (1, 0)), initial=0), None, None


class ExpertFeedForward(nn.Module):
    """`output_scale * sum over the best k experts e of s_e * relu(x K_e) V_e`. [rows, seq, width] -> the same.

    The scores s are those of `models.text.selection.Selector`, not renormalised over the k. (MoEUT; the learned output
    scale is not in the paper.)

    Args:
        width: width of a token.
        experts, size: number of experts, and the inner width of each.
        chosen: k, the number of experts that a token uses.
        entropy_weight: weight of the balancing regulariser.
        scale: factor of the initial standard deviations.
        eps: epsilon of the norm before the selector.
    """

    def __init__(
        self, width: int, experts: int, size: int, chosen: int, entropy_weight: float, scale: float, eps: float
    ):
        super().__init__()
        self.experts = experts
        std = scale * width**-0.5
        self.keys = nn.Parameter(trunc_normal_(torch.empty(experts, width, size), std))
        self.values = nn.Parameter(trunc_normal_(torch.empty(experts, size, width), scale * (experts * size) ** -0.5))
        self.selector = Selector(width, 1, experts, chosen, "ff", entropy_weight, std, eps)
        self.output_scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, view: View) -> Tensor:
        assert isinstance(view, TextView)
        tokens = x.flatten(0, 1)
        scores, ids = self.selector(tokens, view.real.flatten(), view.selections)
        dispatch = Dispatch(ids.squeeze(1), self.experts)
        inner = dispatch.apply(dispatch.spread(tokens), self.keys).relu()
        y = dispatch.gather(dispatch.apply(inner, self.values), scores.squeeze(1))
        return self.output_scale.to(x.dtype) * y.view_as(x)


class ExpertAttention(nn.Module):
    """Self-attention whose value and output projections are experts. [rows, seq, width] -> the same.

    Queries and keys are dense. Each token chooses, for each head, k matrices for the value and k for the output, with a
    selector for each: `v = sum of s_e * x V_e`, `y = output_scale * sum over heads and the k of s_e * o O_e`, where o
    is the attention output of the head. (SwitchHead; the learned output scale is not in the paper.)

    Args:
        width: width of a token; each head is width // heads wide.
        heads: number of heads.
        experts: number of value matrices, and of output matrices, of each head.
        chosen, entropy_weight, scale, eps: as in `ExpertFeedForward`.
    """

    def __init__(
        self, width: int, heads: int, experts: int, chosen: int, entropy_weight: float, scale: float, eps: float
    ):
        super().__init__()
        self.heads, self.experts = heads, experts
        head_dim = width // heads
        std, out_std = scale * width**-0.5, scale * (heads * head_dim) ** -0.5
        self.q_proj = CastedLinear(width, heads * head_dim)
        self.k_proj = CastedLinear(width, heads * head_dim)
        for projection in (self.q_proj, self.k_proj):
            trunc_normal_(projection.weight.data, std)
        self.values = nn.Parameter(trunc_normal_(torch.empty(heads * experts, width, head_dim), std))
        self.outputs = nn.Parameter(trunc_normal_(torch.empty(heads * experts, head_dim, width), out_std))
        self.value_selector = Selector(width, heads, experts, chosen, "attention", entropy_weight, std, eps)
        self.output_selector = Selector(width, heads, experts, chosen, "attention", entropy_weight, std, eps)
        self.output_scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, view: View) -> Tensor:
        assert isinstance(view, TextView)
        assert view.rotation is not None
        rows, seq, width = x.shape
        rotation = view.rotation
        q, k = (
            rotate(projection(x).view(rows, seq, self.heads, -1).transpose(1, 2), rotation)
            for projection in (self.q_proj, self.k_proj)
        )
        tokens = x.flatten(0, 1)
        # one row per head of each token
        v = self._mix(tokens.repeat_interleave(self.heads, 0), self.values, self.value_selector, tokens, view)
        y = attend(q, k, v.view(rows, seq, self.heads, -1).transpose(1, 2), view)
        attended = y.transpose(1, 2).reshape(rows * seq * self.heads, -1)
        out = self._mix(attended, self.outputs, self.output_selector, tokens, view)
        return self.output_scale.to(x.dtype) * out.view(rows, seq, self.heads, width).sum(2)

    def _mix(self, x: Tensor, matrices: Tensor, selector: Selector, tokens: Tensor, view: TextView) -> Tensor:
        """The score-weighted sum of x times each chosen matrix. [tokens * heads, in] -> [tokens * heads, out]."""
        scores, ids = selector(tokens, view.real.flatten(), view.selections)
        # number the experts of all heads consecutively
        ids = ids + torch.arange(self.heads, device=ids.device).view(1, -1, 1) * self.experts
        dispatch = Dispatch(ids.flatten(0, 1), self.heads * self.experts)
        return dispatch.gather(dispatch.apply(dispatch.spread(x), matrices), scores.flatten(0, 1))
