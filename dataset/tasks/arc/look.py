"""How ARC grids are displayed."""

from typing import ClassVar

import numpy as np

from dataset.tasks.arc.field import BORDER, FIRST_COLOUR, PAD
from dataset.tasks.look import CellText, Colour, Display, Look, Status, Window, rgb
from utils.constants import IGNORE_LABEL_ID

_COLOURS = [
    rgb(code)
    for code in (
        *("#e9ebee", "#e9ebee", "#000000", "#0074d9", "#ff4136", "#2ecc40"),
        *("#ffdc00", "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"),
    )
]


class ArcLook(Look):
    """Displays grids without the rest of their field, in the usual colours, or as digits in the terminal."""

    legend: ClassVar[str] = "! marks a wrong cell, - no colour"
    picture_legend: ClassVar[str] = "crossed out: wrong"
    hairline: ClassVar[Colour] = rgb("#555a61")

    def __init__(self, side: int):
        super().__init__(side, side, "--0123456789")

    def view(self, inputs: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> Display:
        """See `Look.view`: grids without the rest of the field; padding and border both mean "outside the grid"."""
        known = labels != IGNORE_LABEL_ID
        expected = np.where(known, np.maximum(labels, BORDER), labels)
        answers = np.maximum(answers, BORDER)
        window = _answer_window(expected, answers)
        if known.any():
            answers = np.where(known, answers, BORDER)
        target = np.where(expected != IGNORE_LABEL_ID, expected, PAD)
        return Display(answers, expected, target, _bounds(inputs >= FIRST_COLOUR), window)

    def terminal_character(self, token: int, expected: int, wrong: bool) -> str:
        """See `Look.terminal_character`: a space outside the grid, unless a colour is expected there."""
        return " " if token < FIRST_COLOUR and not wrong else self.character(token)

    def paint_cell(self, cell: np.ndarray, token: int, expected: int, status: Status) -> None:
        """See `Look.paint_cell`; a wrong cell is marked with a black and white cross, visible on every colour."""
        cell[:] = _COLOURS[token] if 0 <= token < len(_COLOURS) else _COLOURS[PAD]
        if status == Status.WRONG:
            side = len(cell)
            y, x = np.mgrid[:side, :side] - side / 2
            off = np.minimum(np.abs(y - x), np.abs(y + x))  # the distance from the diagonals, times sqrt(2)
            arm = np.maximum(np.abs(y), np.abs(x))
            cell[(off <= side * 0.17) & (arm <= side * 0.36)] = 0
            cell[(off <= side * 0.08) & (arm <= side * 0.30)] = 255

    def cell_text(self, token: int, status: Status) -> CellText | None:
        """See `Look.cell_text`: none, since colours need no text."""
        return None

    def has_hairline(self, token: int, status: Status) -> bool:
        """See `Look.has_hairline`: only around cells of the grid."""
        return token >= FIRST_COLOUR


def _bounds(cells: np.ndarray) -> Window:
    """The smallest rectangle with all true cells of bool [height, width]; the first cell if there is none."""
    rows, cols = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not len(rows):
        return np.s_[:1, :1]
    return np.s_[int(rows[0]) : int(rows[-1]) + 1, int(cols[0]) : int(cols[-1]) + 1]


def _answer_window(expected: np.ndarray, answers: np.ndarray) -> Window:
    """The part of the fields to display: the grid of the solution, and its border if an answer has colours there.

    Without a solution, it is the largest rectangle of colours at the top-left corner of the last answer.
    """
    if not (expected >= FIRST_COLOUR).any():
        widths = np.logical_and.accumulate(answers[-1] >= FIRST_COLOUR, axis=1).sum(axis=1)
        widths = np.minimum.accumulate(widths)
        last_row = int((widths * np.arange(1, len(widths) + 1)).argmax())
        return np.s_[: last_row + 1, : max(1, int(widths[last_row]))]
    rows, cols = _bounds(expected >= FIRST_COLOUR)
    outside = (answers >= FIRST_COLOUR).any(axis=0) & (expected == BORDER)
    bottom, right = rows.stop, cols.stop
    if outside[bottom : bottom + 1, cols].any():
        bottom += 1
    if outside[rows, right : right + 1].any():
        right += 1
    return np.s_[rows.start : bottom, cols.start : right]
