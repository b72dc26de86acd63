import numpy as np
import pytest

from dataset.tasks.sudoku import equivalence
from dataset.tasks.sudoku.equivalence import canonical_key, canonical_keys
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import BOXES, Box
from dataset.tasks.sudoku.solver import solutions
from tests.dataset.tasks.sudoku.symmetries import exchanges, orbit

SMALL, MIDDLE, LARGE = BOXES
# Two puzzles of one orbit from two collections, found to be equivalent by trying all 3,359,232 symmetries.
FROM_TOP1465 = ".1....5........3..9..7.........5...7....38...6......29............2....6.58.4...."
FROM_17_CLUE = ".....3.1........8.9..5..............6.....7...2..41......7..5.6.1....9...84......"


def board(text: str) -> np.ndarray:
    return np.array([int(character) for character in text.replace(".", "0")], np.uint8)


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
    exact, refined = canonical_keys(everything, MIDDLE), equivalence._refined(everything, MIDDLE)
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
