"""Random Sudoku puzzles with a unique solution."""

import random
from collections.abc import Iterator, Sequence

import numpy as np

from dataset.tasks.sudoku.equivalence import canonical_key
from dataset.tasks.sudoku.rules import Box
from dataset.tasks.sudoku.solver import board_of, geometry_of, search, start_of
from utils.errors import UserError

_TRIES_PER_PUZZLE = 1000  # rejected candidates in a row before the generator gives up


def generate_puzzle(box: Box, rng: random.Random, min_clues: int = 0) -> tuple[list[int], list[int]]:
    """A random puzzle with a unique solution, and that solution, as lists of cell values.

    Clues are removed from a random full board in random order as long as the solution stays unique, down to
    `min_clues`. Each clue is tried only once, because one that is needed stays needed when others are removed.
    """
    geometry = geometry_of(box)
    solution = board_of(next(search([geometry.board] * box.side, 0, geometry, rng)), box)
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
    """Whether `puzzle`, whose solution was unique with `value` in `cell`, has a solution with another value there."""
    start = start_of(puzzle, box)
    assert start is not None, "the puzzle was cut out of a full board"
    places, given = start
    geometry, bit = geometry_of(box), 1 << cell
    # These checks decide most cases without a search: no other digit fits the cell, or the value fits nowhere else.
    if not any(cells & bit for digit, cells in enumerate(places) if digit != value - 1):
        return False
    if any(places[value - 1] & unit == bit for unit in geometry.units_of[cell]):
        return False
    places[value - 1] &= ~bit
    return next(search(places, given, geometry, None), None) is not None


def generate_puzzles(
    count: int,
    box: Box,
    rng: np.random.Generator,
    min_clues: int = 0,
    max_clues: int | None = None,
    uniform_clues: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`count` pairs (puzzle, unique solution), both uint8 [cells]; no two puzzles are equivalent.

    Clues are removed down to `min_clues` or until every clue is needed. Puzzles with more than `max_clues` are dropped.
    With `uniform_clues`, clues are removed down to a number drawn uniformly from min_clues..max_clues for each puzzle.

    Raises:
        UserError: the range of clues is empty, or so narrow that no new puzzle is found.
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
            target = draws.randint(min_clues, max_clues) if uniform_clues else min_clues
            puzzle, solution = generate_puzzle(box, draws, target)
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
