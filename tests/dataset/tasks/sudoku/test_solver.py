import random
from itertools import islice

import numpy as np
import pytest

from dataset.tasks.sudoku.generate import generate_puzzle
from dataset.tasks.sudoku.rules import BOXES, Box
from dataset.tasks.sudoku.solver import count_solutions, solutions, solve
from tests.dataset.tasks.sudoku.exact_cover import exact_solutions

SMALL, MIDDLE, LARGE = BOXES


def thinned(box: Box, count: int, spare: int) -> list[np.ndarray]:
    """Puzzles with `spare` clues fewer than a unique solution needs, or so."""
    draws = random.Random(1)
    puzzles = []
    for _ in range(count):
        puzzle = np.array(generate_puzzle(box, draws)[0], np.uint8)
        puzzle[draws.sample(list(np.flatnonzero(puzzle)), spare)] = 0
        puzzles.append(puzzle)
    return puzzles


@pytest.mark.parametrize(("box", "spare"), [(SMALL, 1), (SMALL, 2), (MIDDLE, 1), (MIDDLE, 2), (LARGE, 1)], ids=str)
def test_all_solutions_are_those_of_exact_cover(box: Box, spare: int):
    for puzzle in thinned(box, 4, spare):
        expected = sorted(map(tuple, islice(exact_solutions(puzzle, box), 500)))
        assert len(expected) > 1
        if len(expected) < 500:
            assert sorted(tuple(int(v) for v in found) for found in solutions(puzzle, box)) == expected
        assert count_solutions(puzzle, box, limit=2) == 2
        assert count_solutions(puzzle, box, limit=500) == len(expected)


def test_there_are_288_boards_of_four_by_four():
    assert count_solutions([0] * 16, SMALL, limit=1000) == 288


def test_an_impossible_board_has_no_solution():
    clash = [1, 1, *[0] * 14]
    assert solve(clash, SMALL) is None
    # The top left cell can hold neither 1 nor 2 (row), nor 3 (column), nor 4 (box).
    stuck = [0, 0, 1, 2, 0, 4, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
    assert count_solutions(stuck, SMALL) == 0
