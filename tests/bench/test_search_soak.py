"""The comparison of many searches with the exact solver sees what it is there to see."""

from dataclasses import replace

import numpy as np
import pytest

from bench.search_soak import Flags, accept_of, compare, main, model_of, puzzles_of_kinds
from dataset.tasks.sudoku.solver import count_solutions
from dataset.tasks.sudoku.task import Sudoku
from evaluators.reasoner import SYSTEMATIC
from evaluators.searches import run_search
from tests.models.small_lattice import SMALL

TASK = Sudoku(SMALL.cells, SMALL.vocab_size)


def test_puzzles_are_of_their_kinds():
    puzzles = puzzles_of_kinds(SMALL, ["one", "several", "none"], 60, np.random.default_rng(0)) - 1
    numbers = np.array([count_solutions(puzzle, SMALL) for puzzle in puzzles]).reshape(20, 3)
    assert (numbers[:, 0] == 1).all()
    assert (numbers[:, 1] >= 1).all()
    assert (numbers[:, 1] == 2).sum() > 10
    assert (numbers[:, 2] == 0).all()


def test_a_run_without_mistakes_ends_well(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(Flags(searches=60, sizes=["2x2", "2x3"]))
    assert end.value.code == 0
    assert "wrong 0, contradicts the exact solver 0" in capsys.readouterr().out


def test_mistakes_are_counted():
    puzzles = puzzles_of_kinds(SMALL, ["one", "none"], 20, np.random.default_rng(0))
    found = run_search(model_of(SMALL, None), puzzles, accept_of(TASK), TASK.units(), SYSTEMATIC, 8)
    assert compare(puzzles, found, TASK)["wrong"] == 0
    other = replace(found, answers=np.roll(found.answers, 2, 0))
    assert compare(puzzles, other, TASK)["wrong"] >= 8
    swapped = replace(found, solved=np.zeros(20, np.bool_), unsolvable=found.solved)
    assert compare(puzzles, swapped, TASK)["contradicts the exact solver"] == 10
