"""How a model solves a puzzle, as text for a terminal."""

from shutil import get_terminal_size

import numpy as np

from dataset.tasks.look import Look, Status
from evaluators.solving import Board, Solving, boards_of

_Line = list[tuple[str, Status]]  # pieces of text and the status that colours them
_ANSI = {Status.GIVEN: "2", Status.RIGHT: "32", Status.WRONG: "1;31"}
_GAP = 3


def in_terminal(solving: Solving, color: bool, max_frames: int = 4, width: int | None = None) -> str:
    """The question, the answer after some of the steps, and the solution if the last answer is wrong, as text.

    Panels stand side by side as far as they fit into `width` columns. Answers that did not change are shown once. Wrong
    cells are marked by characters even with `color`, so that the text differs only by the escape codes.

    Args:
        solving: what to show.
        color: use ANSI escape codes: given cells dim, right ones green, wrong ones red.
        max_frames: the most answers to show, at least 1.
        width: number of columns; None: that of the terminal.

    Returns:
        Lines without trailing spaces, joined by newlines, without one at the end.

    Raises:
        UserError: `max_frames` is below 1.
    """
    boards = boards_of(solving, max_frames)
    panels = [boards.question, *boards.frames]
    if boards.target is not None and boards.frames[-1].has_wrong:
        panels.append(boards.target)
    width = get_terminal_size().columns if width is None else width
    bodies = [_body(solving.look, board) for board in panels]
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
        lines += [[], [(solving.look.legend, Status.GIVEN)]]
    return "\n".join(_rendered(line, color) for line in lines[1:])


def board_in_terminal(look: Look, board: Board, color: bool) -> str:
    """One board below its title and verdict, as lines of text; see `in_terminal` for `color`."""
    (block,) = _with_headers([board], [_body(look, board)])
    return "\n".join(_rendered(line, color) for line in block if any(text.strip() for text, _ in line))


def _length(line: _Line) -> int:
    return sum(len(text) for text, _ in line)


def _with_headers(panels: list[Board], bodies: list[list[_Line]]) -> list[list[_Line]]:
    """Each panel's body below its title, halting probability and verdict: in one line if that is short enough."""
    verdict_status = [Status.WRONG if board.has_wrong else Status.RIGHT for board in panels]
    short: list[list[_Line]] = []
    for board, status in zip(panels, verdict_status, strict=True):
        short.append(
            [[(board.title, Status.PLAIN), *([(", ", Status.PLAIN), (board.verdict, status)] if board.verdict else [])]]
        )
    if all(_length(head[0]) <= _length(body[0]) for head, body in zip(short, bodies, strict=True)):
        headers = short
    else:
        headers = [
            [[(board.name, Status.PLAIN)], [(board.halt, Status.PLAIN)], [(board.verdict, status)]]
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
            line += [*piece, (" " * (width - _length(piece) + _GAP), Status.PLAIN)]
        lines.append(line)
    # A header line that is empty in all panels of a row is left out.
    return [line for line in lines if any(text.strip() for text, _ in line)]


def _rendered(line: _Line, color: bool) -> str:
    text = "".join(text for text, _ in line).rstrip()
    if not color:
        return text
    styles = [status if status in _ANSI else Status.PLAIN for piece, status in line for _ in piece]
    result, now, spaces = "", Status.PLAIN, ""
    for character, style in zip(text, styles, strict=False):  # `text` has lost its trailing spaces
        if character == " ":
            spaces += character
            continue
        if style == now:
            result += spaces + character
        else:
            end = "\x1b[0m" if now != Status.PLAIN else ""
            start = f"\x1b[{_ANSI[style]}m" if style != Status.PLAIN else ""
            result += end + spaces + start + character
        now, spaces = style, ""
    return result + ("\x1b[0m" if now != Status.PLAIN else "")


def _body(look: Look, board: Board) -> list[_Line]:
    height, width = board.tokens.shape
    # All cells of a question are given; dim text would only make it harder to read.
    status = board.status if board.halt else np.full_like(board.status, Status.PLAIN)
    wrong = board.status == Status.WRONG
    cells = [
        [
            (
                look.terminal_character(int(board.tokens[at]), int(board.expected[at]), bool(wrong[at])),
                Status(int(status[at])),
            )
            for at in ((row, col) for col in range(width))
        ]
        for row in range(height)
    ]
    if look.style == "line":
        carets = "".join("^" if mark else " " for mark in status[0] == Status.WRONG)
        return [cells[0], [(carets, Status.WRONG)]] if carets.strip() else [cells[0]]
    if look.style == "block":
        rule: _Line = [("+" + "-" * width + "+", Status.PLAIN)]
        return [rule, *([("|", Status.PLAIN), *row, ("|", Status.PLAIN)] for row in cells), rule]
    box_rows, box_cols = look.box or (height, width)
    rule = [("+" + ("-" * (2 * box_cols + 1) + "+") * (width // box_cols), Status.PLAIN)]
    lines = [rule]
    for row in range(height):
        line: _Line = [("|", Status.PLAIN)]
        for col, (character, cell_status) in enumerate(cells[row]):
            line += [("!" if cell_status == Status.WRONG else " ", cell_status), (character, cell_status)]
            if (col + 1) % box_cols == 0:
                line.append((" |", Status.PLAIN))
        lines.append(line)
        if (row + 1) % box_rows == 0:
            lines.append(rule)
    return lines
