"""Attention for text models, causal and within documents, and the blocks that are built from it."""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Attention, rms_norm
from models.text.selection import Selections
from models.view import View


@dataclass(frozen=True, kw_only=True)
class TextView(View):
    """The positions of a batch of text, and which of them see which: never a later one.

    With neither `lengths` nor `mask`, attention is only causal: a document sees the documents before it in its row.

    Attributes:
        real: bool [rows, seq], False at padding.
        lengths: length of each document (or stretch of padding), row by row; attention runs on one document at a time.
        mask: bool [rows, 1, seq, seq], whether the query (third axis) sees the key; the alternative to `lengths`.
        selections: records which experts are chosen; None: nothing is recorded.
    """

    real: Tensor
    lengths: list[int] | None = None
    mask: Tensor | None = None
    selections: Selections | None = field(default=None, compare=False)


def document_lengths(documents: Tensor) -> list[int]:
    """Lengths of the runs of equal numbers in int [rows, seq], row by row; a run ends with its row."""
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    bounds = [*starts.flatten().nonzero().squeeze(1).tolist(), documents.numel()]
    return [end - start for start, end in pairwise(bounds)]


def document_mask(documents: Tensor) -> Tensor:
    """Bool [rows, 1, seq, seq], from int [rows, seq]: whether the key is in the query's document and not after it."""
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    return same.tril().unsqueeze(1)


def attend(q: Tensor, k: Tensor, v: Tensor, view: TextView) -> Tensor:
    """Attention as `view` allows it. q, k and v [rows, heads, seq, head_dim] -> the same."""
    if view.mask is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=view.mask)
    if view.lengths is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    # one document at a time: the work is quadratic in the length of a document, not of a row
    pieces = (x.transpose(1, 2).flatten(0, 1).split(view.lengths) for x in (q, k, v))
    outputs = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in document), is_causal=True)
        for document in zip(*pieces, strict=True)
    ]
    rows, heads, seq, head_dim = q.shape
    return torch.cat([y.squeeze(0).transpose(0, 1) for y in outputs]).view(rows, seq, heads, head_dim).transpose(1, 2)


class CausalAttention(Attention):
    """Multi-head self-attention to the positions that the view allows. [rows, seq, hidden] -> the same."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        assert isinstance(view, TextView)
        return attend(q, k, v, view)


class PostNormBlock(nn.Module):
    """`h = norm(h + attention(h)); h = norm(h + mlp(h))`, as in TRM. [rows, seq, hidden] -> the same."""

    def __init__(self, attention: nn.Module, mlp: nn.Module, eps: float):
        super().__init__()
        self.self_attn, self.mlp, self.eps = attention, mlp, eps

    def forward(self, h: Tensor, view: View) -> Tensor:
        h = rms_norm(h + self.self_attn(h, view), self.eps)
        return rms_norm(h + self.mlp(h, view), self.eps)


class DampedBlock(PostNormBlock):
    """`h = norm(h + SHARE * norm(attention(h))); h = norm(h + SHARE * norm(mlp(h)))`. [rows, seq, hidden] -> the same.

    In a post-norm block each sum loses about half of the block's input, so that after the 14 blocks of a step hardly
    anything of a token is left, and training does not get beyond word frequencies. Here a sum changes the state by
    SHARE of its size, whatever the scale of the weights: tokens pass through, and a high learning rate does no harm.
    """

    SHARE = 0.2

    def forward(self, h: Tensor, view: View) -> Tensor:
        h = rms_norm(h + self.SHARE * rms_norm(self.self_attn(h, view), self.eps), self.eps)
        return rms_norm(h + self.SHARE * rms_norm(self.mlp(h, view), self.eps), self.eps)


class PreNormBlock(PostNormBlock):
    """`h = h + attention(norm(h)); h = h + mlp(norm(h))`, norms without weights. [rows, seq, hidden] -> the same."""

    def forward(self, h: Tensor, view: View) -> Tensor:
        h = h + self.self_attn(rms_norm(h, self.eps), view)
        return h + self.mlp(rms_norm(h, self.eps), view)
