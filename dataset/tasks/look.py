"""How the boards of a task are displayed, as data and small functions; the drawing code itself knows no task.

`evaluators.terminal` and `evaluators.picture` draw boards with a `Look`. Its defaults display any grid of characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from utils.constants import IGNORE_LABEL_ID

Colour = tuple[int, int, int]
Window = tuple[slice, slice]  # rows and columns of a board


def rgb(code: str) -> Colour:
    """The colour of a hexadecimal code such as "#1c1f24"."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


WHITE, INK, HAIRLINE = rgb("#ffffff"), rgb("#1c1f24"), rgb("#c4c8ce")
RED, GREEN = rgb("#c0202f"), rgb("#1e7b3c")


class Status(IntEnum):
    """What is known about a cell of an answer."""

    PLAIN = 0
    GIVEN = 1
    RIGHT = 2
    WRONG = 3


TINTS = {Status.PLAIN: WHITE, Status.GIVEN: WHITE, Status.RIGHT: rgb("#dcf1dd"), Status.WRONG: rgb("#f9c6c4")}
TEXT_COLOURS = {Status.PLAIN: INK, Status.GIVEN: rgb("#000000"), Status.RIGHT: GREEN, Status.WRONG: RED}


class CellText(NamedTuple):
    """Text in a cell of a picture."""

    text: str
    size: float  # font size as a fraction of the side of a cell
    colour: Colour
    bold: bool


@dataclass(frozen=True)
class Display:
    """What to display of one puzzle; all arrays hold tokens of the whole board."""

    answers: np.ndarray  # [steps, height, width]
    expected: np.ndarray  # [height, width], IGNORE_LABEL_ID where any token is accepted
    target: np.ndarray  # [height, width]
    question_window: Window = np.s_[:, :]  # the part of the question to display
    window: Window = np.s_[:, :]  # the part of answers and target to display


class Look:
    """How boards of `height` x `width` cells are displayed.

    Attributes:
        characters: the character for each token; tokens without one are displayed as `?`.
        box: rows and columns of the boxes that are outlined; None for no boxes.
        style: in the terminal, `boxes` (spaced cells, `!` before wrong cells, lines around boxes), `block` (one
            character per cell, in a frame) or `line` (one row, `^` below wrong cells).
        legend, picture_legend: one line that explains the marks in the terminal and in pictures.
        hairline: colour of the lines between cells of a picture.
        outline: colour of the line around a board of a picture; None for no line.
    """

    style: ClassVar[Literal["boxes", "block", "line"]] = "boxes"
    legend: ClassVar[str] = "! marks a wrong cell"
    picture_legend: ClassVar[str] = "black: given   green: right   red: wrong"
    hairline: ClassVar[Colour] = HAIRLINE
    outline: ClassVar[Colour | None] = INK

    def __init__(self, height: int, width: int, characters: Sequence[str], box: tuple[int, int] | None = None):
        self.height, self.width, self.characters, self.box = height, width, characters, box

    # -- content -------------------------------------------------------------------------------------------------------

    def given(self, inputs: np.ndarray) -> np.ndarray:
        """Which cells of the question [height, width] are part of its answer: bool [height, width], by default none."""
        return np.zeros(inputs.shape, np.bool_)

    def view(self, inputs: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> Display:
        """What to display of a question, its label (both [height, width]) and the answers [steps, height, width].

        By default the whole boards. A given cell for which a label asks nothing shows its token, whatever the answer
        has there. If nothing is known of the solution, a given cell is expected to keep its token.
        """
        ignored = self.given(inputs) & (labels == IGNORE_LABEL_ID)
        if (labels != IGNORE_LABEL_ID).any():
            answers = np.where(ignored, inputs, answers)
        expected = np.where(ignored, inputs, labels)
        return Display(answers, expected, np.where(expected != IGNORE_LABEL_ID, expected, inputs))

    def character(self, token: int) -> str:
        """The character for a token."""
        return self.characters[token] if 0 <= token < len(self.characters) else "?"

    def terminal_character(self, token: int, expected: int, wrong: bool) -> str:
        """The character for a cell in the terminal; for a wrong cell it may show the kind of error."""
        return self.character(token)

    # -- pictures ------------------------------------------------------------------------------------------------------

    def paint_cell(self, cell: np.ndarray, token: int, expected: int, status: Status) -> None:
        """Paint the pixels of a cell, uint8 [side, side, 3]; by default with a tint that depends on `status`."""
        cell[:] = TINTS[status]

    def cell_text(self, token: int, status: Status) -> CellText | None:
        """The text in a cell; by default its character, or None for an empty cell."""
        character = self.character(token)
        text = "" if character in " ._" and status != Status.WRONG else character.replace(".", "")
        return CellText(text, 0.56, TEXT_COLOURS[status], status == Status.GIVEN) if text else None

    def has_hairline(self, token: int, status: Status) -> bool:
        """Whether a cell is surrounded by hairlines; by default yes."""
        return True


class SymbolLook(Look):
    """Displays the symbols of a task: a board in a grid, a sequence in one line.

    Args:
        height, width: rows and columns of a board.
        symbols: what tokens 1, 2, ... are written as, each a character or a word. Padding is written as a character
            that is none of them.
        blank: the symbols of cells that are to be filled in.
    """

    legend: ClassVar[str] = "! marks a wrong cell"
    picture_legend: ClassVar[str] = "black: given   green: right   red: wrong"

    def __init__(self, height: int, width: int, symbols: Sequence[str], blank: Sequence[str] = ""):
        padding = next((character for character in "_ ~" if character not in symbols), "\N{MIDDLE DOT}")
        super().__init__(height, width, [padding, *symbols])
        self.blank = list(blank)

    def given(self, inputs: np.ndarray) -> np.ndarray:
        """See `Look.given`: all cells that are neither blank nor padding, if the task says which are blank."""
        if not self.blank:
            return super().given(inputs)
        is_open = [token for token, symbol in enumerate(self.characters) if token == 0 or symbol in self.blank]
        return ~np.isin(inputs, is_open)

    def view(self, inputs: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> Display:
        """See `Look.view`. A given cell that an answer leaves 0, or for which nothing is asked, shows its token."""
        left = (answers == 0) | (labels == IGNORE_LABEL_ID)
        return super().view(inputs, labels, np.where(self.given(inputs) & left, inputs, answers))

    def cell_text(self, token: int, status: Status) -> CellText | None:
        """See `Look.cell_text`; words are written smaller, and padding is empty."""
        if token == 0 or (self.character(token) in self.blank and status != Status.WRONG):
            return None
        text = self.character(token)
        size = 0.56 if len(text) < 2 else 1.1 / len(text)
        return CellText(text, size, TEXT_COLOURS[status], status == Status.GIVEN) if text.strip() else None


class SymbolLine(SymbolLook):
    """Displays a sequence of symbols in one line, without the padding at its end."""

    style: ClassVar[Literal["boxes", "block", "line"]] = "line"
    legend: ClassVar[str] = "^ marks a wrong symbol"
    picture_legend: ClassVar[str] = "green: right   red: wrong"
    outline: ClassVar[Colour | None] = None

    def view(self, inputs: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> Display:
        """See `Look.view`. The output of a model where nothing is asked for is not shown."""
        known = labels != IGNORE_LABEL_ID
        if not known.any():
            return super().view(inputs, labels, answers)
        left = self.given(inputs) & (answers == 0)
        shown = np.where(known & ~left, answers, inputs)
        used = np.flatnonzero((known | (inputs > 0))[0])
        window = np.s_[:, : int(used[-1]) + 1]
        return Display(shown, labels, np.where(known, labels, inputs), window, window)
