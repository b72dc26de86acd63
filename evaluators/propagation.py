"""What follows from the rule that no symbol may stand twice in a unit: naked and hidden singles, and contradictions.

Lattices are bool [rows, cells, candidates]: which candidates of each cell are alive (`models.lattice.lattice`). No
candidate of a solution is killed here, so that a contradiction proves that a lattice has no solution.
"""

from collections.abc import Sequence

import numpy as np


class Propagation:
    """Closes lattices under the rule of the units.

    Args:
        units: groups of cells in which no symbol may stand twice, see `Task.units`.
        cells: cells of a board.
    """

    def __init__(self, units: Sequence[Sequence[int]], cells: int):
        self._member = np.zeros((len(units), cells), np.float32)
        for row, unit in zip(self._member, units, strict=True):
            row[list(unit)] = 1
        self._size = self._member.sum(1)
        self._peers = (self._member.T @ self._member > 0).astype(np.float32)
        np.fill_diagonal(self._peers, 0)

    def close(self, lattices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kill what the rule forbids until nothing is left to kill: (lattices, whether each has a contradiction).

        A cell with a single candidate forbids it in the other cells of its units (a naked single). A unit with as many
        cells as it has symbols left needs each of them, so that a symbol with a single place takes that cell (a hidden
        single); with fewer symbols than cells it is a contradiction, as is a cell without a candidate.
        """
        closed, failed = lattices.copy(), np.zeros(len(lattices), np.bool_)
        rows = np.arange(len(lattices))  # those that may still change
        while len(rows):
            before = closed[rows]
            after, wrong = self._once(before)
            closed[rows], failed[rows] = after, wrong
            rows = rows[(after != before).any(axis=(1, 2)) & ~wrong]
        return closed, failed

    def _once(self, lattices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        single = lattices & (lattices.sum(2) == 1)[:, :, None]
        lattices = lattices & ~(self._peers @ single.astype(np.float32) > 0)
        wrong = (lattices.sum(2) == 0).any(1)
        places = self._member @ lattices.astype(np.float32)  # of each symbol in each unit, [rows, units, candidates]
        symbols = (places > 0).sum(2)
        wrong |= (symbols < self._size).any(1)
        needed = (places == 1) & (symbols == self._size)[:, :, None]
        hidden = (self._member.T @ needed.astype(np.float32) > 0) & lattices
        count = hidden.sum(2)
        wrong |= (count > 1).any(1)  # two symbols need the same cell
        return np.where((count == 1)[:, :, None], hidden, lattices), wrong
