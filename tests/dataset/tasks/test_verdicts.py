"""Verdicts against exact methods: a second solver, and breadth-first search."""

import numpy as np
import pytest

from dataset.tasks.arithmetic.task import Arithmetic
from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.rules import PATH, SPACE, WALL
from dataset.tasks.maze.task import Maze
from dataset.tasks.sudoku.rules import BOXES, TOKEN_OFFSET, Box
from dataset.tasks.sudoku.solver import count_solutions, solutions_within
from dataset.tasks.sudoku.task import Sudoku
from tests.dataset.tasks.maze.plain_bfs import plain_label
from tests.dataset.tasks.sudoku.exact_cover import exact_solutions


@pytest.mark.parametrize("box", BOXES[:2], ids=str)
def test_the_number_of_solutions_of_a_sudoku(box: Box):
    """Against exact cover, on puzzles with a clue removed, changed, or left as they are."""
    task, rng = Sudoku(box.cells, box.vocab_size), np.random.default_rng(0)
    seen: set[str] = set()
    for number in range(30):
        question = task.random_question(rng)
        clues = np.flatnonzero(question > TOKEN_OFFSET)
        if number % 3 == 1:
            question[rng.choice(clues, len(clues) // 2, replace=False)] = TOKEN_OFFSET
        elif number % 3 == 2:
            question[clues[0]] = question[clues[0]] % box.side + 1 + TOKEN_OFFSET
        exact = [tokens for _, tokens in zip(range(2), exact_solutions(question - TOKEN_OFFSET, box), strict=False)]
        expected = ("none", "one", "several")[len(exact)]
        found = task.solutions(question)
        assert found.number == expected
        seen.add(expected)
        solution = task.solve(question)
        assert (solution is None) == (expected == "none")
        if solution is None:
            assert task.verify(question, question).status == "undecided"
            assert "no solution" in task.verify(question, question).reason
        else:
            verdict = task.verify(question, solution)
            assert verdict.status == "solved"
            assert ("several solutions" in verdict.reason) == (expected == "several")
    assert seen == {"none", "one", "several"}


def test_why_a_sudoku_is_wrong():
    task = Sudoku(16, 6)
    question = task.encode("1..4.41.2..3.32.")
    right = task.solve(question)
    assert right is not None
    twice, open_cell, lost = right.copy(), right.copy(), right.copy()
    twice[1] = 4 + TOKEN_OFFSET
    open_cell[1] = TOKEN_OFFSET
    lost[0] = 2 + TOKEN_OFFSET
    assert str(task.verify(question, twice)) == "wrong: the digit 4 is in row 1 more than once"
    assert str(task.verify(question, open_cell)) == "wrong: 1 cell is left open"
    assert str(task.verify(question, lost)) == "wrong: 1 of the clues is not kept"


def test_no_corrupted_board_is_solved():
    task, rng = Sudoku(81, 11), np.random.default_rng(1)
    question = task.random_question(rng)
    right = task.solve(question)
    assert right is not None
    for _ in range(300):
        wrong = right.copy()
        cell = rng.integers(81)
        wrong[cell] = (wrong[cell] - TOKEN_OFFSET + rng.integers(0, 9)) % 10 + TOKEN_OFFSET
        assert task.check(question[None], wrong[None])["solved"][0] == (wrong == right).all()
        verdict = task.verify(question, wrong)
        assert (verdict.status == "solved") == (wrong == right).all()


def test_a_solver_that_gives_up_says_so():
    hopeless = ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4........."
    task = Sudoku(81, 11)
    values = task.encode(hopeless).astype(int) - TOKEN_OFFSET
    assert solutions_within(values, BOXES[2], 50) is None
    hard = task.encode("4..7..8....7..2.5.1.93..7....1..3..6..6.9....3..6..1........4....48...377......18")
    (found,) = solutions_within(hard.astype(int) - TOKEN_OFFSET, BOXES[2], 20_000) or []
    assert count_solutions(hard.astype(int) - TOKEN_OFFSET, BOXES[2]) == 1
    assert task.verify(hard, found + TOKEN_OFFSET).status == "solved"


def test_paths_of_mazes():
    task = Maze(64, 6)
    for maze in np.array(list(generate_mazes(20, 8, 8, np.random.default_rng(0)))).reshape(20, 64):
        label = plain_label(maze.reshape(8, 8))
        assert label is not None
        verdict = task.verify(maze, label.reshape(-1))
        assert verdict.status == "solved"
        assert verdict.reason.endswith(f"of {np.count_nonzero(label == PATH) + 1} moves")
        cut = label.reshape(-1).copy()
        cut[np.flatnonzero(cut == PATH)[0]] = SPACE
        assert task.verify(maze, cut).status == "wrong"


def test_why_a_maze_is_wrong_or_has_no_solution():
    task = Maze(25, 6)
    maze = task.encode("S    \n ### \n     \n     \n    G")
    detour = task.encode("S    \n ### \n     \n     \n    G")
    detour[[5, 10, 15, 16, 17, 12, 13, 14, 19]] = PATH  # two moves more than needed
    assert str(task.verify(maze, detour)) == "wrong: a path from S to G of 10 moves, and there is one of 8"
    through = maze.copy()
    through[6] = PATH
    assert str(task.verify(maze, through)) == "wrong: 1 of the marked cells is a wall"
    closed = maze.copy()
    closed[[1, 5]] = WALL
    assert str(task.verify(closed, closed)) == "undecided: it has no solution, because no path leads from S to G"
    assert task.solve(closed) is None


def test_sums():
    task = Arithmetic(12, 13)
    for a, b in ((999, 999), (0, 0), (123, 45)):
        question = task.encode((a, b))
        answer = task.solve(question)
        assert answer is not None
        assert task.decode(answer, question) == str(a + b)
        assert task.verify(question, answer).status == "solved"
        answer[-1] = answer[-1] % 10 + 1
        assert str(task.verify(question, answer)) == f"wrong: the sum is {a + b}"
