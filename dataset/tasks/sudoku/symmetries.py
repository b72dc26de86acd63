"""The symmetries of Sudoku, one by one; `dataset.tasks.sudoku.augmentation` applies them to whole batches."""

from math import factorial

import numpy as np

from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box
from dataset.tasks.symmetry import Choices, Permutations, Symmetry, pair, renaming


class LinePermutations(Choices):
    """The permutations of `groups` x `size` lines, int64 [groups * size], that keep groups of lines together."""

    def __init__(self, groups: int, size: int):
        self.groups, self.size = groups, size

    def __len__(self) -> int:
        return factorial(self.groups) * factorial(self.size) ** self.groups

    def __getitem__(self, index: int) -> np.ndarray:
        """The permutation with this number.

        Raises:
            IndexError: there is none.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        within, rest = Permutations(self.size), int(index)
        lines: list[np.ndarray] = []
        for _ in range(self.groups):
            rest, choice = divmod(rest, len(within))
            lines.append(within[choice])
        order = Permutations(self.groups)[rest]
        return np.concatenate([group * self.size + lines[group] for group in order])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """See `dataset.tasks.symmetry.random_choice`."""
        order = rng.permutation(self.groups)
        return np.concatenate([group * self.size + rng.permutation(self.size) for group in order])


def sudoku_symmetries(box: Box) -> list[Symmetry]:
    """Digits may be renamed, bands and rows within bands and likewise columns permuted, and square boxes transposed."""
    rows, columns = LinePermutations(box.side // box.rows, box.rows), LinePermutations(box.side // box.cols, box.cols)
    found = [
        renaming(range(TOKEN_OFFSET + 1, TOKEN_OFFSET + 1 + box.side), "rename the digits"),
        Symmetry("permute rows", lambda board, k: board[k], lambda board, k: board[np.argsort(k)], rows),
        Symmetry("permute columns", lambda board, k: board[:, k], lambda board, k: board[:, np.argsort(k)], columns),
    ]
    if box.is_square:
        found.append(pair("transpose", np.transpose, np.transpose))
    return found
