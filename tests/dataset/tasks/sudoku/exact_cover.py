"""A second Sudoku solver to check the first: Knuth's Algorithm X on sets, with no Sudoku logic in its search."""

from collections.abc import Iterator, Sequence

import numpy as np

from dataset.tasks.sudoku.rules import Box


def exact_solutions(board: Sequence[int] | np.ndarray, box: Box) -> Iterator[list[int]]:
    """Every solution of `board` [cells], 0 being a blank."""
    side = box.side
    choices: dict[tuple[int, int, int], list[tuple]] = {}  # (row, column, value) -> what it settles
    for cell, given in enumerate(board):
        row, col = divmod(cell, side)
        block = (row // box.rows, col // box.cols)
        for value in [int(given)] if given else range(1, side + 1):
            choices[row, col, value] = [("at", row, col), ("r", row, value), ("c", col, value), ("b", block, value)]
    settled_by: dict[tuple, set] = {}
    for line in range(side):
        for value in range(1, side + 1):
            block = (line // box.rows, line % box.rows)
            settled_by |= {("at", line, value - 1): set(), ("r", line, value): set(), ("c", line, value): set()}
            settled_by[("b", block, value)] = set()
    for choice, constraints in choices.items():
        for constraint in constraints:
            settled_by[constraint].add(choice)
    for chosen in _cover(settled_by, choices, []):
        solution = [0] * box.cells
        for row, col, value in chosen:
            solution[row * side + col] = value
        yield solution


def _cover(open_: dict[tuple, set], choices: dict, chosen: list) -> Iterator[list]:
    if not open_:
        yield list(chosen)
        return
    hardest = min(open_, key=lambda constraint: len(open_[constraint]))
    for choice in sorted(open_[hardest]):
        gone = {constraint: open_[constraint] for constraint in choices[choice]}
        out = set().union(*gone.values())
        rest = {constraint: those - out for constraint, those in open_.items() if constraint not in gone}
        yield from _cover(rest, choices, [*chosen, choice])
