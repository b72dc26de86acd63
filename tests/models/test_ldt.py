"""The LDT in the training loop: the pool, its draws, resuming, and the single chain that evaluations follow."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.act import Carry
from models.factory import check_arch, count_parameters, make_head
from models.flops import flops_per_example
from models.lattice.lattice import deduce, given_cells, in_conflict
from models.lattice.loss_head import LatticeLossHead
from models.lattice.network import HeadLogits
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from models.training import TrainState
from tests.models.small import train_state
from tests.models.small_lattice import (
    CONFIG,
    MIDDLE,
    SMALL,
    boards,
    one_hot,
    small_batch,
    small_head,
    small_ldt,
    tokens_of,
)
from utils.config import validate
from utils.distributed import Ranks
from utils.errors import UserError
from utils.settings import ArchConfig

BATCH, STEPS = 8, 20
SETTINGS: dict[str, Any] = {
    "global_batch_size": BATCH,
    "seed": 3,
    "optimizer": "adamw",
    "lr": 0.01,
    "lr_warmup_steps": 4,
    "grad_clip_norm": 1.0,
}
ARCH = {
    "name": "recursive_reasoning.ldt@LatticeDeductionTransformer",
    "loss": {"name": "lattice.loss_head@LatticeLossHead", "loss_type": "softmax_cross_entropy"},
}


def state_of(head: LatticeLossHead | None = None, ranks: Ranks | None = None, **settings: Any) -> TrainState:
    return train_state(head or small_head(), {**SETTINGS, **settings}, ranks or Ranks(), STEPS)


def train(state: TrainState, first: int, last: int) -> list[dict[str, float]]:
    """The steps first..last, each on its batch."""
    size = state.local_batch_size
    rows = slice(state.ranks.rank * size, (state.ranks.rank + 1) * size)
    batches = (small_batch(BATCH, seed=step) for step in range(first, last + 1))
    return [state.train_step({name: x[rows] for name, x in batch.items()}) for batch in batches]


def all_states(state: TrainState) -> dict[str, Tensor]:
    """The whole carry by name."""
    whole = state.state_dict()["carry"]
    return whole["states"] | whole["current_data"] | {key: whole[key] for key in ("steps", "halted")}


# -- the model ---------------------------------------------------------------------------------------------------------


def test_the_published_size():
    with torch.device("meta"):
        head = make_head(validate(ArchConfig, ARCH), 11, 81)
    assert count_parameters(head) == 799_635


@pytest.mark.parametrize(
    ("vocab_size", "seq_len"),
    [(11, 80), (12, 81), (6, 900), (5, 16)],
)
def test_data_that_are_no_sudoku_are_refused(vocab_size: int, seq_len: int):
    with pytest.raises(UserError, match="needs to know which candidates"):
        LatticeDeductionTransformer({**CONFIG, "vocab_size": vocab_size, "seq_len": seq_len})


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ({**ARCH, "loss": {**ARCH["loss"], "name": "losses@ACTLossHead"}}, "does not fit"),
        ({**ARCH, "name": "recursive_reasoning.trm@TinyRecursiveModel"}, "does not fit"),
        ({**ARCH, "num_heads": 3}, "num_heads 3 does not divide hidden_size 128"),
        ({**ARCH, "hidden_size": 24, "pos_encodings": "rope"}, "a multiple of 4"),
        ({**ARCH, "bare_share": 0.9}, "more than 1 together"),
    ],
)
def test_settings_that_do_not_go_together(arch: dict[str, Any], expected: str):
    with pytest.raises(UserError, match=expected):
        check_arch(validate(ArchConfig, arch))


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_recomputing_changes_nothing(positions: str):
    found = []
    for recompute in (False, True):
        state = state_of(small_head(pos_encodings=positions, recompute=recompute, dropout=0.1))
        found.append((train(state, 1, 3), state.head.state_dict()))
    (plain, weights), (recomputed, other) = found
    assert recomputed == plain
    for name, value in weights.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0)


def test_bfloat16_is_close_to_float32():
    tokens = torch.from_numpy(boards(4, MIDDLE)[0])
    plain, half = (small_ldt(MIDDLE, forward_dtype=dtype) for dtype in ("float32", "bfloat16"))
    expected, found = (model.network(model.lattice_of(tokens)) for model in (plain, half))
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        assert 0 < (one - other).abs().max() < 0.05 * one.abs().max()


def test_fewer_loops_give_what_training_sees_after_them():
    network, lattice = small_ldt(n_loops=4).eval().network, torch.rand(3, 16, 4) < 0.5
    all_loops = network(lattice)
    for loops in (1, 3, 4, None):
        for found, known in zip(network.last(lattice, loops=loops), all_loops, strict=True):
            torch.testing.assert_close(found, known[(loops or 4) - 1])


def test_operations_are_counted():
    config = validate(ArchConfig, {**ARCH, **CONFIG})
    once = flops_per_example(config, 6, 16)
    more = flops_per_example(validate(ArchConfig, {**ARCH, **CONFIG, "n_loops": 4}), 6, 16)
    assert 1.8 < more / once < 2


# -- the pool ----------------------------------------------------------------------------------------------------------


def pool_of(head: LatticeLossHead, steps: int = 1) -> Carry:
    """The pool of a head after some steps; the weights do not change."""
    carry = head.initial_carry(small_batch(BATCH))
    for step in range(steps):
        seeds = torch.arange(BATCH) + 100 * step
        carry, *_ = head(carry, small_batch(BATCH, seed=step), row_seeds=seeds)
    return carry


def test_the_first_step_fills_every_slot():
    head = small_head(bare_share=1.0, wrong_share=0.0)
    carry = pool_of(head)
    batch = small_batch(BATCH)
    puzzle = head.model.lattice_of(batch["inputs"])
    for name in ("lattice", "puzzle"):
        assert torch.equal(carry.states[name], puzzle)
    assert torch.equal(carry.states["alpha"], one_hot(batch["labels"], SMALL.side))
    assert not carry.steps.any()
    assert not carry.halted.any()


def test_lattices_only_lose_candidates_until_they_are_replaced():
    head = small_head(halt_max_steps=100)
    carry, kept = pool_of(head), 0
    for step in range(1, 8):
        before = carry
        carry, _, metrics, _, _ = head(carry, small_batch(BATCH, seed=step), row_seeds=torch.arange(BATCH) + step)
        stays = carry.steps > 0
        assert int(metrics["count"]) == int((~stays).sum())
        lost = carry.states["lattice"] & ~before.states["lattice"]
        assert not lost[stays].any()
        given = given_cells(before.states["puzzle"])
        assert torch.equal(carry.states["lattice"][stays][given[stays]], before.states["lattice"][stays][given[stays]])
        assert torch.equal(carry.steps[stays], before.steps[stays] + 1)
        kept += int(stays.sum())
    assert kept > BATCH


class Scripted(LatticeDeductionTransformer):
    """Finds what the test says: killed candidates by `keep` logits, and conflicts."""

    def __init__(self, config: dict[str, Any], keep: Tensor, conflict: Tensor):
        super().__init__(config)
        self.keep, self.conflict = keep, conflict

    def step(self, lattice: Tensor, given: Tensor, choose: Any, *args: Any, **options: Any) -> Any:
        logits = HeadLogits(self.keep, self.keep, self.conflict)
        return deduce(lattice, given, logits, 0.1, 0.5), logits


def test_what_leaves_the_pool():
    """Solved, rightly in conflict, or too old; a wrong alarm and an undetected conflict stay."""
    puzzles, solutions = (torch.from_numpy(tokens[:1]).expand(6, -1) for tokens in boards(1))
    right = one_hot(solutions, SMALL.side)
    wrong = right.roll(1, dims=-1)
    keep = torch.where(torch.stack([right[0], right[0], wrong[0], wrong[0], *right[:2] | True]), 9.0, -9.0)
    alarm = torch.tensor([-9.0, 9.0, 9.0, -9.0, -9.0, -9.0])
    config = {**CONFIG, "vocab_size": 6, "seq_len": 16, "halt_max_steps": 5}
    model = Scripted(config, keep, alarm)
    head = LatticeLossHead(model, "softmax_cross_entropy")
    puzzle = model.lattice_of(puzzles)
    data = {"inputs": puzzles, "labels": solutions, "puzzle_identifiers": torch.zeros(6)}
    steps = torch.tensor([0, 0, 0, 0, 5, 4], dtype=torch.int32)
    carry = Carry({"lattice": puzzle, "puzzle": puzzle, "alpha": right}, steps, torch.zeros(6, dtype=torch.bool), data)
    moved, metrics = head.move(carry, torch.arange(6))
    # every cell but the given ones has a wrong value in rows 2 and 3, so these are in conflict with the solution
    asked = torch.ones(6, 16, dtype=torch.bool)
    assert in_conflict(moved.states["lattice"], right, asked).tolist() == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    undetected = bool((moved.states["lattice"][3].sum(-1) > 0).all())
    assert moved.halted.tolist() == [True, False, True, undetected, True, False]
    assert int(metrics["count"]) == 3 + undetected
    assert int(metrics["exact_accuracy"]) == 1
    assert int(metrics["accuracy"]) == 1 + undetected
    assert moved.steps.tolist() == [1, 1, 1, 1, 6, 5]


def test_the_loss_is_the_weighted_sum_of_its_parts():
    head = small_head(dropout=0.0, digit_loss_weight=0.3, conflict_loss_weight=0.7)
    batch = small_batch(BATCH)
    _, loss, metrics, _, _ = head(head.initial_carry(batch), batch, row_seeds=torch.arange(BATCH))
    expected = metrics["keep_loss"] + 0.3 * metrics["lm_loss"] + 0.7 * metrics["conflict_loss"]
    torch.testing.assert_close(loss.detach(), expected)


def test_it_learns_small_sudokus():
    head = small_head(hidden_size=32, L_layers=2, dropout=0.0, halt_max_steps=20)
    state = train_state(head, {**SETTINGS, "global_batch_size": 32, "lr": 5e-3}, Ranks(), 100)
    metrics = [state.train_step(small_batch(32, seed=step)) for step in range(100)]
    losses = [step["train/lm_loss"] for step in metrics]
    assert np.mean(losses[-10:]) < 0.6 * losses[0]
    solved = [step.get("train/exact_accuracy", 0.0) for step in metrics]
    assert np.mean(solved[-20:]) > np.mean(solved[:20]) + 0.05


# -- draws and resuming ------------------------------------------------------------------------------------------------


def test_a_resumed_run_is_the_same_run():
    whole = state_of(small_head(dropout=0.2))
    expected = train(whole, 1, 8)
    first = state_of(small_head(dropout=0.2))
    assert train(first, 1, 4) == expected[:4]
    weights, saved = copy.deepcopy(first.head.state_dict()), copy.deepcopy(first.state_dict())
    torch.rand(5)  # the state of torch's generator plays no part
    second = state_of(small_head(dropout=0.2))
    second.head.load_state_dict(weights)
    second.load_state_dict(saved)
    assert train(second, 5, 8) == expected[4:]
    for name, value in all_states(whole).items():
        assert torch.equal(all_states(second)[name], value), name


def test_the_pool_does_not_depend_on_the_number_of_ranks():
    """With weights that do not change and without dropout, which depends on the rank."""
    still: dict[str, Any] = {"lr": 0.0, "weight_decay": 0.0}
    whole = state_of(small_head(dropout=0.0), **still)
    parts = [state_of(small_head(dropout=0.0), Ranks(rank, 2), **still) for rank in range(2)]
    for step in range(1, 7):
        for state in (whole, *parts):
            train(state, step, step)
    for name, value in whole.carries[0].states.items():
        assert torch.equal(torch.cat([part.carries[0].states[name] for part in parts]), value), name
    assert torch.equal(torch.cat([part.carries[0].steps for part in parts]), whole.carries[0].steps)


def test_a_pool_in_micro_batches_is_the_same_pool():
    still: dict[str, Any] = {"lr": 0.0, "weight_decay": 0.0}
    whole, split = (state_of(small_head(dropout=0.0), grad_accum_steps=parts, **still) for parts in (1, 4))
    train(whole, 1, 5)
    train(split, 1, 5)
    for name, value in all_states(whole).items():
        assert torch.equal(all_states(split)[name], value), name


# -- the single chain of evaluations -----------------------------------------------------------------------------------


def test_a_single_chain_answers_with_tokens_of_its_lattice():
    model = small_ldt(MIDDLE, halt_max_steps=40).eval()
    tokens = torch.from_numpy(boards(5, MIDDLE)[0])
    batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": torch.zeros(5)}
    carry = model.initial_carry(batch)
    by_steps = model.answer_steps(batch, max_steps=6)
    for step in range(1, 7):
        carry, outputs = model(carry, batch, max_steps=6)
        _, other = next(by_steps)
        assert torch.equal(outputs["logits"], other["logits"])
        lattice, answer = carry.states["lattice"], outputs["logits"].argmax(-1)
        assert (answer >= 2).all()
        alive = one_hot(answer, MIDDLE.side) & lattice
        assert torch.equal(alive.any(-1), lattice.any(-1))  # where any candidate is alive, the answer is one
        assert (carry.steps == step).all()
        solved = outputs["q_halt_logits"] > 0
        assert torch.equal(carry.halted, solved | (step == 6))
        assert torch.equal(tokens_of(lattice)[given_cells(model.lattice_of(tokens))], tokens[tokens > 1])


def test_a_halted_slot_takes_its_next_example():
    model = small_ldt().eval()
    batch, other = small_batch(4, seed=1), small_batch(4, seed=2)
    carry, _ = model(model.initial_carry(batch), batch, max_steps=9)
    halted = torch.tensor([True, False, True, False])
    carry, _ = model(Carry(carry.states, carry.steps, halted, carry.current_data), other, max_steps=9)
    assert carry.steps.tolist() == [1, 2, 1, 2]
    for name in ("inputs", "labels"):
        expected = torch.where(halted[:, None], other[name], batch[name])
        assert torch.equal(carry.current_data[name], expected)
