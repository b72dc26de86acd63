"""The losses of the LDT (arXiv 2605.08605), over all loops at once."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from models.lattice.network import HeadLogits


class LatticeLosses(NamedTuple):
    """Mean losses, before they are weighted against each other; scalars."""

    keep: Tensor
    digit: Tensor
    conflict: Tensor


def lattice_losses(
    logits: HeadLogits,
    lattice: Tensor,
    alpha: Tensor,
    given: Tensor,
    asked: Tensor,
    conflict: Tensor,
    keep_weight: float = 4.0,
    kill_weight: float = 0.5,
) -> LatticeLosses:
    """The losses of every loop, averaged over the loops.

    keep: binary cross-entropy against `lattice & alpha`, with weights for the two classes, a mean over all candidates
        of the cells that are asked.
    digit: cross-entropy against alpha, a mean over the cells that are asked, are not given, have one candidate in alpha
        and belong to a lattice without conflict; 0 if there is none.
    conflict: binary cross-entropy against `conflict`, a mean over the lattices.

    Args:
        logits: of all loops, [loops, batch, ...].
        lattice, alpha: bool [batch, cells, candidates].
        given: bool [batch, cells].
        asked: bool [batch, cells], the cells that have a label.
        conflict: bool [batch].
        keep_weight, kill_weight: weights of candidates to be kept and to be killed.
    """
    target = (lattice & alpha).float()
    weight = (kill_weight + (keep_weight - kill_weight) * target) * asked.unsqueeze(-1)
    keep = F.binary_cross_entropy_with_logits(logits.keep, target.expand_as(logits.keep), weight.expand_as(logits.keep))
    keep = keep * (asked.numel() / asked.sum().clamp_min(1))  # a mean over the cells that are asked

    known = asked & ~given & (alpha.sum(-1) == 1) & ~conflict[:, None]  # [batch, cells]
    of_target = (logits.digit.log_softmax(-1) * alpha).sum(-1)  # [loops, batch, cells]
    digit = -(of_target * known).sum() / (known.sum().clamp_min(1) * len(of_target))

    truth = conflict.float().expand_as(logits.conflict)
    return LatticeLosses(keep, digit, F.binary_cross_entropy_with_logits(logits.conflict, truth))
