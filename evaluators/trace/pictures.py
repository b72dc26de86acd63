"""Traces as still and moving pictures, for places that show no page: trace.png and trace.gif."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from dataset.tasks.look import GREEN, INK, RED
from evaluators.picture import Label, board_size, paint_board
from evaluators.solving import Board, Solving, boards_by_step, boards_of
from evaluators.trace.trace import Trace

MOST = 6  # puzzles in a picture
_MARGIN, _GAP, _HEADER, _PANEL = 24, 28, 64, 320  # pixels
_TITLE, _VERDICT = 20, 18  # font sizes in pixels
_FRAME_MS, _LAST_MS = 600, 2400
_LONGEST = 64  # frames of a moving picture
_WIDEST = 1000  # pixels of a moving picture


def solving_of(trace: Trace, row: int) -> Solving:
    """One puzzle of a trace, as it is drawn."""
    label = trace["labels"][row].astype(np.int64)
    if trace["verdict"][row, trace.final_step[row]] == 1:  # another right answer than the known one is not wrong
        label = np.where(label < 0, label, trace["answers"][row, trace.final_step[row]])
    return Solving(trace.task.look(), trace["inputs"][row], label, trace["answers"][row], trace["halt"][row])


def save_trace_png(trace: Trace, path: Path) -> None:
    """Draw the first puzzles of a trace, one in each row: the question, some of the steps, and the solution."""
    rows: list[list[Board]] = []
    for row in range(min(MOST, len(trace))):
        boards = boards_of(solving_of(trace, row), max_frames=4)
        rows.append([boards.question, *boards.frames, *([boards.target] if boards.target is not None else [])])
    width = max(map(len, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    _drawn(trace, [row + [None] * (width - len(row)) for row in rows]).save(path, format="PNG")


def save_trace_gif(trace: Trace, path: Path) -> None:
    """Draw the first puzzles of a trace side by side, a frame for each step (of long traces some of them)."""
    puzzles = [boards_by_step(solving_of(trace, row)).frames for row in range(min(MOST, len(trace)))]
    per_row = 3 if len(puzzles) > 4 else 2 if len(puzzles) > 1 else 1
    steps = np.unique(np.linspace(0, trace.steps - 1, min(trace.steps, _LONGEST)).round().astype(int))
    frames: list[Image.Image] = []
    for step in steps.tolist():
        boards: list[Board | None] = [frames_of[step] for frames_of in puzzles]
        boards += [None] * (-len(boards) % per_row)
        rows = [boards[start : start + per_row] for start in range(0, len(boards), per_row)]
        image = _drawn(trace, rows)
        frames.append(image.reduce(max(1, -(-image.width // _WIDEST))).quantize(64))
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_MS]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _drawn(trace: Trace, rows: Sequence[Sequence[Board | None]]) -> Image.Image:
    """Boards in rows of equal length."""
    sizes = [[board_size(board) if board is not None else (0, 0) for board in row] for row in rows]
    columns = [max(_PANEL, *(row[place][1] for row in sizes)) for place in range(len(sizes[0]))]
    heights = [_HEADER + max(height for height, _ in row) for row in sizes]
    width = 2 * _MARGIN + sum(columns) + _GAP * (len(columns) - 1)
    height = _MARGIN + sum(heights) + _MARGIN * len(rows)
    pixels, labels = np.full((height, width, 3), 255, np.uint8), list[Label]()
    top = _MARGIN
    for row, row_sizes, row_height in zip(rows, sizes, heights, strict=True):
        left = _MARGIN
        for board, (_, board_width), column in zip(row, row_sizes, columns, strict=True):
            if board is not None:
                middle = left + column / 2
                labels.append(Label(board.title, middle, top + _HEADER - 38, _TITLE, INK))
                if board.verdict:
                    colour = RED if board.has_wrong else GREEN
                    labels.append(Label(board.verdict, middle, top + _HEADER - 13, _VERDICT, colour, bold=True))
                corner = left + (column - board_width) // 2
                labels += paint_board(trace.task.look(), board, pixels, top + _HEADER, corner)
            left += column + _GAP
        top += row_height + _MARGIN
    return _with_text(pixels, labels)


def _with_text(pixels: np.ndarray, labels: Sequence[Label]) -> Image.Image:
    """An image of pixels [height, width, 3] with labels on it. Pillow takes a hundredth of the time of matplotlib."""
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    for label in labels:
        pen.text((label.x, label.y), label.text, label.colour, _font(round(label.size), label.bold), anchor="ms")
    return image


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """The font of the other pictures, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)
