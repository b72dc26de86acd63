"""Search with an LDT: no wrong board, every puzzle leaves its slot, and the same seed gives the same search."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.tasks.sudoku.rules import Box
from dataset.tasks.sudoku.task import Sudoku
from evaluators.search import Accept, SearchResult, SearchRule, search
from models.lattice.lattice import Deduction
from models.lattice.network import HeadLogits
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from tests.models.small_lattice import CONFIG, MIDDLE, SMALL, boards, small_ldt


def accept_of(box: Box) -> Accept:
    task = Sudoku(box.cells, box.vocab_size)
    return lambda inputs, answers: task.check(inputs, answers)["solved"]


def run(model: LatticeDeductionTransformer, inputs: np.ndarray, box: Box, slots: int = 3, **rule: Any) -> SearchResult:
    settings = {"chains": 4, "rounds": 25, **rule}
    return search(model.eval(), inputs, accept_of(box), SearchRule(**settings), slots)


def eager(box: Box) -> LatticeDeductionTransformer:
    """A model that knows nothing and rarely sees a conflict, so that it takes many wrong boards for solved."""
    model = small_ldt(box, kill_threshold=1e-6)
    with torch.no_grad():
        model.network.conflict_head.weight.zero_()
        model.network.conflict_head.bias.fill_(-9.0)
    return model


@pytest.mark.parametrize("box", [SMALL, MIDDLE], ids=str)
def test_a_solved_board_obeys_the_rules_and_keeps_the_clues(box: Box):
    puzzles, solutions = boards(40, box, min_clues=box.cells - 3)
    result = run(eager(box), puzzles, box, rounds=60)
    assert result.solved.sum() > 0
    assert result.rejected > 50
    assert not result.solved.all()
    np.testing.assert_array_equal(result.answers[result.solved], solutions[result.solved])
    assert not result.answers[~result.solved].any()
    assert (result.rounds[~result.solved] == 60).all()
    assert (result.rounds >= 1).all()


class KnowsAll(LatticeDeductionTransformer):
    """Kills every candidate that is not in the solution of the puzzle; conflicts are given by the test."""

    def __init__(self, box: Box, solutions: np.ndarray):
        super().__init__({**CONFIG, "vocab_size": box.vocab_size, "seq_len": box.cells})
        self.solutions = torch.from_numpy(solutions) - 2

    def step(self, lattice: Tensor, given: Tensor, *args: Any, **options: Any) -> tuple[Deduction, HeadLogits]:
        alive = lattice.flatten(2)
        matches = torch.stack([alive.gather(2, s.expand(len(alive), -1)[:, :, None]).squeeze(2).all(1)
                               for s in self.solutions])  # fmt: skip
        known = self.solutions[matches.long().argmax(0)]
        new = lattice & (torch.arange(lattice.shape[-1]) == known[:, :, None])
        conflict = ~lattice.flatten(1).any(1)
        none = torch.zeros_like(conflict)
        return Deduction(new, lattice & ~new, conflict, ~conflict, none), HeadLogits(new.float(), new.float(), none)


@pytest.mark.parametrize("slots", [1, 3, 50])
def test_puzzles_stream_through_the_slots(slots: int):
    puzzles, solutions = boards(20, MIDDLE)
    left = []
    result = search(
        KnowsAll(MIDDLE, solutions), puzzles, accept_of(MIDDLE), SearchRule(2, 5), slots,
        report=lambda now, solved: left.append((now, solved)),
    )  # fmt: skip
    assert result.solved.all()
    np.testing.assert_array_equal(result.answers, solutions)
    assert (result.rounds == 1).all()
    assert result.calls == -(-20 // slots)
    assert left[-1] == (20, 20)
    assert not result.restarts.any()


def test_the_time_limit_leaves_puzzles_undecided():
    puzzles, _ = boards(40, MIDDLE)
    result = run(eager(MIDDLE), puzzles, MIDDLE, slots=2, rounds=10**6, seconds=0.2)
    begun = result.rounds > 0
    assert 2 <= begun.sum() < 40
    assert not result.solved[~begun].any()
    assert result.seconds < 5


def test_the_search_is_reproducible():
    puzzles, _ = boards(20, MIDDLE, min_clues=MIDDLE.cells - 3)
    results = []
    for state in (1, 2):
        torch.manual_seed(state)  # torch's generator plays no part
        results.append(run(eager(MIDDLE), puzzles, MIDDLE))
    for name in ("solved", "answers", "rounds", "restarts"):
        np.testing.assert_array_equal(getattr(results[0], name), getattr(results[1], name))
    assert results[0].calls == results[1].calls
