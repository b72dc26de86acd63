"""Sudoku of box sizes 2x2, 2x3 and 3x3: rules, exact solver, puzzle generator, and equivalence of puzzles.

A board is a row-by-row array of cell values, 0 for a blank. The data sets store value + 1 (`TOKEN_OFFSET`).
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from utils.errors import UserError, did_you_mean

TOKEN_OFFSET = 1  # a cell of value v is the token v + 1: 0 pads, 1 is a blank
_TRIES_PER_PUZZLE = 1000  # fruitless candidates in a row before the generator gives up
_KEYS_AT_ONCE = 2048  # puzzles refined together: their working arrays stay in the processor's cache
_REFINEMENTS = 8


class Box(NamedTuple):
    """The shape of one box. A board of `rows` x `cols` boxes has `rows * cols` cells to a side."""

    rows: int
    cols: int

    @property
    def side(self) -> int:
        return self.rows * self.cols

    @property
    def cells(self) -> int:
        return self.side**2

    @property
    def vocab_size(self) -> int:
        return self.side + 2

    @property
    def is_square(self) -> bool:
        return self.rows == self.cols

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


BOXES = (Box(2, 2), Box(2, 3), Box(3, 3))


def parse_box(text: str) -> Box:
    """The box called `text`, e.g. "2x3" for boxes of 2 rows and 3 columns.

    Raises:
        UserError: there is no such box.
    """
    names = {str(box): box for box in BOXES}
    if text not in names:
        raise UserError(
            f"Sudoku box {text!r}: allowed are {', '.join(names)} (rows x columns).{did_you_mean(text, names)}"
        )
    return names[text]


def box_of(seq_len: int, vocab_size: int) -> Box:
    """The box of the Sudoku data set with these sizes.

    Raises:
        UserError: no Sudoku has them.
    """
    for box in BOXES:
        if (seq_len, vocab_size) == (box.cells, box.vocab_size):
            return box
    allowed = ", ".join(f"{box.cells} and {box.vocab_size} (boxes {box})" for box in BOXES)
    raise UserError(
        f"seq_len {seq_len} and vocab_size {vocab_size} fit no Sudoku; allowed are {allowed}. "
        "Choose a data set built with `python -m dataset.build_sudoku_dataset`."
    )


def obeys_rules(boards: np.ndarray, box: Box) -> np.ndarray:
    """Whether each board [n, cells] holds every value once in each row, column and box: bool [n]."""
    side = box.side
    values = boards.astype(np.int64)
    bits = np.where((values >= 1) & (values <= side), np.int64(1) << values.clip(0, side), 0)
    grid = bits.reshape(-1, side // box.rows, box.rows, side // box.cols, box.cols)
    # As many cells as values: a unit in which no value is missing repeats none either.
    every = (1 << (side + 1)) - 2
    seen = [np.bitwise_or.reduce(np.bitwise_or.reduce(grid, b), a) for a, b in ((3, 4), (1, 2), (2, 4))]
    return np.logical_and.reduce([(units == every).all(axis=(1, 2)) for units in seen])


# ---------------------------------------------------------------------------------------------------------------
# Exact solver. A state is one bitboard per digit, the cells (bit i is cell i) where the digit may still stand, and
# one bitboard of the cells already propagated, so that a rule is applied to all cells by a few operations on
# integers. Depth-first search over the cell with the fewest candidates, after naked and hidden singles.
# ---------------------------------------------------------------------------------------------------------------


class _Geometry(NamedTuple):
    board: int  # all cells
    units: tuple[int, ...]  # rows, columns and boxes
    peers: tuple[int, ...]  # per cell: the other cells of its units
    units_of: tuple[tuple[int, ...], ...]  # per cell


@cache
def _geometry(box: Box) -> _Geometry:
    side = box.side
    unit_cells: dict[tuple[str, int], list[int]] = {}
    for cell in range(box.cells):
        row, col = divmod(cell, side)
        block = row // box.rows * box.rows + col // box.cols
        for unit in (("row", row), ("column", col), ("box", block)):
            unit_cells.setdefault(unit, []).append(cell)
    units = tuple(sum(1 << cell for cell in cells) for cells in unit_cells.values())
    units_of = tuple(tuple(unit for unit in units if unit >> cell & 1) for cell in range(box.cells))
    peers = tuple((u[0] | u[1] | u[2]) & ~(1 << cell) for cell, u in enumerate(units_of))
    return _Geometry((1 << box.cells) - 1, units, peers, units_of)


def _start(board: Sequence[int], box: Box) -> tuple[list[int], int] | None:
    """Bitboards of the digits and of the given cells, or None where two clues clash."""
    peers = _geometry(box).peers
    own, seen, given = [0] * box.side, [0] * box.side, 0
    for cell, value in enumerate(board):
        if value:
            own[value - 1] |= 1 << cell
            seen[value - 1] |= peers[cell]
            given |= 1 << cell
    if any(cells & blocked for cells, blocked in zip(own, seen, strict=True)):
        return None
    blank = _geometry(box).board & ~given
    return [cells | (blank & ~blocked) for cells, blocked in zip(own, seen, strict=True)], given


def _propagate(places: list[int], fixed: int, geometry: _Geometry) -> int | None:
    """Fill in naked and hidden singles, in `places`, until none is left: the fixed cells, or None if impossible."""
    while True:
        once = twice = 0
        for cells in places:
            twice |= once & cells
            once |= cells
        if once != geometry.board:
            return None
        naked = once & ~twice & ~fixed
        if naked:
            fixed |= naked
            if not _clear_peers(places, naked, geometry):
                return None
        elif fixed == geometry.board:
            return fixed
        else:
            hidden = _hidden_singles(places, fixed, geometry)
            if not hidden:
                return None if hidden is None else fixed
            for digit, bit in hidden:
                for other in range(len(places)):
                    if other != digit:
                        places[other] &= ~bit


def _clear_peers(places: list[int], naked: int, geometry: _Geometry) -> bool:
    """Take the digit of each `naked` single from the cell's peers; false where two of them clash."""
    while naked:
        bit = naked & -naked
        naked ^= bit
        for digit, cells in enumerate(places):
            if cells & bit:
                places[digit] = cells & ~geometry.peers[bit.bit_length() - 1]
                break
        else:  # a single before this one took the cell's only digit
            return False
    return True


def _hidden_singles(places: Sequence[int], fixed: int, geometry: _Geometry) -> list[tuple[int, int]] | None:
    """(digit, cell's bit) wherever a unit has one place for a digit; None where it has none."""
    found: list[tuple[int, int]] = []
    for digit, cells in enumerate(places):
        if not cells & ~fixed:
            if cells.bit_count() < len(places):
                return None
            continue
        for unit in geometry.units:
            spots = cells & unit
            if not spots:
                return None
            if not spots & (spots - 1) and not spots & fixed:
                found.append((digit, spots))
    return found


def _search(places: list[int], fixed: int, geometry: _Geometry, rng: random.Random | None) -> Iterator[list[int]]:
    """Every completion of a state, each as bitboards; digits are tried in order, or shuffled by `rng`."""
    now_fixed = _propagate(places, fixed, geometry)
    if now_fixed is None:
        return
    if now_fixed == geometry.board:
        yield places
        return
    once = twice = thrice = 0
    for cells in places:
        thrice |= twice & cells
        twice |= once & cells
        once |= cells
    pairs = twice & ~thrice
    if pairs:
        bit = pairs & -pairs
    else:
        bits = (1 << cell for cell in range(geometry.board.bit_length()) if not now_fixed >> cell & 1)
        bit = min(bits, key=lambda bit: sum(1 for cells in places if cells & bit))
    candidates = [digit for digit, cells in enumerate(places) if cells & bit]
    if rng is not None:
        rng.shuffle(candidates)
    for chosen in candidates:
        branch = [cells if digit == chosen else cells & ~bit for digit, cells in enumerate(places)]
        yield from _search(branch, now_fixed, geometry, rng)


def _board(places: Sequence[int], box: Box) -> list[int]:
    board = [0] * box.cells
    for digit, cells in enumerate(places):
        while cells:
            bit = cells & -cells
            cells ^= bit
            board[bit.bit_length() - 1] = digit + 1
    return board


def solutions(board: Sequence[int] | np.ndarray, box: Box) -> Iterator[np.ndarray]:
    """Every solution of `board` [cells] (0 is a blank), one at a time: uint8 [cells]."""
    start = _start([int(value) for value in board], box)
    if start is not None:
        for places in _search(*start, _geometry(box), None):
            yield np.array(_board(places, box), np.uint8)


def solve(board: Sequence[int] | np.ndarray, box: Box) -> np.ndarray | None:
    """A solution of `board` [cells] as uint8 [cells], or None where there is none."""
    return next(solutions(board, box), None)


def count_solutions(board: Sequence[int] | np.ndarray, box: Box, limit: int = 2) -> int:
    """The number of solutions of `board` [cells], counted up to `limit`."""
    return sum(1 for _ in zip(range(limit), solutions(board, box), strict=False))


# ---------------------------------------------------------------------------------------------------------------
# Generator
# ---------------------------------------------------------------------------------------------------------------


def generate_puzzle(box: Box, rng: random.Random, min_clues: int = 0) -> tuple[list[int], list[int]]:
    """A random puzzle with one solution, and that solution, as lists of cell values.

    Clues of a random full board are removed in random order wherever the solution stays unique, down to `min_clues`.
    Each cell needs one look only: a clue that could not be spared once cannot be spared with fewer others around.
    """
    geometry = _geometry(box)
    solution = _board(next(_search([geometry.board] * box.side, 0, geometry, rng)), box)
    puzzle = solution.copy()
    clues = box.cells
    for cell in rng.sample(range(box.cells), box.cells):
        if clues <= min_clues:
            break
        puzzle[cell] = 0
        if _has_other_solution(puzzle, cell, solution[cell], box):
            puzzle[cell] = solution[cell]
        else:
            clues -= 1
    return puzzle, solution


def _has_other_solution(puzzle: Sequence[int], cell: int, value: int, box: Box) -> bool:
    """Whether `puzzle`, which had one solution while `cell` held `value`, has one with another value there."""
    start = _start(puzzle, box)
    assert start is not None, "the puzzle was cut out of a full board"
    places, given = start
    geometry, bit = _geometry(box), 1 << cell
    # Most removals are settled here, without a search: nothing else fits the cell, or the value fits nowhere else.
    if not any(cells & bit for digit, cells in enumerate(places) if digit != value - 1):
        return False
    if any(places[value - 1] & unit == bit for unit in geometry.units_of[cell]):
        return False
    places[value - 1] &= ~bit
    return next(_search(places, given, geometry, None), None) is not None


def generate_puzzles(
    count: int, box: Box, rng: np.random.Generator, min_clues: int = 0, max_clues: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`count` puzzles with one solution each and those solutions, uint8 [cells]; no two are equivalent.

    Each is dug down to `min_clues`, or until no clue can be spared; those left with more than `max_clues` are dropped.

    Raises:
        UserError: the clue range is empty, or so narrow that no new puzzle turns up.
    """
    max_clues = box.cells if max_clues is None else max_clues
    if not 0 <= min_clues <= max_clues <= box.cells:
        raise UserError(
            f"--min-clues {min_clues} --max-clues {max_clues}: boxes {box} allow 0 <= min <= max <= {box.cells}. "
            "Mend the two options, or leave them out."
        )
    draws = random.Random(int(rng.integers(2**63)))
    seen: set[bytes] = set()
    for made in range(count):
        for _ in range(_TRIES_PER_PUZZLE):
            puzzle, solution = generate_puzzle(box, draws, min_clues)
            if box.cells - puzzle.count(0) > max_clues:
                continue
            key = canonical_key(puzzle, box)
            if key not in seen:
                break
        else:
            raise UserError(
                f"{made} of {count} puzzles made, and {_TRIES_PER_PUZZLE} tries gave no other one with boxes {box} and "
                f"{min_clues} to {max_clues} clues. Ask for fewer puzzles, or for a wider --min-clues .. --max-clues."
            )
        seen.add(key)
        yield np.array(puzzle, np.uint8), np.array(solution, np.uint8)


# ---------------------------------------------------------------------------------------------------------------
# Equivalence: digits renamed, bands and rows in bands permuted, stacks and columns in stacks permuted, and the
# transpose where boxes are square.
# ---------------------------------------------------------------------------------------------------------------


def canonical_key(puzzle: Sequence[int] | np.ndarray, box: Box) -> bytes:
    """`canonical_keys` of one puzzle [cells]."""
    return canonical_keys(np.asarray(puzzle, np.uint8)[None], box)[0]


def canonical_keys(puzzles: np.ndarray, box: Box) -> list[bytes]:
    """One key per puzzle [n, cells]; equivalent puzzles have equal keys.

    For boxes 2x2 and 2x3 the key is the smallest equivalent puzzle, so that different keys and inequivalence are the
    same. For 3x3, with 6.7 million symmetries apart from the digits, it is a 64-bit hash that no symmetry changes:
    inequivalent puzzles differ but for a rare coincidence, which counts as equivalence.
    """
    if box.cells <= 36:
        return [_smallest_equivalent(puzzle, box) for puzzle in puzzles]
    chunks = (puzzles[start : start + _KEYS_AT_ONCE] for start in range(0, len(puzzles), _KEYS_AT_ONCE))
    return [key for chunk in chunks for key in _refined(chunk, box)]


def _line_orders(lines: int, groups: int) -> list[list[int]]:
    """Every order of `lines * groups` lines that keeps groups of `lines` together."""
    inner = list(permutations(range(lines)))
    return [
        [group * lines + line for group, order in zip(outer, orders, strict=True) for line in order]
        for outer in permutations(range(groups))
        for orders in product(inner, repeat=groups)
    ]


@cache
def _symmetries(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Source cell of each cell [symmetries, cells], and 2**(where each cell goes) [cells, symmetries] as float64."""
    side = box.side
    rows = np.array(_line_orders(box.rows, side // box.rows))
    cols = np.array(_line_orders(box.cols, side // box.cols))
    source = (rows[:, None, :, None] * side + cols[None, :, None, :]).reshape(-1, box.cells)
    if box.is_square:
        transpose = np.arange(box.cells).reshape(side, side).T.ravel()
        source = np.concatenate([source, source[:, transpose]])
    weights = np.empty((box.cells, len(source)))
    np.put_along_axis(weights, source.T, 2.0 ** np.arange(box.cells)[:, None], axis=0)
    return source, weights


def _smallest_equivalent(puzzle: np.ndarray, box: Box) -> bytes:
    source, weights = _symmetries(box)
    # The smallest pattern of clues first: it leaves few symmetries to compare digit by digit. Sums of powers of two
    # below 2**53 are exact in float64.
    patterns = weights[puzzle > 0].sum(axis=0)
    boards = puzzle[source[patterns == patterns.min()]]
    # Name the digits 1, 2, ... in the order in which they appear.
    shows = boards[:, None, :] == np.arange(1, box.side + 1)[:, None]
    first = np.where(shows.any(axis=2), shows.argmax(axis=2), box.cells)
    names = np.argsort(np.argsort(first, axis=1, kind="stable"), axis=1) + 1
    names = np.concatenate([np.zeros((len(names), 1), names.dtype), names], axis=1).astype(np.uint8)
    return min(board.tobytes() for board in np.take_along_axis(names, boards.astype(np.intp), axis=1))


def _mixed(x: np.ndarray) -> np.ndarray:
    """Scramble uint64 so that sums of the results tell multisets apart (the finaliser of splitmix64, shortened)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return x ^ (x >> np.uint64(31))


def _refined(puzzles: np.ndarray, box: Box) -> list[bytes]:
    """Colour refinement (Weisfeiler and Leman): cells and their row, column, box and digit recolour each other."""
    n, side = len(puzzles), box.side
    shape = (n, side // box.rows, box.rows, side // box.cols, box.cols)
    values = puzzles.reshape(shape)
    puzzle, *_ = clues = np.nonzero(values)
    holders = puzzle * (side + 1) + values[clues]
    digits_at = (np.arange(n)[:, None] * (side + 1) + puzzles).reshape(shape)
    rows = cols = boxes = np.ones((1, 1, 1, 1, 1), np.uint64)
    digits = np.ones((n, side + 1), np.uint64)
    cells = np.empty(0, np.uint64)
    column_factor = np.uint64(1 if box.is_square else 0x9E3779B97F4A7C15)  # rows and columns alike may swap places
    for _ in range(_REFINEMENTS):
        digits[:, 0] = 0  # the colour of a blank
        cells = _mixed(rows + cols * column_factor + boxes * np.uint64(0xD1342543DE82EF95) + digits.ravel()[digits_at])
        rows = _mixed(cells.sum(axis=(3, 4), keepdims=True))
        cols = _mixed(cells.sum(axis=(1, 2), keepdims=True))
        boxes = _mixed(cells.sum(axis=(2, 4), keepdims=True))
        digits = np.zeros(n * (side + 1), np.uint64)
        np.add.at(digits, holders, cells[clues])
        digits = _mixed(digits).reshape(n, side + 1)
    keys = cells.reshape(n, -1).sum(axis=1).astype(">u8").tobytes()
    return [keys[start : start + 8] for start in range(0, len(keys), 8)]
