"""Rollouts: the same whatever their batch, the first an ordinary evaluation, and no pass too many."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.tasks import load_task
from dataset.tasks.task import Task
from evaluators.answers import HaltRule
from evaluators.rollouts.run import RolloutRule, roll_out
from evaluators.rollouts.trajectories import Trajectories
from models.losses import ACTLossHead
from tests.evaluators.small_reasoners import SIZES, small_head
from tests.models.small_family import FAMILY, family_model
from utils.errors import UserError

VARIATIONS = ("noise", "start", "views")


def sudoku(count: int = 7) -> tuple[ACTLossHead, Task, list[tuple[np.ndarray, int]]]:
    task = load_task("sudoku").of(*SIZES["sudoku"])
    rng = np.random.default_rng(0)
    return small_head("sudoku").eval(), task, [(task.random_question(rng), 0) for _ in range(count)]


def rolled(head: ACTLossHead, task: Task, puzzles: Any, rule: RolloutRule, rows: int = 64, **more: Any):
    return dict(roll_out(head, task, puzzles, rule, rows, **more))


@pytest.mark.parametrize("vary", VARIATIONS)
def test_rollouts_do_not_depend_on_their_batch(vary: Any):
    head, task, puzzles = sudoku()
    rule = RolloutRule(4, vary, 0.5)
    together, apart = rolled(head, task, puzzles, rule, 100), rolled(head, task, puzzles[::-1], rule, 5)
    assert sorted(together) == sorted(apart) == list(range(7))
    for number, one in together.items():
        other = apart[6 - number]
        assert np.array_equal(one.answers, other.answers)
        assert np.array_equal(one.halted_at, other.halted_at)
        np.testing.assert_allclose(one.halt, other.halt, atol=1e-4)
        np.testing.assert_allclose(one.change, other.change, atol=1e-3)
        # a view of a small board can be the board itself
        assert len({values.tobytes() for values in one.halt}) >= (3 if vary == "views" else 4)


@pytest.mark.parametrize("vary", VARIATIONS)
def test_the_first_rollout_is_an_ordinary_evaluation(vary: Any):
    head, task, puzzles = sudoku()
    found = rolled(head, task, puzzles, RolloutRule(3, vary, 0.5, steps=9))
    data = {
        "inputs": torch.from_numpy(np.stack([tokens for tokens, _ in puzzles])).int(),
        "puzzle_identifiers": torch.zeros(7, dtype=torch.int32),
    }
    before = torch.zeros(0)
    for step, (_, outputs) in enumerate(head.model.answer_steps(data, 9)):
        logits = outputs["logits"]
        for number, one in found.items():
            assert one.answers[0, step].tolist() == logits[number].argmax(-1).tolist()
            assert one.halt[0, step] == pytest.approx(float(outputs["q_halt_logits"][number]), abs=1e-5)
            moved = float((logits[number] - before[number]).norm(dim=-1).mean()) if step else float("nan")
            assert one.change[0, step] == pytest.approx(moved, abs=1e-5, nan_ok=True)
        before = logits


def test_another_seed_gives_other_rollouts():
    head, task, puzzles = sudoku(1)
    first, second, again = (rolled(head, task, puzzles, RolloutRule(3, "noise", 0.5, seed=s))[0] for s in (0, 1, 0))
    assert np.array_equal(first.halt, again.halt)
    assert np.array_equal(first.halt[0], second.halt[0])
    assert (first.halt[1:] != second.halt[1:]).all()


@pytest.mark.parametrize("name", ["sudoku", "maze", "arithmetic"])
def test_what_is_answered_to_a_view_is_turned_back(name: str, monkeypatch: pytest.MonkeyPatch):
    """A model that answers with its question must seem to have seen the puzzle itself."""
    head, task = small_head(name).eval(), load_task(name).of(*SIZES[name])
    seen: list[Tensor] = []

    def echo(states: dict[str, Tensor], data: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        seen.append(data["inputs"])
        logits = torch.nn.functional.one_hot(data["inputs"].long(), task.vocab_size).float()
        halt = torch.zeros(len(logits))
        return states, {"logits": logits, "q_halt_logits": halt, "q_continue_logits": halt}

    monkeypatch.setattr(head.model, "advance", echo)
    rng = np.random.default_rng(1)
    puzzles = [(task.random_question(rng), 0) for _ in range(3)]
    found = rolled(head, task, puzzles, RolloutRule(16, "views"))
    others = {row.numpy().tobytes() for row in seen[0]}
    assert len(others) > 3
    for number, (question, _) in enumerate(puzzles):
        answers = found[number].answers
        kept = name == "arithmetic"  # where the answer to a swapped addition is the same
        assert kept or (answers == question).all()


def test_rollouts_end_when_they_halt_and_others_take_their_place():
    head, task, puzzles = sudoku(12)
    rows: list[int] = []
    advance = head.model.advance

    def counted(states: dict[str, Tensor], data: dict[str, Tensor]) -> Any:
        rows.append(len(data["inputs"]))
        return advance(states, data)

    head.model.advance = counted  # type: ignore[method-assign]
    halting = HaltRule(0.5, unchanged=False)
    whole = rolled(head, task, puzzles, RolloutRule(4, "noise", 0.5, halting=halting), 8)
    assert sum(rows) == 12 * 4 * 6
    rows.clear()
    early = rolled(head, task, puzzles, RolloutRule(4, "noise", 0.5, halting=halting, early_halting=True), 8)
    assert sum(rows) == sum(one.taken.sum() for one in early.values()) < 12 * 4 * 6
    assert max(rows) == 8
    for number, one in early.items():
        other = whole[number]
        assert np.array_equal(one.halted_at, other.halted_at)
        for rollout, halted in enumerate(one.halted_at.tolist()):
            assert one.taken[rollout] == (halted or 6)
            if halted:
                assert np.array_equal(one.answers[rollout, :halted], other.answers[rollout, :halted])
                assert (one.answers[rollout, halted:] == one.answers[rollout, halted - 1]).all()
                assert (one.halt[rollout, halted:] == one.halt[rollout, halted - 1]).all()


def test_a_puzzle_leaves_when_its_answer_is_known():
    head, task, puzzles = sudoku()
    steps = {number: 1 + number % 6 for number in range(7)}

    def known(number: int, found: Trajectories) -> bool:
        assert found.restarts == 2
        return found.steps == steps[number]

    found = rolled(head, task, puzzles, RolloutRule(2, "noise", 0.5), 4, known=known)
    assert {number: one.taken.tolist() for number, one in found.items()} == {n: [s, s] for n, s in steps.items()}


def test_particles_of_one_parent_part_again():
    head, task, puzzles = sudoku(3)
    rule = RolloutRule(6, "noise", 0.5, beta=50.0)  # one parent for all
    found = rolled(head, task, puzzles, rule, 6, resample=True)
    free = rolled(head, task, puzzles, rule, 6)
    for number, one in found.items():
        assert np.array_equal(one.halt[:, 0], free[number].halt[:, 0])
        assert all(len(set(one.halt[:, step].tolist())) == 6 for step in range(6))
        best = one.halt[:, 0].argmax()
        # the first particle has no noise: it goes on as its parent would without noise
        assert one.halt[0, 1] != free[number].halt[0, 1] or best == 0


def test_starts_of_an_architecture_with_random_starts():
    model = family_model("eqr", noise_scale=0.0).eval()
    head, task = ACTLossHead(model), Task(model.config.seq_len, model.config.vocab_size)
    tokens = np.random.default_rng(0).integers(1, task.vocab_size, task.seq_len)
    one = rolled(head, task, [(tokens, 0)], RolloutRule(5, "start", 0.0))[0]
    assert len(set(one.residual().tolist())) == 5
    data = {"inputs": torch.from_numpy(tokens[None]).int(), "puzzle_identifiers": torch.zeros(1, dtype=torch.int32)}
    *_, (_, outputs) = model.answer_steps(data)
    assert one.halt[0, -1] == pytest.approx(float(outputs["q_halt_logits"]), abs=1e-5)


def test_what_cannot_be_done_is_refused():
    head, task, puzzles = sudoku(1)
    plain = Task(*SIZES["sudoku"])
    for own, rule, more, message in (
        (plain, RolloutRule(2, "views"), {}, "no symmetries"),
        (task, RolloutRule(2, "noise", 0.0), {}, "would be the same"),
        (task, RolloutRule(2, "start", 0.0), {}, "would be the same"),
        (task, RolloutRule(2, "views"), {"resample": True}, "Use vary=noise"),
    ):
        with pytest.raises(UserError, match=message):
            rolled(head, own, puzzles, rule, **more)


@pytest.mark.parametrize("kind", FAMILY)
def test_every_architecture_can_be_rolled_out(kind: str):
    """Where noise is a part of the architecture, it is switched off, so that two evaluations can be compared."""
    quiet: dict[str, Any] = {"noise_scale": 0.0} if kind == "eqr" else {}
    model = family_model(kind, **quiet).eval()
    head, task = ACTLossHead(model), Task(model.config.seq_len, model.config.vocab_size)
    puzzles = [(tokens, 0) for tokens in np.random.default_rng(0).integers(1, task.vocab_size, (3, task.seq_len))]
    found = rolled(head, task, puzzles, RolloutRule(3, "noise", 0.5, steps=3), 6)
    data = {
        "inputs": torch.from_numpy(np.stack([tokens for tokens, _ in puzzles])).int(),
        "puzzle_identifiers": torch.zeros(3, dtype=torch.int32),
    }
    for step, (_, outputs) in enumerate(model.answer_steps(data, 3)):
        for number, one in found.items():
            if step < one.taken[0]:  # some architectures end by themselves
                assert one.answers[0, step].tolist() == outputs["logits"][number].argmax(-1).tolist()
    assert any(len({values.tobytes() for values in one.confidence}) == 3 for one in found.values())
