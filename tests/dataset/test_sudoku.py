import random
from itertools import islice

import numpy as np
import pytest

from dataset import sudoku
from dataset.sudoku import (
    BOXES,
    Box,
    box_of,
    canonical_key,
    canonical_keys,
    count_solutions,
    generate_puzzle,
    generate_puzzles,
    obeys_rules,
    parse_box,
    solutions,
    solve,
)
from tests.dataset.exact_cover import exact_solutions
from tests.dataset.symmetries import exchanges, orbit
from utils.errors import UserError

SMALL, MIDDLE, LARGE = BOXES

# Two puzzles of one orbit from two collections, found to be equivalent by trying all 3,359,232 symmetries.
FROM_TOP1465 = ".1....5........3..9..7.........5...7....38...6......29............2....6.58.4...."
FROM_17_CLUE = ".....3.1........8.9..5..............6.....7...2..41......7..5.6.1....9...84......"


def board(text: str) -> np.ndarray:
    return np.array([int(character) for character in text.replace(".", "0")], np.uint8)


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


def test_keys_of_four_by_four_are_the_orbits():
    boards = np.array(list(solutions([0] * 16, SMALL)))
    keys = canonical_keys(boards, SMALL)
    assert len(set(keys)) == 2  # there are two essentially different ones
    puzzles = [puzzle for puzzle, _ in generate_puzzles(6, SMALL, np.random.default_rng(0))]
    puzzles += [exchanges(puzzle, SMALL)[2] for puzzle in puzzles]
    orbits = [orbit(puzzle, SMALL) for puzzle in puzzles]
    for a, first in enumerate(puzzles):
        for second, members in zip(puzzles, orbits, strict=True):
            equivalent = first.tobytes() in members
            assert (canonical_key(first, SMALL) == canonical_key(second, SMALL)) == equivalent
        # The key is the smallest board of the orbit by its own order: a member, and the same for all members.
        assert canonical_key(first, SMALL) in orbits[a]


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_no_exchange_changes_a_key(box: Box):
    for puzzle, _ in generate_puzzles(3, box, np.random.default_rng(4)):
        assert set(canonical_keys(np.array(exchanges(puzzle, box)), box)) == {canonical_key(puzzle, box)}


def test_refinement_tells_apart_what_the_exact_key_tells_apart():
    puzzles = np.array([puzzle for puzzle, _ in generate_puzzles(150, MIDDLE, np.random.default_rng(5))])
    changed = puzzles.copy()  # near misses: one clue of each taken away
    changed[np.arange(150), puzzles.argmax(axis=1)] = 0
    images = [exchanges(puzzle, MIDDLE)[i % 15] for i, puzzle in enumerate(puzzles)]
    everything = np.concatenate([puzzles, changed, np.array(images)])
    exact, refined = canonical_keys(everything, MIDDLE), sudoku._refined(everything, MIDDLE)
    assert len(set(exact)) == len(set(refined)) == len(set(zip(exact, refined, strict=True))) == 300


def test_keys_of_nine_by_nine():
    first, second = board(FROM_TOP1465), board(FROM_17_CLUE)
    assert canonical_key(first, LARGE) == canonical_key(second, LARGE)
    cell = np.flatnonzero(first)[0]
    for digit in range(10):
        if digit != first[cell]:
            changed = first.copy()
            changed[cell] = digit
            assert canonical_key(changed, LARGE) != canonical_key(first, LARGE)


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_rules(box: Box):
    def naive(values: np.ndarray) -> bool:
        grid = values.reshape(box.side, box.side)
        starts = [(r, c) for r in range(0, box.side, box.rows) for c in range(0, box.side, box.cols)]
        units = [*grid, *grid.T, *(grid[r : r + box.rows, c : c + box.cols].ravel() for r, c in starts)]
        return all(sorted(unit) == list(range(1, box.side + 1)) for unit in units)

    rng = np.random.default_rng(0)
    right = np.array([solution for _, solution in generate_puzzles(3, box, rng)])
    boards = np.concatenate([right, right[:1].repeat(40, axis=0)])
    for wrong in boards[3:]:  # exchange two cells, so that some units stay right
        a, b = rng.choice(box.cells, 2, replace=False)
        wrong[[a, b]] = wrong[[b, a]]
    latin = (np.add.outer(np.arange(box.side), np.arange(box.side)) % box.side + 1).reshape(1, -1)  # boxes wrong only
    boards = np.concatenate([boards, latin, np.zeros_like(latin), np.full_like(latin, 99), np.full_like(latin, -101)])
    assert obeys_rules(boards, box).tolist() == [naive(values) for values in boards]


def test_boxes_by_name_and_by_size():
    for box in BOXES:
        assert parse_box(str(box)) == box
        assert box_of(box.cells, box.vocab_size) == box
    with pytest.raises(UserError, match="allowed are 2x2, 2x3, 3x3"):
        parse_box("3x2")
    with pytest.raises(UserError, match="fit no Sudoku"):
        box_of(81, 12)
