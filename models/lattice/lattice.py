"""Deduction on lattices of candidates, and what the lattices should become.

A lattice is bool [batch, cells, candidates]: which candidates of each cell are alive (`models.lattice.candidates`).
(LDT, arXiv 2605.08605.)
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.lattice.network import HeadLogits


def given_cells(puzzle: Tensor) -> Tensor:
    """Cells with a single candidate at the start, bool [batch, cells]."""
    return puzzle.sum(-1) == 1


# -- what a lattice should become --------------------------------------------------------------------------------------


def surviving(lattice: Tensor, solutions: Tensor, before: Tensor) -> Tensor:
    """Alpha: the union of the solutions that the lattice still allows, bool [batch, cells, candidates].

    Args:
        lattice: [batch, cells, candidates].
        solutions: one-hot, [batch, number, cells, candidates]; where nothing is asked, with all that the puzzle allows.
        before: alpha of the step before, kept where no solution survives.
    """
    survives = (lattice.unsqueeze(1) & solutions).any(-1).all(-1)  # [batch, number]
    union = (solutions & survives[:, :, None, None]).any(1)
    return torch.where(survives.any(1)[:, None, None], union, before)


def in_conflict(lattice: Tensor, alpha: Tensor, asked: Tensor) -> Tensor:
    """Whether a cell of the lattice has lost every candidate of alpha, so that no solution is left: bool [batch].

    Args:
        lattice, alpha: bool [batch, cells, candidates].
        asked: bool [batch, cells], the cells that have a label; others are in no conflict.
    """
    return ~((lattice & alpha).any(-1) | ~asked).all(-1)


# -- a step of deduction -----------------------------------------------------------------------------------------------


class Deduction(NamedTuple):
    """A lattice after its candidates were killed, and what follows from it."""

    lattice: Tensor  # [batch, cells, candidates]
    killed: Tensor  # [batch, cells, candidates]
    conflict: Tensor  # bool [batch]: a cell is empty, or the conflict head says so
    solved: Tensor  # bool [batch]: each cell has one candidate, and there is no conflict
    undecided: Tensor  # bool [batch]: neither, so a cell must be decided


def deduce(
    lattice: Tensor, given: Tensor, logits: HeadLogits, kill_threshold: float, conflict_threshold: float
) -> Deduction:
    """Kill the improbable candidates of all cells that are not given, and look at what is left."""
    killed = (logits.keep.sigmoid() < kill_threshold) & lattice & ~given.unsqueeze(-1)
    lattice = lattice & ~killed
    alive = lattice.sum(-1)
    conflict = (alive == 0).any(-1) | (logits.conflict.sigmoid() > conflict_threshold)
    solved = (alive == 1).all(-1) & ~conflict
    return Deduction(lattice, killed, conflict, solved, ~conflict & ~solved)


def pin(lattice: Tensor, rows: Tensor, cells: Tensor, candidates: Tensor) -> Tensor:
    """`lattice` with one cell of each of `rows` (bool [batch]) decided: its other candidates die.

    Args:
        lattice: [batch, cells, candidates].
        rows: bool [batch].
        cells, candidates: int64 [batch]; without effect outside `rows`.
    """
    _, count, width = lattice.shape
    at_cell = torch.arange(count, device=lattice.device) == cells[:, None]
    other = torch.arange(width, device=lattice.device) != candidates[:, None]
    return lattice & ~(rows[:, None, None] & at_cell[:, :, None] & other[:, None, :])


def choose_at_random(
    lattice: Tensor, logits: Tensor, temperature: float, cell_noise: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """A random open cell of each row, and one of its living candidates: (cells, candidates), int64 [batch].

    The candidate is drawn with the probabilities softmax(logits / temperature), by the Gumbel-max trick.

    Args:
        lattice, logits: [batch, cells, candidates]; logits are those of the digit head.
        temperature: above 0.
        cell_noise: uniform in (0, 1), [batch, cells].
        noise: uniform in (0, 1), [batch, candidates].
    """
    cells = cell_noise.masked_fill(lattice.sum(-1) < 2, -1).argmax(-1)
    at_cell = cells[:, None, None].expand(-1, 1, lattice.shape[-1])
    alive, own = lattice.gather(1, at_cell).squeeze(1), logits.gather(1, at_cell).squeeze(1)
    gumbel = -(-noise.log()).log()
    return cells, (own / temperature + gumbel).masked_fill(~alive, -torch.inf).argmax(-1)


def choose_most_certain(lattice: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The open cell whose digit head is most certain, and its most probable candidate: (cells, candidates)."""
    certainty, candidates = logits.masked_fill(~lattice, -torch.inf).softmax(-1).nan_to_num(0.0).max(-1)
    cells = certainty.masked_fill(lattice.sum(-1) < 2, -1).argmax(-1)
    return cells, candidates.gather(1, cells[:, None]).squeeze(1)
