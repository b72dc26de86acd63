"""Symmetries of a task, drawn fresh for every example: for the builders, and for training batches on the fly.

All of it is batched tensor operations on the device of the tokens. What is drawn for row i is a pure function of the
seed and i, so each rank of a distributed run draws its own rows of the global batch, and every device draws the same.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dataset.counter_random import random_words
from dataset.maze import PAD, goal_remainders, grid_of, transformed_cells
from dataset.maze_paths import mark_paths
from dataset.sudoku import TOKEN_OFFSET, Box, box_of
from utils.errors import UserError, did_you_mean

Draws = Mapping[str, Tensor]


class Augmentation(Protocol):
    """Random symmetries of the examples of a data set."""

    prepares: bool  # whether `prepare` finds anything

    def prepare(self, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """What `apply` needs of each example that no symmetry changes, found once: uint8 [n, seq_len]; or None.

        Raises:
            ValueError: an example is not one of the task.
        """
        ...

    def draw(self, seed: int, rows: Tensor) -> dict[str, Tensor]:
        """Uniform draws for the rows int64 [n] of the stream `seed` (int64); every tensor has n rows."""
        ...

    def apply(self, inputs: Tensor, labels: Tensor, prepared: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor]:
        """New inputs and labels, both [n, seq_len]; row i is transformed as row i of the draws says.

        Padding tokens and ignored labels (0 and any negative value) stay what they are.
        """
        ...


def make_augmentation(name: str, seq_len: int, vocab_size: int) -> Augmentation:
    """The augmentation called `name`, "sudoku" or "maze" (square grids), for a data set of these sizes.

    Raises:
        UserError: there is no such augmentation, or the sizes do not fit it.
    """
    allowed = ("sudoku", "maze")
    match name:
        case "sudoku":
            return SudokuAugmentation(box_of(seq_len, vocab_size))
        case "maze":
            return MazeAugmentation(*grid_of(seq_len, vocab_size))
    raise UserError(f"augmentation {name!r}: allowed are {' and '.join(allowed)}.{did_you_mean(name, allowed)}")


class SudokuAugmentation:
    """Digits renamed, bands and rows in bands, stacks and columns in stacks permuted; transposed half of the time.

    The transpose is left out where boxes are not square. Every symmetry is drawn with the same probability.
    """

    prepares = False

    def __init__(self, box: Box):
        self.box = box

    def prepare(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """There is nothing to prepare."""

    def draw(self, seed: int, rows: Tensor) -> dict[str, Tensor]:
        """digits [n, side] (image of value v at v - 1), rows and columns [n, side] (source lines), transpose [n]."""
        box = self.box
        bands, stacks = box.side // box.rows, box.side // box.cols
        sizes = [box.side, bands, box.side, stacks, box.side, 1]
        digits, band, row, stack, column, coin = random_words(seed, rows, sum(sizes)).split(sizes, dim=1)
        return {
            "digits": _orders(digits) + 1,
            "rows": _line_orders(band, row),
            "columns": _line_orders(stack, column),
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
        return _moved(inputs, source, renamed), _moved(labels, source, renamed)


class MazeAugmentation:
    """Turns and flips that keep the shape of the grid; the path is found again after them.

    The labels of a turned maze are not the turned labels: the published path is one of several shortest ones, chosen by
    the order of directions (see `dataset.maze`).
    """

    prepares = True

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self._cells = torch.from_numpy(transformed_cells(height, width))

    def prepare(self, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Remainders of the distances to G, see `dataset.maze.goal_remainders`; 255 where there is nothing to label."""
        labelled = (inputs != PAD).any(axis=1) & (labels > PAD).any(axis=1)
        found = np.full(inputs.shape, 255, np.uint8)
        mazes = inputs[labelled].reshape(-1, self.height, self.width)
        found[labelled] = goal_remainders(mazes).reshape(len(mazes), -1)
        return found

    def draw(self, seed: int, rows: Tensor) -> dict[str, Tensor]:
        """transform [n], positions in `dataset.maze.transforms_of`."""
        return {"transform": random_words(seed, rows, 1)[:, 0] % len(self._cells)}

    def apply(self, inputs: Tensor, labels: Tensor, prepared: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor]:
        """See `Augmentation.apply`. Labels of rows without a maze or without any label stay what they are."""
        assert prepared is not None
        self._cells = self._cells.to(inputs.device)
        source = self._cells[draws["transform"]]
        inputs, remainders = inputs.gather(1, source), prepared.gather(1, source)
        grid = (len(inputs), self.height, self.width)
        paths = mark_paths(inputs.view(grid), remainders.view(grid)).flatten(1)
        labelled = (inputs != PAD).any(1) & (labels > PAD).any(1)
        return inputs, torch.where(labelled[:, None], paths.to(labels.dtype), labels)


def _moved(tokens: Tensor, source: Tensor, renamed: Tensor) -> Tensor:
    """Tokens [n, seq_len] taken from `source` [n, seq_len], then replaced by `renamed` [n, vocab] where positive."""
    moved = tokens.gather(1, source)
    return torch.where(moved > 0, renamed.gather(1, moved.clamp_min(0).long()).to(moved.dtype), moved)


def _orders(words: Tensor) -> Tensor:
    """Uniform orders of 0..k-1 from random words [n, k]: int64 [n, k]."""
    return words.argsort(dim=1, stable=True)  # stable, so that even equal words give one order everywhere


def _line_orders(groups: Tensor, lines: Tensor) -> Tensor:
    """Uniform orders of lines that keep groups of lines together: int64 [n, lines].

    Args:
        groups: random words [n, groups].
        lines: random words [n, lines], a multiple of the groups.
    """
    n, count = groups.shape
    inner = lines.view(n, count, -1).argsort(dim=2, stable=True)
    return (_orders(groups)[:, :, None] * inner.shape[2] + inner).view(n, -1)
