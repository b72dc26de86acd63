import numpy as np
import pytest

from dataset.tasks.sudoku.equivalence import canonical_keys
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import BOXES, Box
from dataset.tasks.sudoku.solver import count_solutions
from tests.dataset.tasks.sudoku.exact_cover import exact_solutions
from utils.errors import UserError

SMALL, MIDDLE, LARGE = BOXES


@pytest.mark.parametrize(("box", "count"), [(SMALL, 5), (MIDDLE, 30), (LARGE, 3)], ids=str)
def test_generated_puzzles_have_one_solution_and_no_spare_clue(box: Box, count: int):
    puzzles = list(generate_puzzles(count, box, np.random.default_rng(0)))
    for puzzle, solution in puzzles:
        assert list(exact_solutions(puzzle, box)) == [solution.tolist()]
        assert ((puzzle == 0) | (puzzle == solution)).all()
        for cell in np.flatnonzero(puzzle):
            fewer = puzzle.copy()
            fewer[cell] = 0
            assert count_solutions(fewer, box) == 2
    keys = canonical_keys(np.array([puzzle for puzzle, _ in puzzles]), box)
    assert len(set(keys)) == count


def test_six_by_six_puzzles_are_as_hard_as_promised():
    clues = [np.count_nonzero(puzzle) for puzzle, _ in generate_puzzles(200, MIDDLE, np.random.default_rng(3))]
    assert np.mean(clues) < 11.5


def test_generated_puzzles_keep_to_the_range_of_clues():
    puzzles = list(generate_puzzles(20, MIDDLE, np.random.default_rng(0), min_clues=10, max_clues=11))
    assert {np.count_nonzero(puzzle) for puzzle, _ in puzzles} == {10, 11}


def test_clues_can_be_spread_uniformly_over_their_range():
    """No puzzle gets stuck above this range, so each of its three numbers is drawn 30 times of 90, up to 3 sigma."""
    made = generate_puzzles(90, MIDDLE, np.random.default_rng(0), min_clues=20, max_clues=22, uniform_clues=True)
    numbers, counts = np.unique([np.count_nonzero(puzzle) for puzzle, _ in made], return_counts=True)
    assert numbers.tolist() == [20, 21, 22]
    assert (abs(counts - 30) < 3 * 20**0.5).all()


def test_generation_is_reproducible():
    def made(seed: int) -> list:
        return [puzzle.tolist() for puzzle, _ in generate_puzzles(3, MIDDLE, np.random.default_rng(seed))]

    assert made(5) == made(5)
    assert made(5) != made(6)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, {"min_clues": 9, "max_clues": 8}, "0 <= min <= max <= 16"),
        (1, {"max_clues": 17}, "0 <= min <= max <= 16"),
        (1, {"max_clues": 3}, "0 of 1 puzzles made"),
        (1000, {}, "Ask for fewer puzzles"),
    ],
)
def test_impossible_wishes_are_refused(count: int, options: dict, message: str):
    with pytest.raises(UserError, match=message):
        list(generate_puzzles(count, SMALL, np.random.default_rng(0), **options))
