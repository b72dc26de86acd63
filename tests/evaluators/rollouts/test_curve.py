"""Accuracy against compute, on rollouts that are written out and on tasks with rules."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from dataset.tasks import load_task
from dataset.tasks.maze.rules import PATH, SPACE
from dataset.tasks.puzzle import Verdict
from dataset.tasks.task import Task
from evaluators.rollouts.curve import ANY, Curve, Judge, Point, draw, powers, share_of_lucky, table, write_csv
from evaluators.rollouts.selectors import SELECTORS, selectors_named
from evaluators.rollouts.trajectories import Trajectories
from tests.evaluators.rollouts.made import trajectories
from utils.statistics import paired_test, wilson


class Even(Task):
    """Even answers are right, and 4 is the label."""

    name = "even"

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        return Verdict("wrong" if answer[0] % 2 else "solved", "")


def points(steps: int = 4, **settings: list[str]) -> dict[tuple[str, int, int], Point]:
    task, question, label = Even(1, 9), np.array([1], np.uint8), np.array([4], np.uint8)
    curve = Curve(selectors_named(settings["selectors"]), [1, 2, 4], [1, 2, steps], trained_steps=2)
    found = trajectories(
        [[1, 1, 1, 1], [1, 2, 2, 2], [1, 3, 4, 4], [5, 5, 5, 5]],
        halt=[[0, 0, 0, 0], [0, 3, 1, 1], [0, 0, 5, 5], [0, 0, 0, 1]],
        halted_at=[0, 2, 3, 0],
        taken=[4, 2, 3, 4],
    )
    curve.add(found, Judge(task, question, label))
    easy = trajectories([[4, 4, 4, 4]] * 4, halted_at=[2] * 4, taken=[2] * 4)
    curve.add(easy, Judge(task, question, label))
    return {(point.selector, point.restarts, point.steps): point for point in curve.points(2e9)}


def test_each_budget_is_counted_by_itself():
    names = ["last", "halting_head", "first_to_halt", "majority", "verifier"]
    found = points(selectors=names)
    assert all(p.solved + p.wrong + p.undecided == pytest.approx(1) for p in found.values())
    assert len(found) == (len(names) + 1) * 9
    assert [found["last", r, 4].solved for r in (1, 2, 4)] == [0.5] * 3
    assert [found["halting_head", r, 4].exact for r in (1, 2, 4)] == [0.5, 0.5, 1.0]
    assert [found["halting_head", r, 4].solved for r in (1, 2, 4)] == [0.5, 1.0, 1.0]
    assert [found["first_to_halt", r, 4].undecided for r in (1, 2, 4)] == [0.5, 0.0, 0.0]
    assert found["first_to_halt", 4, 1].undecided == 1
    assert found["verifier", 4, 1].undecided == 0.5
    # passes: what was computed up to the step at which the answer is known
    assert found["last", 4, 4].passes == (4 + 2) / 2
    assert found["halting_head", 4, 4].passes == (4 + 2 + 3 + 4 + 4 * 2) / 2
    assert found["first_to_halt", 4, 4].passes == (4 * 2 + 4 * 2) / 2
    assert found["verifier", 4, 4].passes == (4 * 2 + 4) / 2
    assert found["verifier", 4, 4].gflops == 2 * found["verifier", 4, 4].passes
    # against the first rollout after two steps, which solves the easy puzzle alone
    assert (found["halting_head", 4, 4].better, found["halting_head", 4, 4].worse) == (1, 0)
    assert found["halting_head", 4, 4].p == 1
    # of the first puzzle 2 of 4 rollouts are right
    assert found[ANY, 1, 4].solved == (2 / 4 + 1) / 2
    assert found[ANY, 2, 4].solved == (5 / 6 + 1) / 2
    assert found[ANY, 2, 4].exact == (3 / 6 + 1) / 2


def test_the_table_the_file_and_the_picture(tmp_path: Path):
    found = list(points(selectors=["last", "majority", "verifier"]).values())
    text = table(found, 4, 4)
    assert [line.split()[0] for line in text.splitlines()] == ["selector", "last", "majority", "verifier", ANY]
    write_csv(found, tmp_path / "curve.csv")
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 9
    assert lines[0].startswith("selector,restarts,steps,puzzles,solved,wrong,undecided,exact,low,high,passes")
    draw(found, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_budgets():
    assert powers(1) == [1]
    assert powers(16) == [1, 2, 4, 8, 16]
    assert powers(20, 6, 30) == [1, 2, 4, 6, 8, 16, 20]


def test_without_rules_and_labels_nothing_is_decided():
    judge = Judge(Task(1, 9), np.array([1], np.uint8), None)
    assert judge.outcomes(np.array([[1], [2]], np.uint8)) == [(2, False)] * 2
    assert not judge.verify(np.array([[1], [2]], np.uint8)).any()
    assert Judge(Task(1, 9), np.array([1], np.uint8), np.array([2], np.uint8)).outcomes(
        np.array([[1], [2]], np.uint8)
    ) == [(1, False), (0, True)]


@pytest.mark.parametrize("right", [0, 1, 2, 5])
def test_pass_at_k_is_the_share_of_lucky_draws(right: int):
    outcomes = [True] * right + [False] * (5 - right)
    for k in (1, 2, 4):
        draws = [any(draw) for draw in combinations(outcomes, k)]
        assert share_of_lucky(k, 5, right) == pytest.approx(sum(draws) / len(draws))


def test_exact_and_any_right_answer_differ_on_mazes_and_agree_on_sudokus():
    maze = load_task("maze").of(25, 6)
    question = maze.encode(["S    ", " ### ", " ### ", " ### ", "    G"])
    label = maze.solve(question)
    assert label is not None
    corners = [np.arange(5), np.arange(0, 25, 5), np.arange(4, 25, 5), np.arange(20, 25)]
    paths = [np.where(np.isin(np.arange(25), np.concatenate(way)) & (question == SPACE), PATH, question)
             for way in ((corners[0], corners[2]), (corners[1], corners[3]))]  # fmt: skip
    answers = np.stack([*paths, question]).astype(np.uint8)
    outcomes = Judge(maze, question, label).outcomes(answers)
    assert [outcome for outcome, _ in outcomes] == [0, 0, 1]
    assert sorted(exact for _, exact in outcomes) == [False, False, True]

    sudoku = load_task("sudoku").of(36, 8)
    rng = np.random.default_rng(0)
    for _ in range(5):
        question = sudoku.random_question(rng)
        label = sudoku.solve(question)
        assert label is not None
        assert sudoku.solutions(question).number == "one"
        broken = label.copy()
        broken[int(rng.integers(36))] = 2 + int(rng.integers(6))
        tries = np.stack([label, broken]).astype(np.uint8)
        for outcome, exact in Judge(sudoku, question, label.astype(np.uint8)).outcomes(tries):
            assert (outcome == 0) == exact


@pytest.mark.thorough
def test_the_verifier_rejects_every_corrupted_board():
    """100,000 boards, each the solution with one to six cells changed, or two cells, rows or digits exchanged."""
    sudoku = load_task("sudoku").of(81, 11)
    rng = np.random.default_rng(0)
    rejected = 0
    while rejected < 100_000:
        question = sudoku.random_question(rng)
        solution = sudoku.solve(question)
        assert solution is not None
        boards = np.repeat(solution[None].astype(np.uint8), 5000, 0)
        for board in boards[:4000]:
            cells = rng.choice(81, int(rng.integers(1, 7)), replace=False)
            board[cells] = rng.integers(0, 11, len(cells))
        for board in boards[4000:4500]:
            rows = rng.choice(9, 2, replace=False)
            board.reshape(9, 9)[rows] = board.reshape(9, 9)[rows[::-1]].copy()
        for board in boards[4500:]:
            one, two = rng.choice(np.arange(2, 11), 2, replace=False)
            board[:] = np.where(board == one, two, np.where(board == two, one, board))
        boards = boards[(boards != solution).any(1)]
        found = Judge(sudoku, question, None)
        right = found.verify(boards)
        assert not right.any()
        assert found.verify(solution[None].astype(np.uint8)).all()
        answers = boards[:4000].reshape(10, 400, 81)
        shape = answers.shape[:2]
        rollouts = Trajectories(answers, *np.zeros((3, *shape), np.float32), *np.zeros((2, shape[0]), np.int64))
        assert SELECTORS["verifier"].choose(rollouts, found.verify) is None
        rejected += len(boards)


def test_statistics():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
    for successes, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(successes, total) == pytest.approx((low, high), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    # by counting: of 2^12 equally probable outcomes those at most as probable as this one
    assert paired_test(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert paired_test(2, 10) == paired_test(10, 2)
    assert paired_test(3, 3) == 1
    assert paired_test(0, 0) == 1
    assert paired_test(4000, 3000) < 1e-30
