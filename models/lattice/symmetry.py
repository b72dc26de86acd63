"""The symmetries under which an LDT is called: the grid turned or mirrored, and symbols renamed."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.lattice.board import Board
from utils.counter_random import random_words
from utils.grid_turns import grid_turns


def cell_permutations(board: Board) -> Tensor:
    """The turns of a board as permutations of its cells, int64 [turns, cells]; see `utils.grid_turns`."""
    turns = grid_turns(board.rows, board.columns)
    return torch.tensor([turns[number].tolist() for number in board.turns])


class Symmetry(NamedTuple):
    """One symmetry for each row of a batch."""

    cells: Tensor  # int64 [batch, cells], source of each cell
    candidates: Tensor  # int64 [batch, candidates], source of each candidate

    def apply(self, values: Tensor) -> Tensor:
        """Transform [batch, cells, candidates]."""
        width = self.candidates.shape[1]
        source = self.cells[:, :, None] * width + self.candidates[:, None, :]
        return values.flatten(1).gather(1, source.flatten(1)).view_as(values)

    def undo(self, values: Tensor) -> Tensor:
        """Transform [batch, cells, candidates] back."""
        return Symmetry(self.cells.argsort(1), self.candidates.argsort(1)).apply(values)


def draw_symmetries(seed: int, row_seeds: Tensor, permutations: Tensor, candidates: int, renamed: Tensor) -> Symmetry:
    """A random symmetry for each row, uniform; a function of the seeds alone.

    Args:
        seed: separates the draws of different purposes.
        row_seeds: int64 [batch].
        permutations: permutations of the cells to choose from, int64 [number, cells].
        candidates: number of candidates of a cell.
        renamed: those that are permuted, int64 [number].
    """
    words = random_words(seed, row_seeds, len(renamed) + 1)
    chosen = words[:, -1] % len(permutations)
    sources = torch.arange(candidates, device=row_seeds.device).repeat(len(row_seeds), 1)
    sources[:, renamed] = renamed[words[:, :-1].argsort(1)]
    return Symmetry(permutations[chosen], sources)
