"""How a model solves a puzzle, as a PNG image.

Cells are painted on an array of pixels, so that every edge is sharp; matplotlib adds the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.tasks.look import GREEN, INK, RED, Colour, Look, Status, rgb
from evaluators.solving import Board, Solving, boards_of

_GREY = rgb("#6b7280")

# Lengths in pixels. With a power of two as resolution the size in inches, which matplotlib asks for, is exact.
_DPI = 128
_LARGEST_CELL, _LARGEST_BOARD, _SMALLEST_PANEL = 64, 480, 300
_MARGIN, _PANEL_GAP, _FOOTER = 28, 32, 34
_HEADER, _VERDICT_LINE, _HEADER_FOOT = 62, 27, 14
_TITLE_SIZE, _VERDICT_SIZE, _LEGEND_SIZE = 21, 19, 17
_PANELS_PER_ROW = 5


@dataclass(frozen=True)
class Label:
    """Text on the image, centred on column `x`, with its baseline at row `y`; all in pixels."""

    text: str
    x: float
    y: float
    size: float
    colour: Colour
    bold: bool = False


def save_png(solving: Solving, path: Path | str, max_frames: int = 8) -> None:
    """Draw the question, the answer after some of the steps, and the solution where it is known, as a PNG file.

    Answers that did not change are shown once, as in `in_terminal`. Missing folders of `path` are created.

    Args:
        solving: what to show.
        path: the file to write, whatever its suffix.
        max_frames: the most answers to show, at least 1.

    Raises:
        UserError: `max_frames` is below 1.
    """
    boards = boards_of(solving, max_frames)
    panels = [boards.question, *boards.frames, *([boards.target] if boards.target is not None else [])]
    per_row = 1 if solving.look.height == 1 else _PANELS_PER_ROW
    rows = -(-len(panels) // per_row)
    cols = -(-len(panels) // rows)
    sizes = [board_size(board) for board in panels]
    col_widths = [max(_SMALLEST_PANEL, *(width for _, width in sizes[col::cols])) for col in range(cols)]
    by_row = [slice(row * cols, (row + 1) * cols) for row in range(rows)]
    headers = [_HEADER if any(board.verdict for board in panels[row]) else _HEADER - _VERDICT_LINE for row in by_row]
    row_heights = [max(height for height, _ in sizes[row]) for row in by_row]
    has_wrong = any(board.has_wrong for board in boards.frames)
    width = 2 * _MARGIN + sum(col_widths) + (cols - 1) * _PANEL_GAP
    height = _MARGIN + sum(headers) + sum(row_heights) + rows * _MARGIN + (_FOOTER if has_wrong else 0)
    pixels = np.full((height, width, 3), 255, np.uint8)
    labels: list[Label] = []
    for i, (board, (_, board_width)) in enumerate(zip(panels, sizes, strict=True)):
        row, col = divmod(i, cols)
        top = _MARGIN + sum(headers[: row + 1]) + sum(row_heights[:row]) + row * _MARGIN
        left = _MARGIN + sum(col_widths[:col]) + col * _PANEL_GAP
        middle, foot = left + col_widths[col] / 2, top - _HEADER_FOOT
        if board.verdict:
            colour = RED if board.has_wrong else GREEN
            labels.append(Label(board.verdict, middle, foot, _VERDICT_SIZE, colour, bold=True))
            foot -= _VERDICT_LINE
        labels.append(Label(board.title, middle, foot, _TITLE_SIZE, INK))
        labels += paint_board(solving.look, board, pixels, top, left + (col_widths[col] - board_width) // 2)
    if has_wrong:
        labels.append(Label(solving.look.picture_legend, width / 2, height - _MARGIN, _LEGEND_SIZE, _GREY))
    _write(pixels, labels, Path(path))


def _write(pixels: np.ndarray, labels: Sequence[Label], path: Path) -> None:
    """Write `pixels` [height, width, 3] uint8, with the labels drawn on them, to a PNG file of the same size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.transforms import IdentityTransform

    height, width = pixels.shape[:2]
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    figure.figimage(pixels, origin="upper")
    for label in labels:
        weight = "bold" if label.bold else "normal"
        font = FontProperties(family="DejaVu Sans", weight=weight, size=label.size * 72 / _DPI)
        colour = [value / 255 for value in label.colour]
        text = figure.text(label.x, height - label.y, label.text, color=colour, fontproperties=font)
        text.set(transform=IdentityTransform(), ha="center", va="baseline", parse_math=False, usetex=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(path), metadata={"Software": None})


def _cell_side(board: Board) -> int:
    # A board with a single row, such as an addition, may be longer.
    longest = 2 * _LARGEST_BOARD if len(board.tokens) == 1 else _LARGEST_BOARD
    return min(_LARGEST_CELL, longest // max(board.tokens.shape))


def board_size(board: Board) -> tuple[int, int]:
    height, width = board.tokens.shape
    side = _cell_side(board)
    return height * side, width * side


def paint_board(look: Look, board: Board, pixels: np.ndarray, top: int, left: int) -> list[Label]:
    """Paint the cells with the board's corner at (`top`, `left`); returns the text to draw on them."""
    side = _cell_side(board)
    height, width = board.tokens.shape
    labels: list[Label] = []
    for row in range(height):
        for col in range(width):
            y, x = top + row * side, left + col * side
            token, status = int(board.tokens[row, col]), Status(int(board.status[row, col]))
            look.paint_cell(pixels[y : y + side, x : x + side], token, int(board.expected[row, col]), status)
            text = look.cell_text(token, status)
            if text is not None:
                size = side * text.size
                # The height of digits and capitals is 0.73 of the font size.
                foot = y + side / 2 + 0.365 * size
                labels.append(Label(text.text, x + side / 2, foot, size, text.colour, text.bold))
    _rule(look, board, pixels, top, left)
    return labels


def _rule(look: Look, board: Board, pixels: np.ndarray, top: int, left: int) -> None:
    """Paint the lines between cells, and thicker ones around boxes and around the board."""
    side = _cell_side(board)
    height, width = board.tokens.shape
    thick = 2

    def outline(row: int, col: int, rows: int, cols: int, colour: Colour, thick: int) -> None:
        """Draw lines centred on the edges of a rectangle of cells."""
        y, x = top + row * side, left + col * side
        bottom, right = y + rows * side, x + cols * side
        before, after = thick // 2, thick - thick // 2
        for edge in (y, bottom):
            pixels[edge - before : edge + after, x - before : right + after] = colour
        for edge in (x, right):
            pixels[y - before : bottom + after, edge - before : edge + after] = colour

    for row in range(height):
        for col in range(width):
            if look.has_hairline(int(board.tokens[row, col]), Status(int(board.status[row, col]))):
                outline(row, col, 1, 1, look.hairline, 1)
    if look.box is not None:
        box_rows, box_cols = look.box
        for row in range(0, height, box_rows):
            for col in range(0, width, box_cols):
                outline(row, col, box_rows, box_cols, INK, thick)
        thick = 4
    if look.outline is not None:
        outline(0, 0, height, width, look.outline, thick)
