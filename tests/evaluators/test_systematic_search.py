"""Systematic search: the status agrees with the exact solver, and the network, right or wrong, changes no status."""

from typing import Any

import numpy as np
import pytest
import torch

from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box
from dataset.tasks.sudoku.solver import count_solutions
from dataset.tasks.sudoku.task import Sudoku
from evaluators.search import Accept, SearchResult, SearchRule
from evaluators.searches import run_search
from evaluators.systematic_search import choose, systematic_search
from tests.models.small_lattice import MIDDLE, SMALL, boards, small_ldt
from utils.errors import UserError


def task_of(box: Box) -> Sudoku:
    return Sudoku(box.cells, box.vocab_size)


def accept_of(box: Box) -> Accept:
    return lambda inputs, answers: task_of(box).check(inputs, answers)["solved"]


def run(inputs: np.ndarray, box: Box, slots: int = 7, record: bool = False, **rule: Any) -> SearchResult:
    settings = {"rounds": 10_000, "propagate": True, "call_depth": None, **rule}
    units = task_of(box).units()
    model = small_ldt(box).eval()
    return run_search(model, inputs, accept_of(box), units, SearchRule(**settings), slots, record=record)


def puzzles_of_all_kinds(count: int, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """(puzzles [n, cells], numbers of solutions [n], at most 2): with one solution, with several, and with none."""
    unique, solutions = boards(count, box)
    rng = np.random.default_rng(1)
    several = np.where(rng.random(unique.shape) < 0.3, TOKEN_OFFSET, unique)
    blank = unique == TOKEN_OFFSET
    places = [rng.choice(np.flatnonzero(row)) for row in blank]
    wrong = unique.copy()  # one more clue, which the solution does not have
    rows = np.arange(count)
    wrong[rows, places] = (solutions[rows, places] - 2 + rng.integers(1, box.side, count)) % box.side + 2
    puzzles = np.concatenate([unique, several, wrong])
    return puzzles, np.array([count_solutions(puzzle - TOKEN_OFFSET, box) for puzzle in puzzles])


@pytest.mark.parametrize("call_depth", [None, 1, 0])
@pytest.mark.parametrize("box", [SMALL, MIDDLE], ids=str)
def test_the_status_is_that_of_the_exact_solver(box: Box, call_depth: int | None):
    puzzles, numbers = puzzles_of_all_kinds(20, box)
    assert set(numbers.tolist()) == {0, 1, 2}
    found = run(puzzles, box, call_depth=call_depth)
    np.testing.assert_array_equal(found.solved, numbers > 0)
    np.testing.assert_array_equal(found.unsolvable, numbers == 0)
    assert task_of(box).check(puzzles, found.answers)["solved"][found.solved].all()
    assert not found.answers[~found.solved].any()
    assert found.rejected == 0
    assert (found.rows == 0).any()  # the rules alone
    if call_depth is None:
        assert found.rows.sum() == found.rounds.sum()
        assert found.calls < found.rows.sum()
    elif call_depth == 0:
        assert found.calls == found.rows.sum() == 0
    else:
        assert 0 < found.rows.sum() < found.rounds.sum()


def test_good_proposals_need_no_second_try_and_bad_ones_find_the_same():
    puzzles, solutions = boards(20, MIDDLE)
    right = (solutions[:, :, None] == np.arange(2, 2 + MIDDLE.side)).astype(np.float32)
    units, rule = task_of(MIDDLE).units(), SearchRule(rounds=10_000, propagate=True)
    tried, failed = {"good": 0, "bad": 0}, {"good": 0, "bad": 0}
    for puzzle, solution, known in zip(puzzles, solutions, right, strict=True):
        for name, proposals in (("good", known), ("bad", 1 - known)):
            found = systematic_search(
                small_ldt(MIDDLE).eval(), puzzle[None], accept_of(MIDDLE), units, rule, 1, 0,
                lambda lattices, call, proposals=proposals: np.broadcast_to(proposals, lattices.shape),
            )  # fmt: skip
            np.testing.assert_array_equal(found.answers[0], solution)
            tried[name] += int(found.rounds[0])
            failed[name] += int(found.restarts[0])
    assert tried["good"] > 0
    assert failed["good"] == 0
    assert failed["bad"] > 0


def test_which_cell_is_decided():
    lattices = np.array([[[1, 0, 0], [1, 1, 1], [0, 1, 1], [1, 0, 1]]], np.bool_)
    proposals = np.array([[[9, 0, 0], [0.2, 0.6, 0.2], [0.9, 0.5, 0.5], [0.3, 0, 0.7]]], np.float32)
    assert [int(value[0]) for value in choose(lattices, None)] == [2, 1]
    assert [int(value[0]) for value in choose(lattices, proposals)] == [3, 2]
    proposals[0, 1, 1] = 40.0  # certainty outweighs one candidate more
    assert [int(value[0]) for value in choose(lattices, proposals)] == [1, 1]
    assert [int(value[0]) for value in choose(lattices, np.zeros_like(proposals))] == [2, 1]


def test_the_rounds_and_the_time_are_limited():
    empty = np.full((3, 36), TOKEN_OFFSET)
    found = run(empty, MIDDLE, rounds=2, slots=2)
    assert found.rounds.tolist() == [2, 2, 2]
    assert not found.solved.any()
    assert not found.unsolvable.any()
    found = run(empty, MIDDLE, seconds=1e-9)
    assert found.rounds.sum() == 0
    assert not found.solved.any()


def test_what_is_recorded_ends_with_the_answer():
    puzzles, _ = puzzles_of_all_kinds(6, MIDDLE)
    found = run(puzzles, MIDDLE, record=True)
    assert found.boards is not None
    for place, steps in enumerate(found.boards):
        assert steps.dtype == np.uint8
        assert len(steps) == 1 + found.rounds[place] + found.restarts[place]
        if found.solved[place]:
            np.testing.assert_array_equal(steps[-1], found.answers[place])


def test_rules_beside_the_units_reject_boards_and_close_branches():
    """A task whose rules forbid more than its units do: the digit in the first cell is the largest."""
    puzzles, _ = puzzles_of_all_kinds(20, SMALL)
    units = task_of(SMALL).units()

    def accept(inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return accept_of(SMALL)(inputs, answers) & (answers[:, 0] == SMALL.side + 1)

    rule = SearchRule(rounds=10_000, propagate=True)
    found = run_search(small_ldt().eval(), puzzles, accept, units, rule, 5)
    assert found.rejected > 0
    pinned = puzzles.copy()
    allowed = np.isin(puzzles[:, 0], (TOKEN_OFFSET, SMALL.side + 1))
    pinned[:, 0] = SMALL.side + 1
    numbers = np.array([count_solutions(puzzle - TOKEN_OFFSET, SMALL) for puzzle in pinned]) * allowed
    np.testing.assert_array_equal(found.solved, numbers > 0)
    np.testing.assert_array_equal(found.unsolvable, numbers == 0)


def test_a_broken_network_changes_no_status():
    puzzles, numbers = puzzles_of_all_kinds(10, MIDDLE)
    model = small_ldt(MIDDLE).eval()
    with torch.no_grad():
        model.network.softmax_head.bias.fill_(torch.nan)
    rule = SearchRule(rounds=10_000, propagate=True, call_depth=None)
    found = run_search(model, puzzles, accept_of(MIDDLE), task_of(MIDDLE).units(), rule, 7)
    assert found.rows.sum() > 0
    np.testing.assert_array_equal(found.solved, numbers > 0)
    np.testing.assert_array_equal(found.unsolvable, numbers == 0)


def test_no_puzzles_take_no_calls():
    found = run(np.zeros((0, 36), np.int64), MIDDLE, record=True)
    assert (len(found.solved), found.calls, found.boards) == (0, 0, [])


def test_a_task_without_units_is_refused():
    with pytest.raises(UserError, match=r"propagate=true: the task of these puzzles does not say.*Task\.units"):
        run_search(small_ldt().eval(), boards(1)[0], accept_of(SMALL), (), SearchRule(propagate=True), 1)
