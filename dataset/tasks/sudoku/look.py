"""How a Sudoku is displayed."""

import numpy as np

from dataset.tasks.look import Look
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box


class SudokuLook(Look):
    """Displays digits in boxes, with dots for blanks."""

    def __init__(self, box: Box):
        super().__init__(box.side, box.side, " .123456789", (box.rows, box.cols))

    def given(self, inputs: np.ndarray) -> np.ndarray:
        """See `Look.given`: the clues."""
        return inputs > TOKEN_OFFSET
