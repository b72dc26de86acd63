"""Boards of tasks as models see them: candidates, turns, symbols that may be renamed, and units."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dataset.tasks.board import board_of
from dataset.tasks.maze.task import Maze
from dataset.tasks.sudoku.rules import BOXES, Box
from dataset.tasks.sudoku.task import Sudoku
from dataset.tasks.symmetry import Symmetry, pair, renaming, turns_and_flips
from dataset.tasks.task import Task
from examples.futoshiki import Futoshiki
from utils.errors import UserError
from utils.grid_turns import grid_turns


def board(task: Task, count: int = 12) -> dict[str, Any]:
    """The board of a task, with random examples."""
    rng = np.random.default_rng(0)
    questions, answers = zip(*(task.random_example(rng) for _ in range(count)), strict=True)
    return board_of(task, [(np.stack(questions), np.stack(answers))])


@pytest.mark.parametrize("box", [Box(2, 2), Box(2, 3)], ids=str)
def test_sudoku(box: Box):
    found = board(Sudoku(box.cells, box.vocab_size))
    digits = list(range(2, 2 + box.side))
    assert found["allowed"] == [digits, digits, *([digit] for digit in digits)]
    assert found["turns"] == (list(range(8)) if box.is_square else [0, 1, 4, 5])
    assert found["renamed"] == digits
    assert {kind: len(units) for kind, units in found["units"].items()} == dict.fromkeys(
        ("row", "column", "box"), box.side
    )
    assert found["units"]["box"][1] == ([2, 3, 6, 7] if box.is_square else [3, 4, 5, 9, 10, 11])


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_the_turns_of_a_sudoku_keep_its_units(box: Box):
    task = Sudoku(box.cells, box.vocab_size)
    units = {frozenset(unit) for unit in task.units()}
    kept = [
        number
        for number, turn in grid_turns(box.side, box.side).items()
        if {frozenset(turn[list(unit)].tolist()) for unit in units} == units
    ]
    assert kept == list(task.turns())


def test_mazes():
    found = board(Maze(35, 6, height=5), 3)
    assert (found["rows"], found["columns"]) == (5, 7)
    assert found["allowed"] == [[1], [1], [2, 5], [3], [4], [5]]
    assert found["turns"] == [0, 1, 4, 5]
    assert found["renamed"] == []
    assert found["units"] == {}
    assert board(Maze(36, 6), 3)["turns"] == list(range(8))


def test_blanks_may_become_the_symbols_that_answers_have():
    """In a Futoshiki these are the digits; and as turns also turn the signs, none moves cells alone."""
    found = board(Futoshiki(*Futoshiki.own_size()))
    assert found["allowed"] == [[1], [1], [2], [3], [4], [1, 2, 3, 4], [6], [7], [8], [9], [10]]
    assert found["turns"] == [0]
    assert found["renamed"] == []
    assert [len(found["units"][kind]) for kind in ("row", "column")] == [4, 4]


class Letters(Task):
    """A line of letters, of which one is to be filled in; the tests give it symmetries."""

    name, title, symbols, blank, shape = "letters", "Letters", "abc.", ".", (1, 4)
    changes: Sequence[Symmetry] = ()

    def symmetries(self) -> Sequence[Symmetry]:
        return self.changes


def letters(*changes: Symmetry) -> Letters:
    task = Letters(4, 5)
    task.changes = changes
    return task


EXAMPLES = [(np.array([[1, 2, 4, 0]]), np.array([[0, 2, 3, 0]]))]


def test_what_is_not_asked_is_closed():
    found = board_of(letters(), EXAMPLES)
    assert (found["rows"], found["columns"]) == (1, 4)
    assert found["allowed"] == [[1], [1], [2], [3], [3]]


def test_symmetries_are_taken_where_they_are_declared():
    rename, mirror = renaming([1, 2, 3]), pair("mirror", np.fliplr, np.fliplr, cells_only=True)
    found = board_of(letters(rename, mirror), EXAMPLES)
    assert found["turns"] == [0, 1]
    assert found["renamed"] == [1, 2, 3]
    assert board_of(letters(pair("mirror", np.fliplr, np.fliplr)), EXAMPLES)["turns"] == [0]
    assert board_of(letters(turns_and_flips(1, 4)), EXAMPLES)["turns"] == [0, 1]


def test_a_symmetry_that_does_more_than_it_says_is_refused():
    def more(cells: np.ndarray) -> np.ndarray:
        return np.where(cells == 1, 2, np.where(cells == 2, 1, cells))

    with pytest.raises(UserError, match="cells_only=True, but does more than move cells"):
        board_of(letters(pair("more", more, more, cells_only=True)), EXAMPLES)


def test_answers_that_a_cell_may_not_have_are_refused():
    with pytest.raises(UserError, match=r"a cell with 'a' \(token 1\) in the question has 'b' \(token 2\)"):
        board_of(letters(), [(np.array([[1, 2, 4, 0]]), np.array([[2, 2, 3, 0]]))])


def test_a_task_without_candidates_is_refused():
    class Open(Letters):
        blank = ""

    with pytest.raises(UserError, match="does not say which answers a cell may have"):
        board_of(Open(4, 5), EXAMPLES)
