"""Symmetries of a task, drawn fresh for every example: for the builders, and for training batches on the fly.

Drawing and applying are apart. Row i of the draws depends on the generator, n and i alone, so each rank of a
distributed run draws for the global batch and applies its own rows.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from dataset.maze import PAD, grid_of, label_mazes, transformed_cells
from dataset.sudoku import TOKEN_OFFSET, Box, box_of
from utils.errors import UserError, did_you_mean

Draws = Mapping[str, np.ndarray]


class Augmentation(Protocol):
    """Random symmetries of the examples of a data set."""

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Uniform draws for n examples; every array has n rows."""
        ...

    def apply(self, inputs: np.ndarray, labels: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
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

    def __init__(self, box: Box):
        self.box = box

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """digits [n, side] (image of value v at v - 1), rows and columns [n, side] (source lines), transpose [n]."""
        box = self.box
        draws = {
            "digits": _orders(rng, n, box.side) + 1,
            "rows": _line_orders(rng, n, box.rows, box.side // box.rows),
            "columns": _line_orders(rng, n, box.cols, box.side // box.cols),
            "transpose": rng.random(n) < 0.5,
        }
        if not box.is_square:
            draws["transpose"][:] = False
        return draws

    def apply(self, inputs: np.ndarray, labels: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """See `Augmentation.apply`."""
        side, n = self.box.side, len(inputs)
        rows, columns = draws["rows"][:, :, None], draws["columns"][:, None, :]
        turned = draws["transpose"][:, None, None]
        source = np.where(turned, columns * side + rows, rows * side + columns).reshape(n, -1)
        renamed = np.empty((n, self.box.vocab_size), np.int64)
        renamed[:, : TOKEN_OFFSET + 1] = np.arange(TOKEN_OFFSET + 1)  # padding and blanks
        renamed[:, TOKEN_OFFSET + 1 :] = draws["digits"] + TOKEN_OFFSET
        return _moved(inputs, source, renamed), _moved(labels, source, renamed)


class MazeAugmentation:
    """Turns and flips that keep the shape of the grid; the path is found again after them.

    The labels of a turned maze are not the turned labels: the published path is one of several shortest ones, chosen by
    the order of directions (see `dataset.maze`).
    """

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self._cells = transformed_cells(height, width)

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """transform [n], positions in `dataset.maze.transforms_of`."""
        return {"transform": rng.integers(len(self._cells), size=n)}

    def apply(self, inputs: np.ndarray, labels: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """See `Augmentation.apply`. Labels of rows without a maze or without any label stay what they are."""
        inputs = np.take_along_axis(inputs, self._cells[draws["transform"]], axis=1)
        labels = labels.copy()
        labelled = (inputs != PAD).any(axis=1) & (labels > PAD).any(axis=1)
        mazes = inputs[labelled].reshape(-1, self.height, self.width)
        labels[labelled] = label_mazes(mazes).reshape(len(mazes), -1)
        return inputs, labels


def _moved(tokens: np.ndarray, source: np.ndarray, renamed: np.ndarray) -> np.ndarray:
    """Tokens [n, seq_len] taken from `source` [n, seq_len], then replaced by `renamed` [n, vocab] where positive."""
    moved = np.take_along_axis(tokens, source, axis=1)
    return np.where(moved > 0, np.take_along_axis(renamed, moved.clip(0), axis=1), moved).astype(tokens.dtype)


def _orders(rng: np.random.Generator, n: int, length: int) -> np.ndarray:
    """n uniform orders of 0..length-1: int64 [n, length]."""
    return np.argsort(rng.random((n, length)), axis=1)


def _line_orders(rng: np.random.Generator, n: int, lines: int, groups: int) -> np.ndarray:
    """n uniform orders [n, groups * lines] of lines, groups of `lines` kept together."""
    outer = _orders(rng, n, groups)[:, :, None]
    inner = np.argsort(rng.random((n, groups, lines)), axis=2)
    return (outer * lines + inner).reshape(n, -1)
