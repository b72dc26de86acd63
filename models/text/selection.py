"""Which experts the tokens choose, recorded during a step to compute the balancing regulariser and the loads."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from models.layers import rms_norm
from utils.distributed import summed_over_ranks

Kind = Literal["ff", "attention"]


class Selector(nn.Module):
    """Scores of the experts of each head for each token, `s = sigmoid(norm(x) . row)`, and the best k of them.

    The input is normalised before it is scored, as in MoEUT (arXiv 2405.16039); the scores are not normalised.

    Args:
        width: width of a token.
        heads, experts: number of heads, and of the experts that each head chooses from.
        chosen: k, the number of experts that are chosen.
        kind: kind of the experts, which names the loads.
        entropy_weight: weight of the regulariser.
        std: standard deviation of the initial weights, whose rows all have the same length.
        eps: epsilon of the norm.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        experts: int,
        chosen: int,
        kind: Kind,
        entropy_weight: float,
        std: float,
        eps: float,
    ):
        super().__init__()
        self.heads, self.experts, self.chosen = heads, experts, chosen
        self.kind: Kind = kind
        self.entropy_weight, self.eps = entropy_weight, eps
        rows = torch.randn(heads * experts, width)
        self.weight = nn.Parameter(rows * (std * width**0.5 / rows.norm(dim=-1, keepdim=True)))

    def forward(self, x: Tensor, real: Tensor, selections: "Selections | None") -> tuple[Tensor, Tensor]:
        """Choose, and record what was chosen.

        Args:
            x: [tokens, width].
            real: bool [tokens], whether the token counts in the records (it is not padding).
            selections: the records; None: nothing is recorded.

        Returns:
            (scores in the dtype of x, experts int64), [tokens, heads, k] each, the best first.
        """
        logits = F.linear(rms_norm(x, self.eps), self.weight.to(x.dtype)).view(-1, self.heads, self.experts)
        best, ids = logits.topk(self.chosen, dim=-1)
        if selections is not None:
            selections.record(self, logits, ids, real)
        return best.sigmoid(), ids


@dataclass
class _Record:
    """Sums over the tokens and the uses of one selector in a step."""

    probabilities: Tensor  # fp32 [heads, experts], sum of the softmax of the logits
    chosen: Tensor  # fp32 [heads, experts], how often each expert was chosen
    tokens: Tensor  # fp32 scalar, number of tokens


class Selections:
    """The records of all selectors during one step."""

    def __init__(self):
        self._records: dict[Selector, _Record] = {}
        self._read = False

    @property
    def empty(self) -> bool:
        """Whether nothing was recorded, as in models without experts."""
        return not self._records

    # Not compiled, because a graph would depend on the records so far, also when recomputed. `torch.compiler.disable`
    # does the same, but imports the compiler at once, which takes every program seconds.
    @_disable_dynamo
    def record(self, selector: Selector, logits: Tensor, ids: Tensor, real: Tensor) -> None:
        """Add one use of a selector: logits [tokens, heads, experts], ids [tokens, heads, k], real bool [tokens]."""
        if self._read:
            # the backward pass is recomputing a block: record nothing more, and do not hold on to its tensors
            self._records.clear()
        counts = real.float()
        probabilities = (counts @ logits.float().softmax(-1).flatten(1)).view(selector.heads, selector.experts)
        with torch.no_grad():
            offsets = torch.arange(selector.heads, device=ids.device).view(1, -1, 1) * selector.experts
            weights = counts.view(-1, 1, 1).expand_as(ids)
            chosen = probabilities.new_zeros(selector.heads * selector.experts)
            chosen.index_add_(0, (ids + offsets).flatten(), weights.flatten())
        new = _Record(probabilities, chosen.view_as(probabilities), counts.sum())
        old = self._records.get(selector)
        if old is not None:
            new = _Record(old.probabilities + new.probabilities, old.chosen + new.chosen, old.tokens + new.tokens)
        self._records[selector] = new

    def regulariser(self) -> Tensor:
        """`sum over selectors of entropy_weight * (- entropy of the mean softmax)`, fp32 scalar, in nats.

        The mean is over the real tokens of all ranks and all uses of the layer; with several heads, their entropies are
        averaged. (MoEUT, arXiv 2405.16039.)

        The gradient is that of this rank's tokens only, times the number of ranks. The sum over ranks of the gradients
        of `rows * regulariser()` is then the gradient of the regulariser over all tokens, times the global batch size.
        """
        totals, world_size = self._over_ranks()
        losses = []
        for (selector, record), total in zip(self._records.items(), totals, strict=True):
            tokens = total.tokens.clamp_min(1)
            mine = world_size * record.probabilities / tokens
            # the value is the mean over all ranks
            mean = mine + (total.probabilities / tokens - mine).detach()
            losses.append(selector.entropy_weight * _negative_entropy(mean).mean())
        return torch.stack(losses).sum()

    @torch.no_grad()
    def loads(self) -> dict[str, Tensor]:
        """How evenly the tokens of all ranks use the experts, fp32 scalars, means over layers and heads of each kind.

        `{kind}_busiest`, `{kind}_least_busy`: share of all choices that went to the expert chosen most, and least.
        `{kind}_entropy`: entropy of the mean softmax, in nats.
        """
        loads: dict[str, list[Tensor]] = {}
        for selector, record in zip(self._records, self._over_ranks()[0], strict=True):
            share = record.chosen / record.chosen.sum(-1, keepdim=True).clamp_min(1)
            mean = record.probabilities / record.tokens.clamp_min(1)
            values = {"busiest": share.amax(-1), "least_busy": share.amin(-1), "entropy": -_negative_entropy(mean)}
            for name, value in values.items():
                loads.setdefault(f"{selector.kind}_{name}", []).append(value)
        return {name: torch.cat(values).mean() for name, values in loads.items()}

    def _over_ranks(self) -> tuple[list[_Record], int]:
        """(each record summed over all ranks, without gradient; the number of ranks)."""
        self._read = True
        records = list(self._records.values())
        parts = [part for r in records for part in (r.probabilities, r.chosen, r.tokens)]
        total, world_size = summed_over_ranks(torch.cat([part.flatten() for part in parts]))
        sums = iter(total.split([part.numel() for part in parts]))
        summed = []
        for record in records:
            probabilities, chosen = next(sums).view_as(record.chosen), next(sums).view_as(record.chosen)
            summed.append(_Record(probabilities, chosen, next(sums).sum()))
        return summed, world_size


def _negative_entropy(p: Tensor) -> Tensor:
    """`sum p log p` over the last axis, in nats; its gradient is finite at 0 too."""
    return (p * p.clamp_min(1e-30).log()).sum(-1)
