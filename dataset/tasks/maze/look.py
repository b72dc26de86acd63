"""How a maze is displayed."""

from typing import ClassVar, Literal

import numpy as np

from dataset.tasks.look import WHITE, CellText, Colour, Look, Status, rgb
from dataset.tasks.maze.rules import CHARACTERS, GOAL, PAD, PATH, SPACE, START, WALL

_COLOURS = [rgb(code) for code in ("#ffffff", "#343a43", "#ffffff", "#1d6fd1", "#7a37b8", "#f7a437")]
_WRONG_PATH, _MISSED_PATH = rgb("#e0203a"), rgb("#e08300")


class MazeLook(Look):
    """Displays walls and the path as coloured cells, and S and G as letters."""

    style: ClassVar[Literal["boxes", "block", "line"]] = "block"
    legend: ClassVar[str] = "x path where none should be, ? path missing, ! other wrong cell"
    picture_legend: ClassVar[str] = "orange: path   red: wrong   orange outline: path missing"
    hairline: ClassVar[Colour] = rgb("#e6e8eb")
    outline: ClassVar[Colour | None] = _COLOURS[WALL]

    def __init__(self, height: int, width: int):
        super().__init__(height, width, " " + CHARACTERS)

    def given(self, inputs: np.ndarray) -> np.ndarray:
        """See `Look.given`: all but the free cells."""
        return (inputs != PAD) & (inputs != SPACE)

    def terminal_character(self, token: int, expected: int, wrong: bool) -> str:
        """See `Look.terminal_character`; `legend` explains the marks of wrong cells."""
        if wrong:
            return "x" if token == PATH else "?" if expected == PATH else "!"
        return self.character(token)

    def paint_cell(self, cell: np.ndarray, token: int, expected: int, status: Status) -> None:
        """See `Look.paint_cell`; a wrong cell that is not path keeps its colour and gets an outline."""
        cell[:] = _COLOURS[token] if 0 <= token < len(_COLOURS) else _COLOURS[PAD]
        if status != Status.WRONG:
            return
        if token == PATH:
            cell[:] = _WRONG_PATH
            return
        inner = max(3, len(cell) // 5)
        centre = cell[inner + 1 : -inner, inner + 1 : -inner].copy()
        cell[2:-1, 2:-1] = _MISSED_PATH if expected == PATH else _WRONG_PATH
        cell[inner + 1 : -inner, inner + 1 : -inner] = centre

    def cell_text(self, token: int, status: Status) -> CellText | None:
        """See `Look.cell_text`: letters for S and G only."""
        return CellText(self.character(token), 0.7, WHITE, True) if token in (START, GOAL) else None

    def has_hairline(self, token: int, status: Status) -> bool:
        """See `Look.has_hairline`: not around walls."""
        return token > WALL
