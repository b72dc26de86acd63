"""The methods of bench.search agree with one another, and its figures are those of what was found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.search import (
    Found,
    Measured,
    by_exact_solver,
    by_search,
    clauses_of,
    measure,
    read_puzzles,
    row_of,
    sat_solver,
)
from dataset.tasks.sudoku.task import Sudoku
from evaluators.reasoner import SYSTEMATIC
from tests.models.small_lattice import MIDDLE, boards, small_ldt

TASK = Sudoku(MIDDLE.cells, MIDDLE.vocab_size)


def test_the_clauses_say_what_the_rules_say():
    _, answers = boards(6, MIDDLE)
    clauses = list(clauses_of(TASK))

    def holds(board: np.ndarray) -> bool:
        true = {int(cell * MIDDLE.side + token - 1) for cell, token in enumerate(board)}
        return all(any((literal in true) if literal > 0 else (-literal not in true) for literal in c) for c in clauses)

    for answer in answers:
        assert holds(answer)
        changed = answer.copy()
        changed[[0, 1]] = changed[[1, 0]]
        assert not holds(changed)
        changed[:2] = 1  # open cells
        assert not holds(changed)


@pytest.mark.parametrize("name", ["both", "rules", "exact", "sat"])
def test_every_method_solves(name: str):
    puzzles, answers = boards(6, MIDDLE)
    model, sat = small_ldt(MIDDLE).eval(), sat_solver(TASK)
    if name == "sat" and sat is None:
        pytest.skip("python-sat is not installed")
    without = puzzles[0].copy()
    first, second = np.flatnonzero(without[:6] == 1)[:2]
    without[[first, second]] = 2  # twice the same digit in a row
    for puzzle, answer in [*zip(puzzles, answers, strict=True), (without, None)]:
        if name in ("both", "rules"):
            rule = replace(SYSTEMATIC, call_depth=1 if name == "both" else 0)
            found = by_search(puzzle, model, TASK, rule, 0)
        else:
            found = by_exact_solver(puzzle, TASK) if sat is None or name == "exact" else sat(puzzle)
        assert (found.answer is None) == (answer is None)
        if found.answer is not None and answer is not None:
            np.testing.assert_array_equal(found.answer, answer)


def test_what_is_measured():
    puzzles, answers = boards(4, MIDDLE)
    given = iter([answers[0], answers[0], None, answers[1], answers[3]])  # the first call is for what happens once

    def solve(question: np.ndarray) -> Found:
        return Found(next(given), 5, 0)

    found = list(measure(solve, TASK, puzzles, answers))
    assert [puzzle.solved for puzzle in found] == [True, False, False, True]
    assert [puzzle.wrong for puzzle in found] == [False, False, True, False]
    row = row_of("both", [Measured(True, False, 1.0, 2.0, 4, 0), Measured(False, True, 3.0, 2.0, 6, 3)])
    assert row.startswith("| `both` | 50.0 % | 1 | 2.0000 | 2.9000 | 3.000 | 2.0000 | 5 | 5.0 | 1.5 | 50.0 % |")


def test_puzzles_are_read(tmp_path: Path):
    puzzles, answers = boards(4, MIDDLE)
    written = [("".join(map(str, row - 1)) for row in rows) for rows in (puzzles, answers)]
    lines = [",".join(("x", *pair, "3")) for pair in zip(*written, strict=True)]
    file = tmp_path / "puzzles.csv"
    file.write_text("\n".join(["source,question,answer,rating", *lines]))
    questions, labels = read_puzzles(file, TASK, 3, 1)
    places = np.random.default_rng(1).permutation(4)[:3]
    np.testing.assert_array_equal(questions, puzzles[places])
    np.testing.assert_array_equal(labels, answers[places])
