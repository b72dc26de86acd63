"""Attention of text models: causal, and within documents; and the blocks made of it."""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Attention, Rotation, rms_norm
from models.text.selection import Selections


@dataclass(frozen=True)
class TextView(Rotation):
    """What the layers know of the positions of a batch, made once a step.

    With neither `lengths` nor `mask` attention is only causal: documents see the ones before them.

    Attributes:
        real: bool [rows, seq], False at padding.
        lengths: positions of each document (or padding) of the first row, then of the second, ...
        mask: bool [rows, 1, seq, seq], whether the query (third axis) sees the key; where documents are not cut apart.
        selections: what the experts are asked to do, where that is to be recorded.
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
    """Bool [rows, 1, seq, seq]: the key is in the query's document and not after it. From int [rows, seq]."""
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    return same.tril().unsqueeze(1)


def attend(q: Tensor, k: Tensor, v: Tensor, view: TextView) -> Tensor:
    """The values that each position attends to. [rows, heads, seq, head_dim] three times -> the same."""
    if view.mask is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=view.mask)
    if view.lengths is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    # one document at a time: the work is a sum of squares of their lengths, not of the rows'
    pieces = (x.transpose(1, 2).flatten(0, 1).split(view.lengths) for x in (q, k, v))
    found = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in document), is_causal=True)
        for document in zip(*pieces, strict=True)
    ]
    rows, heads, seq, head_dim = q.shape
    return torch.cat([y.squeeze(0).transpose(0, 1) for y in found]).view(rows, seq, heads, head_dim).transpose(1, 2)


class CausalAttention(Attention):
    """Multi-head self-attention to what the view lets each position see. [rows, seq, hidden] -> the same."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rotation: Rotation | None) -> Tensor:
        assert isinstance(rotation, TextView)
        return attend(q, k, v, rotation)


class PostNormBlock(nn.Module):
    """`h = norm(h + attention(h)); h = norm(h + mlp(h))`, as TRM's. [rows, seq, hidden] -> the same."""

    def __init__(self, attention: nn.Module, mlp: nn.Module, eps: float):
        super().__init__()
        self.self_attn, self.mlp, self.eps = attention, mlp, eps

    def forward(self, h: Tensor, view: Rotation | None) -> Tensor:
        h = rms_norm(h + self.self_attn(h, view), self.eps)
        return rms_norm(h + self.mlp(h, view), self.eps)


class DampedBlock(PostNormBlock):
    """`h = norm(h + SHARE * norm(attention(h))); h = norm(h + SHARE * norm(mlp(h)))`. [rows, seq, hidden] -> the same.

    A post-norm block takes about half of what it was given away with each sum, so that after the 14 blocks of a step
    hardly anything of a token is left, and training stays at the frequencies of the words. Here a sum changes the state
    by SHARE of its size, whatever the scale of the weights: so a token passes, and a high learning rate is harmless.
    """

    SHARE = 0.2

    def forward(self, h: Tensor, view: Rotation | None) -> Tensor:
        h = rms_norm(h + self.SHARE * rms_norm(self.self_attn(h, view), self.eps), self.eps)
        return rms_norm(h + self.SHARE * rms_norm(self.mlp(h, view), self.eps), self.eps)


class PreNormBlock(PostNormBlock):
    """`h = h + attention(norm(h)); h = h + mlp(norm(h))`, without weights in the norms."""

    def forward(self, h: Tensor, view: Rotation | None) -> Tensor:
        h = h + self.self_attn(rms_norm(h, self.eps), view)
        return h + self.mlp(rms_norm(h, self.eps), view)
