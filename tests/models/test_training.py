"""Training steps: accumulation against one batch, resuming against no interruption, rates and clipping by formula."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import models.inner
from models.acceleration import Acceleration, accelerate
from models.act import draw_min_steps
from models.layers import recomputed
from models.losses import ACTLossHead
from models.training import TrainState
from tests.models.small import ARCHITECTURES, double_precision, set_q, small_batch, small_model, spread_q, train_state
from tests.ranks import on_two_ranks
from tests.runs import different
from utils.checkpoint import (
    load_train_state,
    load_weights,
    save_train_state,
    save_weights,
    train_state_path,
    weights_path,
)
from utils.distributed import Ranks
from utils.errors import UserError
from utils.machine import choose_machine
from utils.optimizers import AdamATan2

BATCH, TOTAL_STEPS = 8, 20
TABLE = "model.inner.puzzle_emb.weights"
SETTINGS: dict[str, Any] = {
    "global_batch_size": BATCH,
    "seed": 3,
    "lr": 0.01,
    "lr_min_ratio": 0.1,
    "lr_warmup_steps": 4,
    "beta1": 0.9,
    "beta2": 0.95,
    "weight_decay": 0.1,
    "puzzle_emb_lr": 0.02,
    "puzzle_emb_weight_decay": 0.1,
}


def head_of(architecture: str = "trm", **overrides: object) -> ACTLossHead:
    """A model whose slots halt at different steps."""
    settings: dict[str, Any] = {"halt_exploration_prob": 0.5, **overrides}
    return ACTLossHead(spread_q(small_model(architecture, **settings)))


def state_of(head: ACTLossHead | None = None, ranks: Ranks | None = None, **settings: Any) -> TrainState:
    """A training state. A head that is given must recompute if activation_checkpointing says so."""
    if head is None:
        head = head_of(recompute=settings.get("activation_checkpointing", False))
    return train_state(head, {**SETTINGS, **settings}, ranks or Ranks(), TOTAL_STEPS)


def train(state: TrainState, first: int, last: int) -> list[dict[str, float]]:
    """The steps first..last, each on its batch."""
    size = state.local_batch_size
    rows = slice(state.ranks.rank * size, (state.ranks.rank + 1) * size)
    return [
        state.train_step({name: x[rows] for name, x in small_batch(BATCH, seed=step).items()})
        for step in range(first, last + 1)
    ]


def tensors(state: TrainState) -> dict[str, Tensor]:
    """All that training changes."""
    found = {name: value.detach().clone() for name, value in state.head.state_dict().items()}
    if state.ema is not None:
        found |= {f"average of {name}": value.clone() for name, value in state.ema.shadow.items()}
    for name, parameter in state.parameters.items():
        for key, value in state.dense.state[parameter].items() if state.dense is not None else ():
            found[f"{key} of {name}"] = torch.as_tensor(value).clone()
    whole = state.state_dict()["carry"]
    return found | whole["states"] | whole["current_data"] | {key: whole[key] for key in ("steps", "halted")}


# -- accumulation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_gradients_are_those_of_one_batch(architecture: str, parts: int):
    settings = {"optimizer": "adamw", "ema": True, "ema_rate": 0.5, "grad_clip_norm": 1.0}
    with double_precision():
        whole, split = (state_of(head_of(architecture), grad_accum_steps=n, **settings) for n in (1, parts))
        for one, other in zip(train(whole, 1, 6), train(split, 1, 6), strict=True):
            assert other == pytest.approx(one, rel=1e-6, abs=1e-9)
    expected, found = tensors(whole), tensors(split)
    assert set(found) == set(expected)
    assert {value.dtype for value in expected.values() if value.is_floating_point()} == {torch.float64}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")
    assert len(split.carries) == parts


def train_on_two(rank: int, folder: str) -> None:
    state = state_of(ranks=Ranks(rank, 2), grad_accum_steps=2, optimizer="adamw", activation_checkpointing=True)
    train(state, 1, 4)
    expected = torch.load(Path(folder) / "expected.pt")
    for name, value in state.head.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.thorough
def test_two_processes_with_micro_batches_equal_one(tmp_path: Path):
    state = state_of(optimizer="adamw")
    train(state, 1, 4)
    torch.save(state.head.state_dict(), tmp_path / "expected.pt")
    on_two_ranks(train_on_two, tmp_path)


# -- activation checkpointing ------------------------------------------------------------------------------------------


def same_steps(one: TrainState, other: TrainState, steps: int) -> None:
    """Both make the same steps, bit by bit."""
    assert train(other, 1, steps) == train(one, 1, steps)
    expected, found = tensors(one), tensors(other)
    assert set(found) == set(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "trm_mlp"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputed_activations_change_no_bit(architecture: str, dtype: str):
    options: dict[str, Any] = {"forward_dtype": dtype, "L_layers": 2, "H_layers": 2}
    if architecture == "trm_mlp":
        architecture = "trm"
        options |= {"mlp_t": True, "pos_encodings": "none"}
    one, other = (
        state_of(head_of(architecture, recompute=flag, **options), grad_accum_steps=2, optimizer="adamw")
        for flag in (False, True)
    )
    same_steps(one, other, 3)


@pytest.mark.thorough
def test_recomputation_uses_the_compiled_graphs_that_there_are():
    graphs: list[int] = []
    states: list[TrainState] = []
    for flag in (False, True):
        torch._dynamo.reset()
        counters.clear()
        states.append(state_of(head_of(forward_dtype="bfloat16", recompute=flag), optimizer="adamw"))
        machine = choose_machine("cpu", "bfloat16", compile=True)
        states[-1].use_fast_update(accelerate(states[-1].head.model, machine))
        for step in (1, 2, 3):
            train(states[-1], step, step)
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [2] * 6  # the block with gradient and without
    expected, found = tensors(states[0]), tensors(states[1])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def bytes_kept(state: TrainState) -> int:
    """Bytes of the tensors that a step keeps for its backward pass, besides weights and their copies."""
    weights = {size for p in state.parameters.values() for size in (p.shape, p.shape[::-1])}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.shape not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        train(state, 1, 1)
    return sum(kept.values())


@pytest.mark.thorough
@pytest.mark.parametrize("mlp_t", [False, True])
def test_little_is_kept_of_a_recursion_of_published_shape(mlp_t: bool):
    options: dict[str, Any] = {"hidden_size": 512, "num_heads": 8, "L_layers": 2, "H_cycles": 1, "L_cycles": 6}
    options |= {"seq_len": 6, "puzzle_emb_ndim": 512 * 16, "puzzle_emb_len": 91, "forward_dtype": "float32"}
    options |= {"mlp_t": mlp_t, "pos_encodings": "none" if mlp_t else "rope"}
    usual, less = (
        bytes_kept(state_of(head_of(**options, recompute=flag), global_batch_size=BATCH)) for flag in (False, True)
    )
    # 14 uses of a layer, each with one latent [batch, 97, 512] in fp32, and a few around the recursion
    latent = BATCH * 97 * 512 * 4
    assert 14 * latent <= less <= 20 * latent
    assert usual >= 15 * less


def test_only_passes_with_gradient_are_recomputed(monkeypatch: pytest.MonkeyPatch):
    calls: list[bool] = []

    def spy(module: Any, *inputs: Any) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return recomputed(module, *inputs)

    monkeypatch.setattr(models.inner, "recomputed", spy)
    state = state_of(head_of(H_cycles=3, L_cycles=2, L_layers=1, recompute=True))
    train(state, 1, 1)
    assert calls == [True] * 3  # of nine
    with torch.no_grad():
        state.head(state.carries[0], small_batch(BATCH))
    assert len(calls) == 3


def test_a_resumed_run_may_recompute_or_not():
    one, other = state_of(activation_checkpointing=False), state_of(activation_checkpointing=True)
    train(one, 1, 3)
    assert set(other.head.state_dict()) == set(one.head.state_dict())
    other.head.load_state_dict(one.head.state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert train(other, 4, 6) == train(one, 4, 6)
    expected, found = tensors(one), tensors(other)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


# -- what is trained ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_frozen_weights_leave_the_puzzle_table_alone_to_be_trained(architecture: str):
    state = state_of(head_of(architecture), freeze_weights=True, ema=True)
    before = {name: value.clone() for name, value in state.head.state_dict().items()}
    metrics = train(state, 1, 3)
    changed = {name for name, value in state.head.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {TABLE}
    assert metrics[0]["train/lr"] == pytest.approx(0.02 / 4)  # that of the table
    # and back from a checkpoint
    other = state_of(head_of(architecture), freeze_weights=True, ema=True)
    other.head.load_state_dict(state.head.state_dict())
    other.load_state_dict(state.state_dict())
    assert train(other, 4, 5) == train(state, 4, 5)
    assert torch.equal(other.head.state_dict()[TABLE], state.head.state_dict()[TABLE])


def test_frozen_weights_without_a_table_leave_nothing():
    with pytest.raises(UserError, match="freeze_weights=true leaves nothing to train"):
        state_of(head_of(puzzle_emb_ndim=0), freeze_weights=True)


def test_without_freezing_everything_is_trained():
    state = state_of()
    before = {name: value.clone() for name, value in state.head.state_dict().items()}
    train(state, 1, 3)
    same = {name for name, value in state.head.state_dict().items() if torch.equal(value, before[name])}
    assert same == {"model.inner.H_init", "model.inner.L_init"}


@pytest.mark.thorough
def test_training_learns_a_batch_by_heart():
    """At a rate that falls to nothing: at a constant one the steps, near a sign, never settle."""
    head = head_of(halt_max_steps=2, halt_exploration_prob=0.0)
    state = state_of(head, lr_warmup_steps=0, lr_min_ratio=0.02, weight_decay=0.0, puzzle_emb_weight_decay=0.0)
    state.total_steps = 300
    batch = small_batch(BATCH)
    metrics = [state.train_step(batch) for _ in range(state.total_steps)]
    assert metrics[0]["train/exact_accuracy"] == 0
    assert metrics[-1]["train/exact_accuracy"] == 1
    assert metrics[-1]["train/lm_loss"] < 0.1 * metrics[0]["train/lm_loss"]


# -- a resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["trm", "hrm", "trm_hier6"])
@pytest.mark.parametrize("optimizer", ["adam_atan2", "adamw"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_resumed_run_is_the_same_bit_by_bit(tmp_path: Path, architecture: str, optimizer: str, parts: int):
    settings: dict[str, Any] = {"optimizer": optimizer, "grad_accum_steps": parts, "ema": True, "ema_rate": 0.9}
    state = state_of(head_of(architecture), **settings)
    train(state, 1, 4)
    with state.averaged():
        save_weights(tmp_path, 4, state.head)
    save_train_state(tmp_path, 4, state.state_dict(), keep=1)
    halted = torch.cat([carry.halted for carry in state.carries])
    assert set(halted.tolist()) == {True, False}  # some slots are in the middle of an example

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        other_head = head_of(architecture)
        for parameter in other_head.parameters():
            torch.nn.init.normal_(parameter)
    resumed = state_of(other_head, **settings)
    resumed.head.load_state_dict(load_weights(weights_path(tmp_path, 4)))
    resumed.load_state_dict(load_train_state(train_state_path(tmp_path, 4)))
    assert resumed.step == 4
    assert train(resumed, 5, 10) == train(state, 5, 10)
    expected, found = tensors(state), tensors(resumed)
    assert set(found) == set(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2), (2, 1)])
def test_a_run_may_go_on_with_other_micro_batches(before: int, after: int):
    state, other = state_of(grad_accum_steps=before), state_of(grad_accum_steps=after)
    train(state, 1, 5)
    other.head.load_state_dict(state.head.state_dict())
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    for one, two in zip(train(state, 6, 8), train(other, 6, 8), strict=True):
        assert two == pytest.approx(one, rel=1e-4)


def test_a_state_before_the_first_step_can_be_restored():
    state, other = state_of(ema=True), state_of(ema=True)
    other.load_state_dict(state.state_dict())
    assert other.carries == []
    assert train(other, 1, 2) == train(state, 1, 2)


# -- exploration -------------------------------------------------------------------------------------------------------


def still() -> dict[str, Any]:
    """Settings with which nothing moves."""
    return {"lr": 0.0, "puzzle_emb_lr": 0.0, "weight_decay": 0.0}


@pytest.mark.parametrize("ranks", [2, 4])
def test_exploration_does_not_depend_on_the_number_of_ranks(ranks: int):
    def head() -> ACTLossHead:
        # every slot wants to halt, so exploration alone decides when it does
        return ACTLossHead(set_q(small_model(halt_max_steps=6, halt_exploration_prob=0.6), q_halt=1.0))

    whole = state_of(head(), **still())
    parts = [state_of(head(), Ranks(rank, ranks), **still()) for rank in range(ranks)]
    seen = set()
    for step in range(1, 9):
        for state in (whole, *parts):
            train(state, step, step)
        for name in ("halted", "steps"):
            expected = getattr(whole.carries[0], name)
            assert torch.equal(torch.cat([getattr(part.carries[0], name) for part in parts]), expected)
            seen |= {(name, value) for value in expected.tolist()}
    assert {("halted", True), ("halted", False), ("steps", 1), ("steps", 2), ("steps", 3)} <= seen


def test_exploration_is_drawn_from_seed_and_step():
    """The minimum steps handed to the model are those of a generator of their own, whatever was drawn before."""
    drawn: list[Tensor] = []

    class Spy(ACTLossHead):
        def forward(
            self, carry: Any, batch: Any, return_keys: Any = (), min_steps: Any = None, row_seeds: Any = None
        ) -> Any:
            drawn.append(min_steps)
            return super().forward(carry, batch, return_keys, min_steps)

    for _ in range(2):
        train(state_of(Spy(head_of().model)), 1, 4)
        torch.rand(7)  # the global generator plays no part
    expected = []
    for step in range(1, 5):
        seed = int(np.random.SeedSequence((3, 4, step)).generate_state(1, np.uint64)[0]) >> 1
        expected.append(draw_min_steps(BATCH, 4, 0.5, torch.Generator().manual_seed(seed)))
    assert all(torch.equal(one, other) for one, other in zip(drawn, expected * 2, strict=True))
    assert len({tuple(row.tolist()) for row in expected}) == 4


# -- the optimizer's pass ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("has_operator", [False, True])
@pytest.mark.parametrize("optimizer", ["adam_atan2", "adamw"])
def test_which_pass_the_optimizer_takes(compiled: bool, has_operator: bool, optimizer: str):
    """An operator before a compiled pass before a plain one; averages are taken once, in the pass or after it."""

    def operator(p: Any, gradients: Any, m: Any, v: Any, averages: list[Tensor], *scalars: float) -> None:
        for average in averages:
            average.fill_(7.0)

    update = operator if has_operator else None
    state = state_of(optimizer=optimizer, ema=True, ema_rate=0.5)
    state.use_fast_update(Acceleration(compiled, "", has_operator, "", update))
    if isinstance(state.dense, AdamATan2):
        assert (state.dense._one_pass is not None) == (compiled or has_operator)
        assert (state.dense._one_pass is operator) == has_operator
    if compiled and not has_operator and optimizer == "adam_atan2":
        return  # its numbers: tests/utils/test_optimizers.py
    train(state, 1, 1)
    assert state.ema is not None
    sevens = [bool((average == 7.0).all()) for average in state.ema.shadow.values()]
    assert sevens == [has_operator and optimizer == "adam_atan2"] * len(sevens)


# -- rates, clipping, metrics ------------------------------------------------------------------------------------------


def test_both_optimizers_follow_the_schedule():
    state = state_of()
    assert state.dense is not None
    assert state.sparse is not None
    for step in range(1, TOTAL_STEPS + 1):
        before = state.head.state_dict()[TABLE].clone()
        (metrics,) = train(state, step, step)
        if step < 4:
            factor = step / 4
        else:
            factor = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 4) / (TOTAL_STEPS - 4))) / 2
        assert metrics["train/lr"] == state.dense.param_groups[0]["lr"] == pytest.approx(0.01 * factor)
        rate = state.sparse.param_groups[0]["lr"]
        assert rate == pytest.approx(0.02 * factor)
        # which the table has moved by: decay, then the rate up or down (or a row not in the batch, not at all)
        moved = state.head.state_dict()[TABLE] - before * (1 - rate * 0.1)
        untouched = (state.head.state_dict()[TABLE] == before).all(1)
        torch.testing.assert_close(moved[~untouched].abs(), torch.full_like(moved[~untouched], rate))


def gradients_of(state: TrainState) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in state.parameters.items() if p.grad is not None}


@pytest.mark.parametrize("limit", [0.01, 0.5, 1e6])
def test_the_gradient_is_clipped_to_its_norm(limit: float, monkeypatch: pytest.MonkeyPatch):
    plain, clipped = state_of(), state_of(grad_clip_norm=limit)
    gradients: list[dict[str, Tensor]] = []
    for state in (plain, clipped):
        assert state.dense is not None

        def keep(state: TrainState = state) -> None:
            gradients.append(gradients_of(state))

        monkeypatch.setattr(state.dense, "step", keep)
    (without,), (metrics,) = train(plain, 1, 1), train(clipped, 1, 1)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients[0].values()))
    assert metrics["optim/grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert "optim/grad_norm" not in without
    factor = min(1.0, limit / norm)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient * factor, rtol=1e-4, atol=0)
    assert torch.equal(plain.head.state_dict()[TABLE], clipped.head.state_dict()[TABLE])


def test_gradients_are_those_of_the_loss_over_the_batch_size(monkeypatch: pytest.MonkeyPatch):
    state, head = state_of(grad_accum_steps=2), head_of()
    assert state.dense is not None
    gradients: dict[str, Tensor] = {}
    monkeypatch.setattr(state.dense, "step", lambda: gradients.update(gradients_of(state)))
    train(state, 1, 1)
    batch = small_batch(BATCH, seed=1)
    _, loss, _, _, _ = head(carry=head.initial_carry(batch), batch=batch)
    (loss / BATCH).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_metrics_are_means_over_the_slots_that_halted():
    state, head = state_of(**still()), head_of()
    carry = head.initial_carry(small_batch(BATCH))
    counts = set()
    for step in range(1, 8):
        (metrics,) = train(state, step, step)
        draws = state._draws(torch.device("cpu"))
        carry, _, sums, _, _ = head(carry=carry, batch=small_batch(BATCH, seed=step), **draws)
        count = float(sums.pop("count"))
        expected = {"train/count": count, "train/lr": 0.0}
        for name, value in sums.items():
            if name.endswith("loss"):
                expected[f"train/{name}"] = float(value) / BATCH
            elif count:
                expected[f"train/{name}"] = float(value) / count
        assert metrics == pytest.approx(expected)
        counts.add(count)
    assert len(counts) > 1


def test_a_saved_state_does_not_change_when_training_goes_on():
    state = state_of(ema=True)
    train(state, 1, 2)
    saved = state.state_dict()
    before = copy.deepcopy(saved)
    train(state, 3, 4)
    assert different(before, saved) == []
