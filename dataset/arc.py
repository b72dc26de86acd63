"""What the ARC builder and the ARC evaluator agree on: names, augmentations and the 30x30 token field.

A token field is 30x30, row by row: 0 where nothing is, colour + 2 on the grid, and 1 on the row right below the
grid and the column right of it (where those are inside the field; the corner between them stays 0).
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dataset.dihedral import dihedral_transform, inverse_dihedral_transform
from utils.errors import UserError

MAX_SIDE = 30
SEQ_LEN = MAX_SIDE * MAX_SIDE
NUM_COLOURS = 10
PAD, BORDER, FIRST_COLOUR = 0, 1, 2  # tokens
VOCAB_SIZE = FIRST_COLOUR + NUM_COLOURS
SEPARATOR = "|||"

_AUGMENTED_NAME = re.compile(r"(.+?)\|\|\|t([0-7])\|\|\|([0-9]{10})")


@dataclass(frozen=True)
class Augmentation:
    """A symmetry of the square and a permutation of the colours; digit i of `colours` is the image of colour i."""

    transform: int
    colours: str

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        forward = np.frombuffer(self.colours.encode(), dtype=np.uint8) - ord("0")
        return forward, np.argsort(forward).astype(np.uint8)

    def apply(self, grid: np.ndarray) -> np.ndarray:
        """`grid` of colours [height, width] to uint8, [height, width] or [width, height]."""
        return self._tables[0][dihedral_transform(grid, self.transform)]

    def undo(self, grid: np.ndarray) -> np.ndarray:
        """The grid that `apply` turns into `grid`."""
        return self._tables[1][inverse_dihedral_transform(grid, self.transform)]


IDENTITY = Augmentation(0, "0123456789")


def puzzle_name(task: str, transform: int, colours: str) -> str:
    """The name of an augmented puzzle, `id|||t{transform}|||{ten digits}`; see `Augmentation`."""
    return f"{task}{SEPARATOR}t{transform}{SEPARATOR}{colours}"


def parse_puzzle_name(name: str) -> tuple[str, Augmentation]:
    """The task's id and the augmentation; a bare id is the task as it is.

    Raises:
        UserError: the name has a separator but not the form above.
    """
    if SEPARATOR not in name:
        return name, IDENTITY
    match = _AUGMENTED_NAME.fullmatch(name)
    if match is None or len(set(match[3])) != NUM_COLOURS:
        raise UserError(
            f"puzzle name {name!r}: expected a task id, or id{SEPARATOR}t0..t7{SEPARATOR}a permutation of 0123456789. "
            "Build the data set again with `python -m dataset.build_arc_dataset`."
        )
    return match[1], Augmentation(int(match[2]), match[3])


class Stamp:
    """A grid with its border, ready to be cut out at any place of the field.

    The field is one row of 900 bytes, so moving the grid by (row, column) is moving that row by 30 * row + column:
    a slice, and no computation. Only the right border would come out at the left edge when the grid touches the
    right one, so there is a second copy without it.
    """

    def __init__(self, grid: np.ndarray) -> None:
        """`grid` holds colours, [height, width]."""
        height, width = grid.shape
        field = np.zeros((MAX_SIDE + 1, MAX_SIDE + 1), dtype=np.uint8)
        field[:height, :width] = grid + FIRST_COLOUR
        field[height, :width] = BORDER
        nothing_before = bytes(SEQ_LEN)
        self._at_right_edge = nothing_before + field[:MAX_SIDE, :MAX_SIDE].tobytes()
        field[:height, width] = BORDER
        self._elsewhere = nothing_before + field[:MAX_SIDE, :MAX_SIDE].tobytes()
        self._last_column = MAX_SIDE - width

    def at(self, row: int, column: int) -> bytes:
        """The token field, 900 bytes, with the grid's corner at (row, column). The grid must fit."""
        start = SEQ_LEN - MAX_SIDE * row - column
        return (self._at_right_edge if column == self._last_column else self._elsewhere)[start : start + SEQ_LEN]


def encode(grid: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    """The token field, uint8 [900], of a grid of colours [height, width] placed at (row, column)."""
    height, width = grid.shape
    if not (0 <= row <= MAX_SIDE - height and 0 <= column <= MAX_SIDE - width):
        raise ValueError(f"a {height}x{width} grid at ({row}, {column}) leaves the {MAX_SIDE}x{MAX_SIDE} field")
    return np.frombuffer(Stamp(grid).at(row, column), dtype=np.uint8)


def crop_sizes(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths, [batch] each, of the grids in `fields` [batch, 900].

    A grid is the rectangle of largest area at the top-left corner that holds colours only; among equals the lowest
    one. Both are 0 where the corner is no colour.
    """
    fields = fields.reshape(-1, MAX_SIDE, MAX_SIDE)
    colour = (fields >= FIRST_COLOUR) & (fields < VOCAB_SIZE)
    row_widths = np.logical_and.accumulate(colour, axis=2).sum(axis=2)
    widths = np.minimum.accumulate(row_widths, axis=1)  # [batch, 30], of the rectangle that ends at each row
    areas = widths * np.arange(1, MAX_SIDE + 1)
    last_rows = areas.argmax(axis=1)
    rows = np.arange(len(fields))
    found = areas[rows, last_rows] > 0
    return np.where(found, last_rows + 1, 0), np.where(found, widths[rows, last_rows], 0)


def crop(fields: np.ndarray) -> list[np.ndarray]:
    """The grids of colours, uint8 [height, width], at the top-left corners of `fields` [batch, 900]."""
    heights, widths = crop_sizes(fields)
    squares = fields.reshape(-1, MAX_SIDE, MAX_SIDE)
    return [
        (square[:height, :width] - FIRST_COLOUR).astype(np.uint8)
        for square, height, width in zip(squares, heights.tolist(), widths.tolist(), strict=True)
    ]
