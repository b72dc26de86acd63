"""Equivalence of Sudoku puzzles.

Two puzzles are equivalent if one becomes the other by renaming digits, permuting bands, rows within bands, stacks and
columns within stacks, and, if boxes are square, transposing.
"""

from collections.abc import Sequence
from functools import cache
from itertools import permutations, product

import numpy as np

from dataset.tasks.sudoku.rules import Box

_KEYS_AT_ONCE = 2048  # puzzles refined at once, so that the working arrays fit in the processor's cache
_REFINEMENTS = 8


def canonical_key(puzzle: Sequence[int] | np.ndarray, box: Box) -> bytes:
    """`canonical_keys` of one puzzle [cells]."""
    return canonical_keys(np.asarray(puzzle, np.uint8)[None], box)[0]


def canonical_keys(puzzles: np.ndarray, box: Box) -> list[bytes]:
    """One key per puzzle [n, cells]; equivalent puzzles have equal keys.

    For boxes 2x2 and 2x3, the key is the smallest equivalent puzzle, so inequivalent puzzles have different keys. For
    3x3, with 6.7 million symmetries besides renaming digits, it is a 64-bit hash that no symmetry changes: inequivalent
    puzzles have different keys except for rare collisions, which are treated as equivalence.
    """
    if box.cells <= 36:
        return [_smallest_equivalent(puzzle, box) for puzzle in puzzles]
    chunks = (puzzles[start : start + _KEYS_AT_ONCE] for start in range(0, len(puzzles), _KEYS_AT_ONCE))
    return [key for chunk in chunks for key in _refined(chunk, box)]


def _line_permutations(lines: int, groups: int) -> list[list[int]]:
    """All permutations of `lines * groups` lines that keep groups of `lines` lines together."""
    inner = list(permutations(range(lines)))
    return [
        [group * lines + line for group, order in zip(outer, orders, strict=True) for line in order]
        for outer in permutations(range(groups))
        for orders in product(inner, repeat=groups)
    ]


@cache
def _symmetries(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Source of each cell [symmetries, cells], and 2**(destination of each cell) as float64 [cells, symmetries]."""
    side = box.side
    rows = np.array(_line_permutations(box.rows, side // box.rows))
    cols = np.array(_line_permutations(box.cols, side // box.cols))
    source = (rows[:, None, :, None] * side + cols[None, :, None, :]).reshape(-1, box.cells)
    if box.is_square:
        transpose = np.arange(box.cells).reshape(side, side).T.ravel()
        source = np.concatenate([source, source[:, transpose]])
    weights = np.empty((box.cells, len(source)))
    np.put_along_axis(weights, source.T, 2.0 ** np.arange(box.cells)[:, None], axis=0)
    return source, weights


def _smallest_equivalent(puzzle: np.ndarray, box: Box) -> bytes:
    source, weights = _symmetries(box)
    # Find the smallest pattern of clues first, which leaves few symmetries to compare digit by digit. Sums of powers
    # of two below 2**53 are exact in float64.
    patterns = weights[puzzle > 0].sum(axis=0)
    boards = puzzle[source[patterns == patterns.min()]]
    # Rename the digits to 1, 2, ... in order of appearance.
    shows = boards[:, None, :] == np.arange(1, box.side + 1)[:, None]
    first = np.where(shows.any(axis=2), shows.argmax(axis=2), box.cells)
    names = np.argsort(np.argsort(first, axis=1, kind="stable"), axis=1) + 1
    names = np.concatenate([np.zeros((len(names), 1), names.dtype), names], axis=1).astype(np.uint8)
    return min(board.tobytes() for board in np.take_along_axis(names, boards.astype(np.intp), axis=1))


def _mix(x: np.ndarray) -> np.ndarray:
    """Mix uint64 so that sums of the results distinguish multisets (a shortened finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return x ^ (x >> np.uint64(31))


def _refined(puzzles: np.ndarray, box: Box) -> list[bytes]:
    """Keys from colour refinement (Weisfeiler and Leman) of cells with their rows, columns, boxes and digits."""
    n, side = len(puzzles), box.side
    shape = (n, side // box.rows, box.rows, side // box.cols, box.cols)
    values = puzzles.reshape(shape)
    puzzle, *_ = clues = np.nonzero(values)
    holders = puzzle * (side + 1) + values[clues]
    digits_at = (np.arange(n)[:, None] * (side + 1) + puzzles).reshape(shape)
    rows = cols = boxes = np.ones((1, 1, 1, 1, 1), np.uint64)
    digits = np.ones((n, side + 1), np.uint64)
    cells = np.empty(0, np.uint64)
    column_factor = np.uint64(1 if box.is_square else 0x9E3779B97F4A7C15)  # equal factors make transposing a symmetry
    for _ in range(_REFINEMENTS):
        digits[:, 0] = 0  # the colour of a blank
        cells = _mix(rows + cols * column_factor + boxes * np.uint64(0xD1342543DE82EF95) + digits.ravel()[digits_at])
        rows = _mix(cells.sum(axis=(3, 4), keepdims=True))
        cols = _mix(cells.sum(axis=(1, 2), keepdims=True))
        boxes = _mix(cells.sum(axis=(2, 4), keepdims=True))
        digits = np.zeros(n * (side + 1), np.uint64)
        np.add.at(digits, holders, cells[clues])
        digits = _mix(digits).reshape(n, side + 1)
    keys = cells.reshape(n, -1).sum(axis=1).astype(">u8").tobytes()
    return [keys[start : start + 8] for start in range(0, len(keys), 8)]
