"""The 30x30 token field that holds an ARC grid.

A token field has 30x30 tokens in row-major order: colour + 2 on the grid, 1 in the row just below the grid and in the
column just right of it (as far as they are inside the field; the corner between them is 0), and 0 elsewhere.
"""

import numpy as np

MAX_SIDE = 30
SEQ_LEN = MAX_SIDE * MAX_SIDE
NUM_COLOURS = 10
PAD, BORDER, FIRST_COLOUR = 0, 1, 2  # tokens
VOCAB_SIZE = FIRST_COLOUR + NUM_COLOURS


class Stamp:
    """A grid with its border, prepared so that it can be placed anywhere in the field by slicing.

    The field is stored as 900 bytes in row-major order, so moving the grid by (row, column) is a shift by
    30 * row + column bytes, which is a slice. If the grid touches the right edge, its right border would wrap around to
    the left edge, so there is a second copy without that border.
    """

    def __init__(self, grid: np.ndarray) -> None:
        """Prepare `grid`, colours [height, width]."""
        height, width = grid.shape
        field = np.zeros((MAX_SIDE + 1, MAX_SIDE + 1), dtype=np.uint8)
        field[:height, :width] = grid + FIRST_COLOUR
        field[height, :width] = BORDER
        zeros_before = bytes(SEQ_LEN)
        self._at_right_edge = zeros_before + field[:MAX_SIDE, :MAX_SIDE].tobytes()
        field[:height, width] = BORDER
        self._elsewhere = zeros_before + field[:MAX_SIDE, :MAX_SIDE].tobytes()
        self._last_column = MAX_SIDE - width

    def at(self, row: int, column: int) -> bytes:
        """The token field, 900 bytes, with the top-left corner of the grid at (row, column). The grid must fit."""
        start = SEQ_LEN - MAX_SIDE * row - column
        return (self._at_right_edge if column == self._last_column else self._elsewhere)[start : start + SEQ_LEN]


def encode(grid: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    """The token field, uint8 [900], of a grid of colours [height, width] placed at (row, column).

    Raises:
        ValueError: the grid does not fit in the field.
    """
    height, width = grid.shape
    if not (0 <= row <= MAX_SIDE - height and 0 <= column <= MAX_SIDE - width):
        raise ValueError(f"a {height}x{width} grid at ({row}, {column}) leaves the {MAX_SIDE}x{MAX_SIDE} field")
    return np.frombuffer(Stamp(grid).at(row, column), dtype=np.uint8)


def crop_sizes(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths, [batch] each, of the grids in `fields` [batch, 900].

    A grid is the largest rectangle at the top-left corner that contains only colours; of several with the same area,
    the one with the fewest rows. Both are 0 if the corner is not a colour.
    """
    fields = fields.reshape(-1, MAX_SIDE, MAX_SIDE)
    colour = (fields >= FIRST_COLOUR) & (fields < VOCAB_SIZE)
    row_widths = np.logical_and.accumulate(colour, axis=2).sum(axis=2)
    widths = np.minimum.accumulate(row_widths, axis=1)  # [batch, 30], widths of the rectangles that end at each row
    areas = widths * np.arange(1, MAX_SIDE + 1)
    last_rows = areas.argmax(axis=1)
    rows = np.arange(len(fields))
    has_grid = areas[rows, last_rows] > 0
    return np.where(has_grid, last_rows + 1, 0), np.where(has_grid, widths[rows, last_rows], 0)


def crop(fields: np.ndarray) -> list[np.ndarray]:
    """The grids of colours, uint8 [height, width], at the top-left corners of `fields` [batch, 900]."""
    heights, widths = crop_sizes(fields)
    squares = fields.reshape(-1, MAX_SIDE, MAX_SIDE)
    return [
        (square[:height, :width] - FIRST_COLOUR).astype(np.uint8)
        for square, height, width in zip(squares, heights.tolist(), widths.tolist(), strict=True)
    ]
