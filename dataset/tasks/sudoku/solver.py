"""Exact Sudoku solver: depth-first search on the cell with the fewest candidates, after naked and hidden singles.

A state has one bitboard per digit, of the cells where the digit is still possible (bit i is cell i), and one bitboard
of the cells whose values have been propagated. So a rule is applied to all cells with a few integer operations.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from dataset.tasks.sudoku.rules import Box, units_of


class Geometry(NamedTuple):
    """The units (rows, columns and boxes) of a board as bitboards."""

    board: int  # all cells
    units: tuple[int, ...]  # all rows, columns and boxes
    peers: tuple[int, ...]  # for each cell: the other cells of its units
    units_of: tuple[tuple[int, ...], ...]  # for each cell: the units that contain it


@cache
def geometry_of(box: Box) -> Geometry:
    """The geometry of boards with this box."""
    unit_cells = sorted((cells for cells_of_kind in units_of(box).values() for cells in cells_of_kind), key=min)
    units = tuple(sum(1 << cell for cell in cells) for cells in unit_cells)
    units_of_cells = tuple(tuple(unit for unit in units if unit >> cell & 1) for cell in range(box.cells))
    peers = tuple((u[0] | u[1] | u[2]) & ~(1 << cell) for cell, u in enumerate(units_of_cells))
    return Geometry((1 << box.cells) - 1, units, peers, units_of_cells)


def start_of(board: Sequence[int], box: Box) -> tuple[list[int], int] | None:
    """(bitboards of the digits, bitboard of the given cells) of `board` [cells], or None if two clues conflict."""
    peers = geometry_of(box).peers
    own, seen, given = [0] * box.side, [0] * box.side, 0
    for cell, value in enumerate(board):
        if value:
            own[value - 1] |= 1 << cell
            seen[value - 1] |= peers[cell]
            given |= 1 << cell
    if any(cells & blocked for cells, blocked in zip(own, seen, strict=True)):
        return None
    blank = geometry_of(box).board & ~given
    return [cells | (blank & ~blocked) for cells, blocked in zip(own, seen, strict=True)], given


def _propagate(places: list[int], fixed: int, geometry: Geometry) -> int | None:
    """Fill in naked and hidden singles, changing `places`, until none is left: the fixed cells; None if unsolvable."""
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


def _clear_peers(places: list[int], naked: int, geometry: Geometry) -> bool:
    """Remove the digit of each `naked` single from the peers of its cell; False if two of them conflict."""
    while naked:
        bit = naked & -naked
        naked ^= bit
        for digit, cells in enumerate(places):
            if cells & bit:
                places[digit] = cells & ~geometry.peers[bit.bit_length() - 1]
                break
        else:  # an earlier single removed the only digit of this cell
            return False
    return True


def _hidden_singles(places: Sequence[int], fixed: int, geometry: Geometry) -> list[tuple[int, int]] | None:
    """(digit, bit of the cell) for each unit with only one place for a digit; None if a unit has no place for one."""
    singles: list[tuple[int, int]] = []
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
                singles.append((digit, spots))
    return singles


class TooManyGuessesError(Exception):
    """A search took more guesses than it was allowed."""


class Guesses:
    """Counts the guesses of a search.

    Args:
        most: how many are allowed.
    """

    def __init__(self, most: int):
        self.left = most

    def count(self) -> None:
        """Count one guess.

        Raises:
            TooManyGuessesError: it is one too many.
        """
        if not self.left:
            raise TooManyGuessesError
        self.left -= 1


def search(
    places: list[int], fixed: int, geometry: Geometry, rng: random.Random | None, guesses: Guesses | None = None
) -> Iterator[list[int]]:
    """All completions of a state, as bitboards; digits are tried in order, or in an order shuffled by `rng`.

    Raises:
        TooManyGuessesError: see `Guesses`.
    """
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
        if guesses is not None:
            guesses.count()
        branch = [cells if digit == chosen else cells & ~bit for digit, cells in enumerate(places)]
        yield from search(branch, now_fixed, geometry, rng, guesses)


def board_of(places: Sequence[int], box: Box) -> list[int]:
    """The cell values of a solved state."""
    board = [0] * box.cells
    for digit, cells in enumerate(places):
        while cells:
            bit = cells & -cells
            cells ^= bit
            board[bit.bit_length() - 1] = digit + 1
    return board


def solutions(board: Sequence[int] | np.ndarray, box: Box, guesses: Guesses | None = None) -> Iterator[np.ndarray]:
    """All solutions of `board` [cells] (0 is a blank), one at a time: uint8 [cells].

    Raises:
        TooManyGuessesError: see `Guesses`.
    """
    start = start_of([int(value) for value in board], box)
    if start is not None:
        for places in search(*start, geometry_of(box), None, guesses):
            yield np.array(board_of(places, box), np.uint8)


def solve(board: Sequence[int] | np.ndarray, box: Box) -> np.ndarray | None:
    """A solution of `board` [cells] as uint8 [cells], or None if there is none."""
    return next(solutions(board, box), None)


def count_solutions(board: Sequence[int] | np.ndarray, box: Box, limit: int = 2) -> int:
    """The number of solutions of `board` [cells], at most `limit`."""
    return sum(1 for _ in zip(range(limit), solutions(board, box), strict=False))


def solutions_within(
    board: Sequence[int] | np.ndarray, box: Box, guesses: int, limit: int = 2
) -> list[np.ndarray] | None:
    """The first solutions of `board` [cells], at most `limit`; None if that takes more guesses than `guesses`.

    Puzzles with few clues and no solution can take a solver hours.
    """
    found = solutions(board, box, Guesses(guesses))
    try:
        return [solution for _, solution in zip(range(limit), found, strict=False)]
    except TooManyGuessesError:
        return None
