"""A sheet of examples of a task, questions beside their answers, as a PNG image."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from dataset.tasks.look import Look, Status
from dataset.tasks.task import Task

_DPI = 128  # a power of two, so that the size in inches, which matplotlib asks for, is exact
_LARGEST, _SMALLEST = 36, 12  # pixels of a cell
_BOARD = 300  # pixels of the longer side of a board, if its cells allow it
_GAP = 24
_WIDE = 1300  # a pair of boards that is wider stands alone in its row
_READABLE = 11  # a cell of fewer pixels has no text


def save_sheet(task: Task, examples: Sequence[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Draw examples, each the tokens [seq_len] of a question and of its label, to `path`."""
    from matplotlib.image import imsave  # imported here, because it takes a second

    look = task.look()
    cell = int(np.clip(_BOARD // max(look.height, look.width), _SMALLEST, _LARGEST))
    height, width = look.height * cell + 1, look.width * cell + 1
    stacked = width > _WIDE // 2  # a sequence has its answer below it
    pair_height, pair_width = (2 * height + _GAP // 2, width) if stacked else (height, 2 * width + _GAP // 2)
    columns = max(1, min(len(examples), _WIDE // (pair_width + _GAP)))
    rows = -(-len(examples) // columns)
    image = np.full((rows * (pair_height + _GAP) + _GAP, columns * (pair_width + _GAP) + _GAP, 3), 255, np.uint8)
    for number, (question, label) in enumerate(examples):
        top = _GAP + number // columns * (pair_height + _GAP)
        left = _GAP + number % columns * (pair_width + _GAP)
        answer = np.where(label > 0, label, question)
        second = (top + height + _GAP // 2, left) if stacked else (top, left + width + _GAP // 2)
        for tokens, asked, (y, x) in ((question, None, (top, left)), (answer, label, second)):
            _paint(look, tokens, question, asked, image[y : y + height, x : x + width], cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, image, format="png")


def _paint(
    look: Look,
    tokens: np.ndarray,
    question: np.ndarray,
    label: np.ndarray | None,
    canvas: np.ndarray,
    cell: int,
) -> None:
    """Paint a board on the pixels `canvas`; `label`: None for a question."""
    shape = look.height, look.width
    given = look.given(question.reshape(shape).astype(np.int64))
    canvas[:] = look.hairline
    for place, token in enumerate(tokens.tolist()):
        row, column = divmod(place, look.width)
        status = Status.GIVEN if given[row, column] else Status.PLAIN
        if label is not None and label[place] > 0 and not given[row, column]:
            status = Status.RIGHT
        top, left = row * cell, column * cell
        pixels = canvas[top + 1 : top + cell, left + 1 : left + cell]
        look.paint_cell(pixels, token, token, status)
        text = look.cell_text(token, status) if cell >= _READABLE else None
        if text is not None:
            ink = _glyph(text.text, text.size * cell, text.bold, cell - 1)[:, :, None]
            pixels[:] = pixels * (1 - ink) + np.array(text.colour) * ink


@lru_cache(maxsize=4096)
def _glyph(text: str, size: float, bold: bool, side: int) -> np.ndarray:
    """How much ink of a text is on each pixel of a cell, 0 to 1: fp32 [side, side]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side / _DPI, side / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    weight = "bold" if bold else "normal"
    figure.text(
        0.5, 0.5, text, ha="center", va="center_baseline", fontsize=size * 72 / _DPI, fontweight=weight,
        parse_math=False,
    )  # fmt: skip
    canvas.draw()
    return 1 - np.asarray(canvas.buffer_rgba())[:side, :side, :3].mean(axis=2, dtype=np.float32) / 255
