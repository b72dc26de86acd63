"""The rules of Sudoku with boxes of 2x2, 2x3 and 3x3 cells, and the tokens of its data sets.

A board is a row-major array of cell values, with 0 for a blank. The data sets store value + 1 (`TOKEN_OFFSET`).
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from utils.errors import UserError, did_you_mean

TOKEN_OFFSET = 1  # a cell of value v is token v + 1; 0 is padding, 1 a blank


class Box(NamedTuple):
    """The shape of one box. A board with boxes of `rows` x `cols` cells has `rows * cols` cells per side."""

    rows: int
    cols: int

    @property
    def side(self) -> int:
        return self.rows * self.cols

    @property
    def cells(self) -> int:
        return self.side**2

    @property
    def vocab_size(self) -> int:
        return self.side + 2

    @property
    def is_square(self) -> bool:
        return self.rows == self.cols

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


BOXES = (Box(2, 2), Box(2, 3), Box(3, 3))


def parse_box(text: str) -> Box:
    """The box called `text`, such as "2x3" for boxes of 2 rows and 3 columns.

    Raises:
        UserError: there is no such box.
    """
    names = {str(box): box for box in BOXES}
    if text not in names:
        raise UserError(
            f"Sudoku box {text!r}: allowed are {', '.join(names)} (rows x columns).{did_you_mean(text, names)}"
        )
    return names[text]


def box_of(seq_len: int, vocab_size: int) -> Box:
    """The box of the Sudoku data set with these sizes.

    Raises:
        UserError: no Sudoku has these sizes.
    """
    for box in BOXES:
        if (seq_len, vocab_size) == (box.cells, box.vocab_size):
            return box
    allowed = ", ".join(f"{box.cells} and {box.vocab_size} (boxes {box})" for box in BOXES)
    raise UserError(
        f"seq_len {seq_len} and vocab_size {vocab_size} fit no Sudoku; allowed are {allowed}. "
        "Choose a data set built with `python -m dataset.build_sudoku_dataset`."
    )


def obeys_rules(boards: np.ndarray, box: Box) -> np.ndarray:
    """Whether each board [n, cells] has every value exactly once in each row, column and box: bool [n]."""
    side = box.side
    values = boards.astype(np.int64)
    bits = np.where((values >= 1) & (values <= side), np.int64(1) << values.clip(0, side), 0)
    grid = bits.reshape(-1, side // box.rows, box.rows, side // box.cols, box.cols)
    # A unit has as many cells as there are values, so if no value is missing, none is repeated.
    every = (1 << (side + 1)) - 2
    seen = [np.bitwise_or.reduce(np.bitwise_or.reduce(grid, b), a) for a, b in ((3, 4), (1, 2), (2, 4))]
    return np.logical_and.reduce([(units == every).all(axis=(1, 2)) for units in seen])


@cache
def units_of(box: Box) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The cells of each row, column and box, by these names."""
    rows, columns = np.divmod(np.arange(box.cells), box.side)
    boxes = rows // box.rows * box.rows + columns // box.cols
    return {
        name: tuple(tuple(np.flatnonzero(unit == number).tolist()) for number in range(box.side))
        for name, unit in (("row", rows), ("column", columns), ("box", boxes))
    }


def repeated_digit(board: np.ndarray, box: Box) -> str | None:
    """The first digit that is in a row, column or box of `board` [cells] twice, as a clause; None if there is none."""
    for name, units in units_of(box).items():
        for number, unit in enumerate(units, start=1):
            values = board[list(unit)]
            for value in range(1, box.side + 1):
                if np.count_nonzero(values == value) > 1:
                    return f"the digit {value} is in {name} {number} more than once"
    return None
