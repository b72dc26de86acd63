"""The symmetries of Sudoku, drawn at random for each example."""

import numpy as np
import torch
from torch import Tensor

from dataset.augmentation import Draws
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box
from utils.counter_random import random_words


class SudokuAugmentation:
    """Permutes digits, bands, rows within bands, stacks and columns within stacks, and transposes half of the boards.

    Boards whose boxes are not square are never transposed. All symmetries have the same probability.
    """

    prepares = False

    def __init__(self, box: Box):
        self.box = box

    def prepare(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """See `Augmentation.prepare`; nothing needs to be prepared."""

    def draw(self, seed: int, rows: Tensor) -> dict[str, Tensor]:
        """See `Augmentation.draw`: int64 digits [n, side] (the new value of v is at v - 1), rows and columns [n, side]
        (source indices), and bool transpose [n].
        """
        box = self.box
        bands, stacks = box.side // box.rows, box.side // box.cols
        sizes = [box.side, bands, box.side, stacks, box.side, 1]
        digits, band, row, stack, column, coin = random_words(seed, rows, sum(sizes)).split(sizes, dim=1)
        return {
            "digits": _permutations(digits) + 1,
            "rows": _line_permutations(band, row),
            "columns": _line_permutations(stack, column),
            "transpose": (coin[:, 0] & 1).bool() & box.is_square,
        }

    def apply(self, inputs: Tensor, labels: Tensor, prepared: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor]:
        """See `Augmentation.apply`."""
        side, n = self.box.side, len(inputs)
        rows, columns = draws["rows"][:, :, None], draws["columns"][:, None, :]
        turned = draws["transpose"][:, None, None]
        source = torch.where(turned, columns * side + rows, rows * side + columns).view(n, -1)
        same = torch.arange(TOKEN_OFFSET + 1, device=inputs.device).expand(n, -1)  # padding and blanks
        renamed = torch.cat((same, draws["digits"] + TOKEN_OFFSET), dim=1)
        return _gather_and_rename(inputs, source, renamed), _gather_and_rename(labels, source, renamed)


def _gather_and_rename(tokens: Tensor, source: Tensor, renamed: Tensor) -> Tensor:
    """Gather tokens [n, seq_len] at `source` [n, seq_len], and look positive ones up in `renamed` [n, vocab]."""
    moved = tokens.gather(1, source)
    return torch.where(moved > 0, renamed.gather(1, moved.clamp_min(0).long()).to(moved.dtype), moved)


def _permutations(words: Tensor) -> Tensor:
    """Uniform permutations of 0..k-1 from random words [n, k]: int64 [n, k]."""
    return words.argsort(dim=1, stable=True)  # stable, so that ties give the same result on every device


def _line_permutations(groups: Tensor, lines: Tensor) -> Tensor:
    """Uniform permutations of lines that keep groups of lines together: int64 [n, lines].

    Args:
        groups: random words [n, groups].
        lines: random words [n, lines]; the number of lines is a multiple of the number of groups.
    """
    n, count = groups.shape
    inner = lines.view(n, count, -1).argsort(dim=2, stable=True)
    return (_permutations(groups)[:, :, None] * inner.shape[2] + inner).view(n, -1)
