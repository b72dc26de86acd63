"""Sudoku symmetries written out one exchange at a time, to check those of the program."""

import numpy as np

from dataset.tasks.sudoku.rules import Box


def exchanges(board: np.ndarray, box: Box) -> list[np.ndarray]:
    """Images of `board` [cells] under exchanges that generate all symmetries of Sudoku with that box."""
    side = box.side
    grid = np.asarray(board).reshape(side, side)
    images = []
    for axis, lines in ((0, box.rows), (1, box.cols)):
        for first in range(side - 1):
            order = list(range(side))
            if first // lines == (first + 1) // lines:
                order[first], order[first + 1] = order[first + 1], order[first]
            else:  # the last line of a group: exchange the group with the next one
                start = first + 1 - lines
                order[start : start + 2 * lines] = [*range(first + 1, first + 1 + lines), *range(start, first + 1)]
            images.append(np.take(grid, order, axis=axis))
    for digit in range(1, side):
        renamed = np.arange(side + 1)
        renamed[[digit, digit + 1]] = [digit + 1, digit]
        images.append(renamed[grid])
    if box.rows == box.cols:
        images.append(grid.T)
    return [image.astype(np.uint8).ravel() for image in images]


def orbit(board: np.ndarray, box: Box) -> set[bytes]:
    """All boards equivalent to `board` [cells], itself included."""
    start = np.asarray(board, np.uint8)
    found, new = {start.tobytes()}, [start]
    while new:
        images = [image for known in new for image in exchanges(known, box)]
        new = list({image.tobytes(): image for image in images if image.tobytes() not in found}.values())
        found |= {image.tobytes() for image in new}
    return found
