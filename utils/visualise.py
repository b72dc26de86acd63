"""Puzzles and how a model solves them step by step, as text for a terminal and as PNG images.

Tokens of the tasks (0 pads in all of them):

    sudoku      1 is a blank, value + 1; boards with boxes of 2x2, 2x3 (2 rows, 3 columns) and 3x3 cells
    maze        the index in `# SGo`, plus 1
    arc         1 is the border right below and right of the grid, colour + 2
    arithmetic  digit + 1, then `+` and `=`; one row, with padding in the question where the answer belongs
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from shutil import get_terminal_size

import numpy as np

from utils.constants import IGNORE_LABEL_ID
from utils.errors import UserError, did_you_mean

# What a token is shown as; its length is the vocabulary.
_CHARACTERS = {
    "sudoku": " .123456789",
    "maze": " # SGo",
    "arc": "--0123456789",
    "arithmetic": "_0123456789+=",
}
TASKS = tuple(_CHARACTERS)
_BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
_SPACE, _START, _GOAL, _PATH = 2, 3, 4, 5  # tokens of mazes
_BORDER, _FIRST_COLOUR = 1, 2  # tokens of ARC
_PLAIN, _GIVEN, _RIGHT, _WRONG = range(4)  # what is known about a cell


@dataclass(frozen=True, eq=False)
class Solving:
    """One puzzle and the model's answers to it.

    Args:
        task: one of `TASKS`.
        inputs: tokens of the question, [seq].
        labels: tokens of the solution, [seq]; -100 where it is unknown or not asked for.
        answers: the model's tokens after each step, [steps, seq].
        q_halt: probability of halting after each step, [steps], in 0..1.

    Raises:
        UserError: there is no such task, or no grid of it has `seq` cells.
        ValueError: shapes do not fit each other, or `q_halt` are no probabilities.
    """

    task: str
    inputs: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    q_halt: np.ndarray

    def __post_init__(self) -> None:
        for name in ("inputs", "labels", "answers", "q_halt"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        if self.task not in TASKS:
            allowed = ", ".join(TASKS)
            raise UserError(f"task {self.task!r}: can draw {allowed}.{did_you_mean(str(self.task), TASKS)}")
        seq, steps = self.inputs.size, self.q_halt.size
        shapes = self.inputs.shape, self.labels.shape, self.answers.shape, self.q_halt.shape
        if shapes != ((seq,), (seq,), (steps, seq), (steps,)) or not seq or not steps:
            raise ValueError(
                "inputs, labels, answers and q_halt must be [seq], [seq], [steps, seq] and [steps], "
                f"got {', '.join(str(list(shape)) for shape in shapes)}"
            )
        if not ((self.q_halt >= 0) & (self.q_halt <= 1)).all():
            raise ValueError(f"q_halt {self.q_halt}: expected probabilities; apply the sigmoid to logits first")
        if self.task != "arithmetic":
            side = square_side(seq)
            if self.task == "sudoku":
                sudoku_box(side)


def square_side(seq_len: int) -> int:
    """The side of a square grid of `seq_len` cells.

    Raises:
        UserError: `seq_len` is no square number.
    """
    side = isqrt(max(0, seq_len))
    if side < 1 or side**2 != seq_len:
        raise UserError(f"seq_len {seq_len} is no square number: only square grids can be drawn.")
    return side


def sudoku_box(side: int) -> tuple[int, int]:
    """(rows, columns) of the boxes of a Sudoku board of `side` x `side` cells.

    Raises:
        UserError: there is no such board.
    """
    if side not in _BOXES:
        allowed = ", ".join(f"{n}x{n} (boxes {rows}x{cols})" for n, (rows, cols) in _BOXES.items())
        raise UserError(f"a Sudoku of {side}x{side} cells: allowed are {allowed}.")
    return _BOXES[side]


# ---------------------------------------------------------------------------------------------------------------
# What there is to see, whatever it is drawn on
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Board:
    """One panel; the arrays are [height, width]."""

    name: str  # "question", "step 3", "steps 5-16", "target"
    halt: str  # "halt 0.87", or empty
    verdict: str  # "2 wrong", "solved", or empty
    tokens: np.ndarray
    expected: np.ndarray  # tokens, -100 where nothing is expected
    status: np.ndarray  # _PLAIN, _GIVEN, _RIGHT or _WRONG

    @property
    def title(self) -> str:
        return f"{self.name}, {self.halt}" if self.halt else self.name

    @property
    def has_wrong(self) -> bool:
        return bool((self.status == _WRONG).any())


@dataclass(frozen=True)
class _Boards:
    question: _Board
    frames: list[_Board]
    target: _Board | None  # None where no label is known


def _boards(solving: Solving, max_frames: int) -> _Boards:
    if max_frames < 1:
        raise UserError(f"max_frames {max_frames}: at least one answer must be shown.")
    task, steps, seq = solving.task, len(solving.answers), solving.inputs.size
    shape = (1, seq) if task == "arithmetic" else (square_side(seq),) * 2
    inputs = solving.inputs.astype(np.int64).reshape(shape)
    labels = solving.labels.astype(np.int64).reshape(shape)
    answers = solving.answers.astype(np.int64).reshape(steps, *shape)
    known = labels != IGNORE_LABEL_ID
    given = _given(task, inputs)
    expected, window, question_window = labels, np.s_[:, :], np.s_[:, :]
    if task == "arc":
        # Padding and border alike mean "not part of the grid".
        expected = np.where(known, np.maximum(labels, _BORDER), labels)
        answers = np.maximum(answers, _BORDER)
        question_window = _bounds(inputs >= _FIRST_COLOUR)
        window = _answer_window(expected, answers)
        if known.any():
            answers = np.where(known, answers, _BORDER)
    elif task == "arithmetic":
        # The model's output at the question's places means nothing.
        answers = np.where(given & ~known, inputs, answers)
        used = np.flatnonzero((given | known)[0]) if known.any() else np.arange(seq)
        window = question_window = np.s_[:, : int(used[-1]) + 1]
    else:
        expected = np.where(given & ~known, inputs, labels)

    cut_given, cut_expected = given[window], expected[window]
    shown = answers[(slice(None), *window)]
    frames = []
    for first, last in _chosen_steps(shown, max_frames):
        tokens = shown[last]
        judged = cut_expected != IGNORE_LABEL_ID
        status = np.where(cut_given, _GIVEN, np.where(judged, _RIGHT, _PLAIN))
        status = np.where(judged & (tokens != cut_expected), _WRONG, status)
        wrong = np.count_nonzero(status == _WRONG)
        frames.append(
            _Board(
                name=f"step {last + 1}" if first == last else f"steps {first + 1}-{last + 1}",
                halt=f"halt {solving.q_halt[last]:.2f}",
                verdict=f"{wrong} wrong" if wrong else "solved" if known.any() else "",
                tokens=tokens,
                expected=cut_expected,
                status=status,
            )
        )

    def still(name: str, tokens: np.ndarray, given: np.ndarray) -> _Board:
        nothing = np.full_like(tokens, IGNORE_LABEL_ID)
        return _Board(name, "", "", tokens, nothing, np.where(given, _GIVEN, _PLAIN))

    question = still("question", inputs[question_window], given[question_window])
    solution = np.where(expected != IGNORE_LABEL_ID, expected, 0 if task == "arc" else inputs)[window]
    return _Boards(question, frames, still("target", solution, cut_given) if known.any() else None)


def _given(task: str, inputs: np.ndarray) -> np.ndarray:
    """Which cells of the question belong to its answer, too: bool, of the shape of `inputs`."""
    if task == "arc":
        return np.zeros(inputs.shape, np.bool_)
    if task == "maze":
        return (inputs > 0) & (inputs != _SPACE)
    return inputs > (1 if task == "sudoku" else 0)


def _bounds(cells: np.ndarray) -> tuple[slice, slice]:
    """The smallest rectangle that holds all true cells of bool [height, width]; the first cell if there is none."""
    rows, cols = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not len(rows):
        return np.s_[:1, :1]
    return np.s_[int(rows[0]) : int(rows[-1]) + 1, int(cols[0]) : int(cols[-1]) + 1]


def _answer_window(expected: np.ndarray, answers: np.ndarray) -> tuple[slice, slice]:
    """The part of ARC fields to show: the solution's grid, and its border where an answer has colours there.

    Without a solution: the largest rectangle of colours at the top-left corner of the last answer.
    """
    if not (expected >= _FIRST_COLOUR).any():
        widths = np.logical_and.accumulate(answers[-1] >= _FIRST_COLOUR, axis=1).sum(axis=1)
        widths = np.minimum.accumulate(widths)
        last_row = int((widths * np.arange(1, len(widths) + 1)).argmax())
        return np.s_[: last_row + 1, : max(1, int(widths[last_row]))]
    rows, cols = _bounds(expected >= _FIRST_COLOUR)
    outside = (answers >= _FIRST_COLOUR).any(axis=0) & (expected == _BORDER)
    bottom, right = rows.stop, cols.stop
    if outside[bottom : bottom + 1, cols].any():
        bottom += 1
    if outside[rows, right : right + 1].any():
        right += 1
    return np.s_[rows.start : bottom, cols.start : right]


def _chosen_steps(answers: np.ndarray, max_frames: int) -> list[tuple[int, int]]:
    """(first, last) step, from 0, of the answers to show of [steps, height, width], each for as long as it stood.

    If there are more than `max_frames` different ones: the first, the last, and between them those which split the
    number of changed cells most evenly.
    """
    changes = np.count_nonzero(answers[1:] != answers[:-1], axis=(1, 2))
    firsts = [0, *(np.flatnonzero(changes) + 1).tolist()]
    runs = list(zip(firsts, [*(first - 1 for first in firsts[1:]), len(answers) - 1], strict=True))
    if len(runs) <= max_frames:
        return runs
    if max_frames == 1:
        return runs[-1:]
    changed = np.concatenate([[0], np.cumsum(changes[changes > 0])])
    chosen = [0]
    for frame in range(1, max_frames - 1):
        open_runs = np.arange(chosen[-1] + 1, len(runs) - (max_frames - 1 - frame))
        distance = np.abs(changed[open_runs] - changed[-1] * frame / (max_frames - 1))
        chosen.append(int(open_runs[distance.argmin()]))
    return [runs[run] for run in [*chosen, len(runs) - 1]]


def _character(task: str, token: int) -> str:
    characters = _CHARACTERS[task]
    return characters[token] if 0 <= token < len(characters) else "?"


# ---------------------------------------------------------------------------------------------------------------
# Terminal
# ---------------------------------------------------------------------------------------------------------------

_Line = list[tuple[str, int]]  # pieces of text and the status that colours them
_ANSI = {_GIVEN: "2", _RIGHT: "32", _WRONG: "1;31"}
_GAP = 3
_TERMINAL_LEGENDS = {
    "sudoku": "! marks a wrong cell",
    "maze": "x path where none should be, ? path missing, ! other wrong cell",
    "arc": "! marks a wrong cell, - no colour",
    "arithmetic": "^ marks a wrong digit",
}


def in_terminal(solving: Solving, color: bool, max_frames: int = 4, width: int | None = None) -> str:
    """The question, the answer after some of the steps, and the solution if the last answer is wrong, as text.

    Panels stand side by side where they fit into `width` columns. Answers that did not change are shown once. Wrong
    cells are marked by characters, with `color` as well: its text without the escape codes is the text without `color`.

    Args:
        solving: what to show.
        color: use ANSI escape codes: given cells dim, right ones green, wrong ones red.
        max_frames: the most answers to show, at least 1.
        width: columns of the terminal; asked from the terminal if None.

    Returns:
        Lines without trailing spaces, joined by newlines, without one at the end.
    """
    boards = _boards(solving, max_frames)
    panels = [boards.question, *boards.frames]
    if boards.target is not None and boards.frames[-1].has_wrong:
        panels.append(boards.target)
    width = get_terminal_size().columns if width is None else width
    bodies = [_body(solving.task, board) for board in panels]
    rows: list[list[int]] = []
    blocks = _with_headers(panels, bodies)
    room = 0
    for panel, block in enumerate(blocks):
        needed = max(map(_length, block)) + _GAP
        if not rows or needed > room:
            rows.append([])
            room = width + _GAP
        rows[-1].append(panel)
        room -= needed
    lines: list[_Line] = []
    for row in rows:
        lines += [[], *_side_by_side([blocks[panel] for panel in row])]
    if any(board.has_wrong for board in boards.frames):
        lines += [[], [(_TERMINAL_LEGENDS[solving.task], _GIVEN)]]
    return "\n".join(_rendered(line, color) for line in lines[1:])


def _length(line: _Line) -> int:
    return sum(len(text) for text, _ in line)


def _with_headers(panels: list[_Board], bodies: list[list[_Line]]) -> list[list[_Line]]:
    """Each panel's body below its title, halting probability and verdict: in one line if that is short enough."""
    verdict_status = [_WRONG if board.has_wrong else _RIGHT for board in panels]
    short: list[list[_Line]] = []
    for board, status in zip(panels, verdict_status, strict=True):
        short.append([[(board.title, _PLAIN), *([(", ", _PLAIN), (board.verdict, status)] if board.verdict else [])]])
    if all(_length(head[0]) <= _length(body[0]) for head, body in zip(short, bodies, strict=True)):
        headers = short
    else:
        headers = [
            [[(board.name, _PLAIN)], [(board.halt, _PLAIN)], [(board.verdict, status)]]
            for board, status in zip(panels, verdict_status, strict=True)
        ]
    return [head + body for head, body in zip(headers, bodies, strict=True)]


def _side_by_side(blocks: list[list[_Line]]) -> list[_Line]:
    widths = [max(map(_length, block)) for block in blocks]
    lines: list[_Line] = []
    for i in range(max(map(len, blocks))):
        line: _Line = []
        for block, width in zip(blocks, widths, strict=True):
            piece = block[i] if i < len(block) else []
            line += [*piece, (" " * (width - _length(piece) + _GAP), _PLAIN)]
        lines.append(line)
    # Headers have empty lines where all panels of a row lack them.
    return [line for line in lines if any(text.strip() for text, _ in line)]


def _rendered(line: _Line, color: bool) -> str:
    text = "".join(text for text, _ in line).rstrip()
    if not color:
        return text
    styles = [status if status in _ANSI else _PLAIN for piece, status in line for _ in piece]
    result, now, spaces = "", _PLAIN, ""
    for character, style in zip(text, styles, strict=False):  # `text` has lost its trailing spaces
        if character == " ":
            spaces += character
            continue
        if style == now:
            result += spaces + character
        else:
            end = "\x1b[0m" if now != _PLAIN else ""
            start = f"\x1b[{_ANSI[style]}m" if style != _PLAIN else ""
            result += end + spaces + start + character
        now, spaces = style, ""
    return result + ("\x1b[0m" if now != _PLAIN else "")


def _body(task: str, board: _Board) -> list[_Line]:
    height, width = board.tokens.shape
    # A question, all of it given, would only be harder to read if it were dim.
    status = board.status if board.halt else np.full_like(board.status, _PLAIN)
    cells = [
        [(_terminal_character(task, board, row, col), int(status[row, col])) for col in range(width)]
        for row in range(height)
    ]
    if task == "arithmetic":
        carets = "".join("^" if wrong else " " for wrong in status[0] == _WRONG)
        return [cells[0], [(carets, _WRONG)]] if carets.strip() else [cells[0]]
    if task == "maze":
        rule: _Line = [("+" + "-" * width + "+", _PLAIN)]
        return [rule, *([("|", _PLAIN), *row, ("|", _PLAIN)] for row in cells), rule]
    box_rows, box_cols = sudoku_box(height) if task == "sudoku" else (height, width)
    rule = [("+" + ("-" * (2 * box_cols + 1) + "+") * (width // box_cols), _PLAIN)]
    lines = [rule]
    for row in range(height):
        line: _Line = [("|", _PLAIN)]
        for col, (character, cell_status) in enumerate(cells[row]):
            line += [("!" if cell_status == _WRONG else " ", cell_status), (character, cell_status)]
            if (col + 1) % box_cols == 0:
                line.append((" |", _PLAIN))
        lines.append(line)
        if (row + 1) % box_rows == 0:
            lines.append(rule)
    return lines


def _terminal_character(task: str, board: _Board, row: int, col: int) -> str:
    token, wrong = int(board.tokens[row, col]), board.status[row, col] == _WRONG
    if task == "maze" and wrong:
        return "x" if token == _PATH else "?" if board.expected[row, col] == _PATH else "!"
    if task == "arc" and token < _FIRST_COLOUR and not wrong:
        return " "
    return _character(task, token)


# ---------------------------------------------------------------------------------------------------------------
# PNG: cells are painted on an array of pixels, so that every edge is sharp; matplotlib adds the text.
# ---------------------------------------------------------------------------------------------------------------

_Colour = tuple[int, int, int]


def _rgb(code: str) -> _Colour:
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


_WHITE, _INK, _HAIRLINE = _rgb("#ffffff"), _rgb("#1c1f24"), _rgb("#c4c8ce")
_RED, _GREEN, _GREY = _rgb("#c0202f"), _rgb("#1e7b3c"), _rgb("#6b7280")
_TINTS = {_PLAIN: _WHITE, _GIVEN: _WHITE, _RIGHT: _rgb("#dcf1dd"), _WRONG: _rgb("#f9c6c4")}
_DIGITS = {_PLAIN: _INK, _GIVEN: _rgb("#000000"), _RIGHT: _GREEN, _WRONG: _RED}
_MAZE_COLOURS = [_rgb(c) for c in ("#ffffff", "#343a43", "#ffffff", "#1d6fd1", "#7a37b8", "#f7a437")]
_MAZE_GRID, _WRONG_PATH, _MISSED_PATH = _rgb("#e6e8eb"), _rgb("#e0203a"), _rgb("#e08300")
_ARC_COLOURS = [
    _rgb(c)
    for c in (
        *("#e9ebee", "#e9ebee", "#000000", "#0074d9", "#ff4136", "#2ecc40"),
        *("#ffdc00", "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"),
    )
]
_ARC_GRID = _rgb("#555a61")
_PNG_LEGENDS = {
    "sudoku": "black: given   green: right   red: wrong",
    "maze": "orange: path   red: wrong   orange outline: path missing",
    "arc": "crossed out: wrong",
    "arithmetic": "green: right   red: wrong",
}

# Lengths in pixels. A power of two as resolution makes the size in inches, which matplotlib asks for, exact.
_DPI = 128
_LARGEST_CELL, _LARGEST_BOARD, _SMALLEST_PANEL = 64, 480, 300
_MARGIN, _PANEL_GAP, _FOOTER = 28, 32, 34
_HEADER, _VERDICT_LINE, _HEADER_FOOT = 62, 27, 14
_TITLE_SIZE, _VERDICT_SIZE, _LEGEND_SIZE = 21, 19, 17
_PANELS_PER_ROW = 5


@dataclass(frozen=True)
class _Label:
    """Text on the image, centred on column `x`, with its foot at row `y`; all in pixels."""

    text: str
    x: float
    y: float
    size: float
    colour: _Colour
    bold: bool = False


def save_png(solving: Solving, path: Path | str, max_frames: int = 8) -> None:
    """Draw the question, the answer after some of the steps, and the solution where it is known, as a PNG file.

    Answers that did not change are shown once, as in `in_terminal`. Missing folders of `path` are made.

    Args:
        solving: what to show.
        path: the file to write, whatever its suffix.
        max_frames: the most answers to show, at least 1.
    """
    boards = _boards(solving, max_frames)
    panels = [boards.question, *boards.frames, *([boards.target] if boards.target is not None else [])]
    per_row = 1 if solving.task == "arithmetic" else _PANELS_PER_ROW
    rows = -(-len(panels) // per_row)
    cols = -(-len(panels) // rows)
    sizes = [_board_size(board) for board in panels]
    col_widths = [max(_SMALLEST_PANEL, *(width for _, width in sizes[col::cols])) for col in range(cols)]
    by_row = [slice(row * cols, (row + 1) * cols) for row in range(rows)]
    headers = [_HEADER if any(board.verdict for board in panels[row]) else _HEADER - _VERDICT_LINE for row in by_row]
    row_heights = [max(height for height, _ in sizes[row]) for row in by_row]
    has_wrong = any(board.has_wrong for board in boards.frames)
    width = 2 * _MARGIN + sum(col_widths) + (cols - 1) * _PANEL_GAP
    height = _MARGIN + sum(headers) + sum(row_heights) + rows * _MARGIN + (_FOOTER if has_wrong else 0)
    pixels = np.full((height, width, 3), 255, np.uint8)
    labels: list[_Label] = []
    for i, (board, (_, board_width)) in enumerate(zip(panels, sizes, strict=True)):
        row, col = divmod(i, cols)
        top = _MARGIN + sum(headers[: row + 1]) + sum(row_heights[:row]) + row * _MARGIN
        left = _MARGIN + sum(col_widths[:col]) + col * _PANEL_GAP
        middle, foot = left + col_widths[col] / 2, top - _HEADER_FOOT
        if board.verdict:
            colour = _RED if board.has_wrong else _GREEN
            labels.append(_Label(board.verdict, middle, foot, _VERDICT_SIZE, colour, bold=True))
            foot -= _VERDICT_LINE
        labels.append(_Label(board.title, middle, foot, _TITLE_SIZE, _INK))
        labels += _paint(solving.task, board, pixels, top, left + (col_widths[col] - board_width) // 2)
    if has_wrong:
        labels.append(_Label(_PNG_LEGENDS[solving.task], width / 2, height - _MARGIN, _LEGEND_SIZE, _GREY))
    _write(pixels, labels, Path(path))


def _write(pixels: np.ndarray, labels: Sequence[_Label], path: Path) -> None:
    """`pixels` [height, width, 3] uint8 and the labels upon them as a PNG file of the same size."""
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


def _cell_side(board: _Board) -> int:
    # A single row, of an addition say, has room to be longer.
    longest = 2 * _LARGEST_BOARD if len(board.tokens) == 1 else _LARGEST_BOARD
    return min(_LARGEST_CELL, longest // max(board.tokens.shape))


def _board_size(board: _Board) -> tuple[int, int]:
    height, width = board.tokens.shape
    side = _cell_side(board)
    return height * side, width * side


def _paint(task: str, board: _Board, pixels: np.ndarray, top: int, left: int) -> list[_Label]:
    """Paint the cells with the board's corner at (`top`, `left`); returns the text that belongs upon them."""
    side = _cell_side(board)
    height, width = board.tokens.shape
    labels: list[_Label] = []
    for row in range(height):
        for col in range(width):
            y, x = top + row * side, left + col * side
            cell = pixels[y : y + side, x : x + side]
            token, expected = int(board.tokens[row, col]), int(board.expected[row, col])
            status = int(board.status[row, col])
            if task == "maze":
                _paint_maze_cell(cell, token, expected, status)
            elif task == "arc":
                _paint_arc_cell(cell, token, status)
            else:
                cell[:] = _TINTS[status]
            text = _text_of(task, token, status)
            if text:
                size = side * (0.7 if task == "maze" else 0.56)
                colour = _WHITE if task == "maze" else _DIGITS[status]
                bold = task == "maze" or status == _GIVEN
                # Digits and capitals of the font are 0.73 of its size high.
                labels.append(_Label(text, x + side / 2, y + side / 2 + 0.365 * size, size, colour, bold))
    _rule(task, board, pixels, top, left)
    return labels


def _text_of(task: str, token: int, status: int) -> str:
    character = _character(task, token)
    if task == "arc":
        return ""
    if task == "maze":
        return character if token in (_START, _GOAL) else ""
    return "" if character in " ._" and status != _WRONG else character.replace(".", "")


def _paint_maze_cell(cell: np.ndarray, token: int, expected: int, status: int) -> None:
    """Paint a cell of [side, side, 3]."""
    cell[:] = _MAZE_COLOURS[token] if 0 <= token < len(_MAZE_COLOURS) else _MAZE_COLOURS[0]
    if status != _WRONG:
        return
    if token == _PATH:
        cell[:] = _WRONG_PATH
        return
    inner = max(3, len(cell) // 5)
    centre = cell[inner + 1 : -inner, inner + 1 : -inner].copy()
    cell[2:-1, 2:-1] = _MISSED_PATH if expected == _PATH else _WRONG_PATH
    cell[inner + 1 : -inner, inner + 1 : -inner] = centre


def _paint_arc_cell(cell: np.ndarray, token: int, status: int) -> None:
    """Paint a cell of [side, side, 3]; a cross in black and white shows on every colour."""
    cell[:] = _ARC_COLOURS[token] if 0 <= token < len(_ARC_COLOURS) else _ARC_COLOURS[0]
    if status == _WRONG:
        side = len(cell)
        y, x = np.mgrid[:side, :side] - side / 2
        off = np.minimum(np.abs(y - x), np.abs(y + x))  # the distance from the diagonals, times sqrt(2)
        arm = np.maximum(np.abs(y), np.abs(x))
        cell[(off <= side * 0.17) & (arm <= side * 0.36)] = 0
        cell[(off <= side * 0.08) & (arm <= side * 0.30)] = 255


def _rule(task: str, board: _Board, pixels: np.ndarray, top: int, left: int) -> None:
    """Paint the lines between cells, and thicker ones around the board and, for Sudoku, around boxes."""
    side = _cell_side(board)
    height, width = board.tokens.shape
    thick = 2

    def outline(row: int, col: int, rows: int, cols: int, colour: _Colour, thick: int) -> None:
        """Lines centred on the edges of a rectangle of cells."""
        y, x = top + row * side, left + col * side
        bottom, right = y + rows * side, x + cols * side
        before, after = thick // 2, thick - thick // 2
        for edge in (y, bottom):
            pixels[edge - before : edge + after, x - before : right + after] = colour
        for edge in (x, right):
            pixels[y - before : bottom + after, edge - before : edge + after] = colour

    hairline = {"maze": _MAZE_GRID, "arc": _ARC_GRID}.get(task, _HAIRLINE)
    for row in range(height):
        for col in range(width):
            token, status = board.tokens[row, col], board.status[row, col]
            bare = token < _FIRST_COLOUR and task in ("arc", "maze")  # walls, and what lies outside ARC grids
            if not bare and not (task == "arithmetic" and status == _GIVEN):
                outline(row, col, 1, 1, hairline, 1)
    if task == "sudoku":
        box_rows, box_cols = sudoku_box(height)
        for row in range(0, height, box_rows):
            for col in range(0, width, box_cols):
                outline(row, col, box_rows, box_cols, _INK, thick)
        thick = 4
    if task != "arithmetic":
        outline(0, 0, height, width, _MAZE_COLOURS[1] if task == "maze" else _INK, thick)
