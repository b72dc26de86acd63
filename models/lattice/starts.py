"""Where a training example of the LDT starts: from the puzzle as it is, with hints, or with hints of which some lie."""

import torch
from torch import Tensor

from utils.counter_random import uniform

_LEAST_WRONG_FILL = 0.1  # share of the blanks that get a hint if some hints are wrong
_WRONG = (0.01, 0.3)  # share of these hints that are wrong


def draw_starts(
    seed: int, row_seeds: Tensor, puzzle: Tensor, solution: Tensor, bare_share: float, wrong_share: float
) -> tuple[Tensor, Tensor]:
    """Starting lattices and their targets, both bool [batch, cells, candidates]; a function of the seeds alone.

    A start with right hints fills a uniform share of the blanks. A start with wrong hints fills 10 to 100 % of them, of
    which 1 to 30 %, and at least one, are wrong; as it has no solution, its target is the empty lattice. Hints are
    treated as given. (LDT, arXiv 2605.08605, published code.)

    Args:
        seed: separates the draws of different purposes.
        row_seeds: int64 [batch].
        puzzle, solution: lattices [batch, cells, candidates]; a cell of which several candidates are in the solution,
            because nothing is asked there, gets no hint.
        bare_share, wrong_share: probabilities of starting without hints, and with wrong ones.
    """
    cells = puzzle.shape[1]
    sizes = [1, 1, 1, cells, cells, cells]
    kind, fill, lie, order, lie_order, values = uniform(seed, row_seeds, sum(sizes)).split(sizes, dim=1)
    bare, lies = kind < bare_share, kind >= 1 - wrong_share
    choices = puzzle.sum(-1)
    blank = (choices > 1) & (solution.sum(-1) == 1)
    blanks = blank.sum(1, keepdim=True)

    fill = torch.where(lies, _LEAST_WRONG_FILL + (1 - _LEAST_WRONG_FILL) * fill, fill)
    hints = (fill * blanks).long()
    hints = torch.where(lies, hints.clamp_min(1), hints).where(~bare, 0)
    hinted = _first(order, blank, hints)
    wrong = ((_WRONG[0] + (_WRONG[1] - _WRONG[0]) * lie) * hints).long().clamp_min(1)
    lied = _first(lie_order, hinted, wrong.where(lies, 0))

    # candidates of a cell by their places among those that the puzzle allows
    place = (puzzle.long().cumsum(-1) - 1).masked_fill(~puzzle, -1)
    right = place.gather(-1, solution.long().argmax(-1, keepdim=True)).squeeze(-1)
    other = (right + 1 + (values * (choices - 1)).long().minimum(choices - 2)) % choices.clamp_min(1)
    told = torch.where(lied, other, right)
    hint = place == told.unsqueeze(-1)
    start = torch.where(hinted.unsqueeze(-1), hint, puzzle)
    return start, solution & ~lied.any(1)[:, None, None]


def _first(order: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """The `count` [batch, 1] cells of `among` with the smallest `order` [batch, cells]: bool [batch, cells]."""
    ranks = order.masked_fill(~among, 2.0).argsort(1).argsort(1)
    return (ranks < count) & among
