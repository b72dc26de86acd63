"""The symmetries under which an LDT is called: permuted candidates, and the grid turned or mirrored."""

from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from utils.counter_random import random_words


def cell_permutations(side: int) -> Tensor:
    """The eight symmetries of a square grid, int64 [8, cells]: cell s of the result is cell p[s] of the original.

    Symmetry 2k + m turns the grid k times counter-clockwise, and then mirrors it left-right if m is 1.
    """
    grid = torch.arange(side**2).view(side, side)
    turned = (grid.rot90(k) for k in range(4))
    return torch.stack([view.reshape(-1) for one in turned for view in (one, one.flip(1))])


def valid_symmetries(side: int) -> tuple[int, ...]:
    """Those of `cell_permutations` that map the boxes of a Sudoku to boxes.

    Boxes that are not square (6x6: 2 rows of 3 columns) cannot be turned by 90 degrees.
    """
    return tuple(range(8)) if isqrt(side) ** 2 == side else (0, 1, 4, 5)


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


def draw_symmetries(seed: int, row_seeds: Tensor, permutations: Tensor, candidates: int) -> Symmetry:
    """A random symmetry for each row, uniform; a function of the seeds alone.

    Args:
        seed: separates the draws of different purposes.
        row_seeds: int64 [batch].
        permutations: permutations of the cells to choose from, int64 [number, cells].
        candidates: number of candidates of a cell.
    """
    words = random_words(seed, row_seeds, candidates + 1)
    chosen = words[:, -1] % len(permutations)
    return Symmetry(permutations[chosen], words[:, :-1].argsort(1))
