"""The loss head for text: losses and metrics against loops, training with settled positions, saving within a batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters

from models.acceleration import accelerate
from models.act import Carry
from models.inner import Level
from models.losses import softmax_cross_entropy
from models.text import loss as text_loss
from models.text import model as text_model
from models.text.loss import TextLossHead, weighted_cross_entropy
from models.text.selection import Selections
from models.training import TrainState
from tests.models.small import train_state
from tests.models.small_text import (
    CONFIG,
    HALTING,
    TEXT_ARCHITECTURES,
    set_text_q,
    small_text,
    small_text_head,
    small_text_model,
)
from utils.checkpoint import load_train_state, save_train_state, train_state_path
from utils.constants import IGNORE_LABEL_ID
from utils.distributed import Ranks
from utils.machine import choose_machine

VOCAB = CONFIG["vocab_size"]


# -- the loss by chunks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("all_tokens", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_loss_by_chunks_is_that_of_all_logits(
    chunk: int, all_tokens: bool, smoothing: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(text_loss, "CHUNK_CPU", chunk)
    if all_tokens:  # as on a GPU
        monkeypatch.setattr(text_loss, "_chunks", lambda labelled: torch.arange(len(labelled)).split(chunk))
    generator = torch.Generator().manual_seed(0)
    labels, weights = small_text()["labels"], torch.rand(4, 12, generator=generator)
    found = []
    for by_chunks in (True, False):
        answer = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        table = torch.randn(VOCAB, 16, generator=torch.Generator().manual_seed(2)).requires_grad_()
        if by_chunks:
            loss, losses, right = weighted_cross_entropy(answer, table, labels, weights, smoothing)
        else:
            logits = answer @ table.T
            losses = softmax_cross_entropy(logits, labels, smoothing)
            loss, right = (losses * weights).sum(), logits.argmax(-1) == labels
        (3 * loss).backward()
        assert answer.grad is not None
        assert table.grad is not None
        found.append((loss.detach().float(), losses.detach().float(), answer.grad, table.grad))
        assert right.any()
        found[-1] += (right,)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_no_more_logits_are_made_than_a_chunk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_loss, "CHUNK_CPU", 5)
    sizes, linear = [], F.linear

    def watched(x: Tensor, weight: Tensor) -> Tensor:
        sizes.append(len(x))
        return linear(x, weight)

    monkeypatch.setattr(F, "linear", watched)
    labels = small_text()["labels"]
    weighted_cross_entropy(torch.randn(4, 12, 16), torch.randn(VOCAB, 16), labels, torch.ones(4, 12))
    assert max(sizes) == 5
    assert sum(sizes) == int((labels != IGNORE_LABEL_ID).sum()) < labels.numel()


def test_large_logits_have_finite_losses_and_gradients():
    answer = torch.tensor([[[300.0], [-300.0]]]).requires_grad_()
    table = torch.tensor([[1.0], [-1.0], [0.5]])
    loss, losses, right = weighted_cross_entropy(answer, table, torch.tensor([[1, 1]]), torch.ones(1, 2))
    loss.backward()
    assert losses.tolist() == [[600, 0]]
    assert right.tolist() == [[False, True]]
    assert answer.grad is not None
    assert answer.grad.tolist() == [[[2], [0]]]


def test_other_losses_are_refused():
    with pytest.raises(ValueError, match="'stablemax_cross_entropy': allowed are softmax_cross_entropy"):
        TextLossHead(small_text_model(), "stablemax_cross_entropy")


# -- the head against a loop ------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    return torch.logsumexp(logits, 0) - logits[label]


def binary_cross_entropy(logit: Tensor, target: bool) -> Tensor:
    p = logit.sigmoid()
    return -torch.log(p if target else 1 - p)


def naive_step(head: TextLossHead, carry: Carry, settled: Tensor, answers: dict) -> dict[str, Any]:
    """Losses of one step from its logits, position by position; fills in `answers[row, at] = (loss, right, steps)`."""
    batch, states = carry.current_data, carry.states
    found: dict[str, Any] = {
        "loss": torch.zeros(()),
        "lm_loss": 0.0,
        "q_halt_loss": 0.0,
        "count": 0,
        "right": 0,
        "steps": 0,
    }
    for row, labels in enumerate(batch["labels"].tolist()):
        labelled = [at for at, label in enumerate(labels) if label != IGNORE_LABEL_ID]
        for at in labelled:
            if not settled[row, at]:
                z = states["z_H"][row, at]
                logits = head.model.inner.embed_tokens.embedding_weight @ z
                nll, right = cross_entropy(logits, labels[at]), int(logits.argmax()) == labels[at]
                answers[row, at] = (float(nll.detach()), right, int(carry.steps[row]))
                found["loss"] = found["loss"] + nll / len(labelled)
                if head.model.config.halt_max_steps > 1:
                    q_halt = binary_cross_entropy(head.model.inner.q_head(z)[0], right)
                    found["q_halt_loss"] += float(q_halt.detach()) / len(labelled)
                    found["loss"] = found["loss"] + 0.5 * q_halt / len(labelled)
            nll, right, steps = answers[row, at]
            found["lm_loss"] += nll / len(labelled)
            if carry.halted[row]:
                found["count"] += 1
                found["right"] += right
                found["steps"] += steps
    return found


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
def test_loss_and_metrics_are_those_of_a_loop(architecture: str):
    head, batch = small_text_head(architecture), small_text()
    steps, minimum = head.model.config.halt_max_steps, torch.tensor([0, 2, 3, 0])
    carry, answers, seen = head.initial_carry(batch), {}, set()
    for step in range(1, steps + 1):
        settled = carry.states["settled"]
        carry, loss, metrics, _, finished = head(carry, batch, min_steps=minimum)
        expected = naive_step(head, carry, settled, answers)
        regulariser = metrics.get("moe_loss", torch.zeros(()))
        assert float(loss.detach()) == pytest.approx(float(expected["loss"].detach() + regulariser), rel=1e-4)
        assert float(metrics["lm_loss"]) == pytest.approx(expected["lm_loss"], rel=1e-4)
        assert ("q_halt_loss" in metrics) == (steps > 1)
        assert float(metrics.get("q_halt_loss", 0)) == pytest.approx(expected["q_halt_loss"], rel=1e-4)
        assert ("moe_loss" in metrics) == (architecture == "moeut")
        counts = (int(metrics["count"]), int(metrics["accuracy"]), int(metrics["steps"]))
        assert counts == (expected["count"], expected["right"], expected["steps"])
        assert bool(finished) == (step == steps)
        seen |= set(carry.states["answer_steps"].unique().tolist())
    assert int(metrics["count"]) == int((batch["labels"] != IGNORE_LABEL_ID).sum())
    assert seen == set(range(1, steps + 1))


def test_the_regulariser_counts_once_for_each_row():
    head, batch = small_text_head("moeut"), small_text()
    _, outputs = head.model(head.initial_carry(batch), batch)
    _, _, metrics, _, _ = head(head.initial_carry(batch), batch)
    torch.testing.assert_close(metrics["moe_loss"], 4 * outputs["moe_loss"].detach())


@pytest.mark.parametrize("architecture", HALTING)
def test_settled_positions_are_not_trained(architecture: str):
    """Their labels make no difference to loss and gradient, and their answers get none."""
    head, batch = small_text_head(architecture), small_text()
    carry, _, _, _, _ = head(head.initial_carry(batch), batch)
    settled = carry.states["settled"] & (batch["labels"] != IGNORE_LABEL_ID)
    assert settled.any()
    found = []
    for labels in (batch["labels"], torch.where(settled, (batch["labels"] + 1) % VOCAB, batch["labels"])):
        data = carry.current_data | {"labels": labels}
        mine = Carry(carry.states, carry.steps, carry.halted, data)
        head.zero_grad()
        _, loss, _, _, _ = head(mine, batch)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in head.parameters() if p.grad is not None)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))

    kept = {}
    handle = head.model.inner.q_head.register_forward_hook(lambda _, inputs, __: kept.update(answer=inputs[0]))
    _, loss, metrics, _, _ = head(carry, batch)
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, kept["answer"])
    active = ~carry.states["settled"] & (batch["labels"] != IGNORE_LABEL_ID)
    assert torch.equal(gradient.abs().sum(-1) > 0, active)
    assert float(metrics["q_halt_loss"]) > 0


def test_a_batch_whose_positions_have_all_settled_has_no_loss_but_its_answers():
    head, batch = small_text_head(), small_text()
    set_text_q(head.model, 5)
    carry, _, first, _, _ = head(head.initial_carry(batch), batch)
    carry, loss, second, _, _ = head(carry, batch)
    assert float(loss.detach()) == float(second["q_halt_loss"]) == 0
    assert torch.equal(second["lm_loss"], first["lm_loss"])
    loss.backward()
    assert not any(p.grad is not None and p.grad.any() for p in head.parameters())


def test_the_answers_of_one_batch_say_nothing_of_the_next():
    head = small_text_head()
    fresh, carry = head.initial_carry(small_text(seed=1)), head.initial_carry(small_text())
    for _ in range(4):
        carry, _, _, _, _ = head(carry, small_text())
    for _ in range(4):
        fresh, _, expected, _, _ = head(fresh, small_text(seed=1))
        carry, _, metrics, _, _ = head(carry, small_text(seed=1))
        assert metrics == expected


def test_outputs_asked_for_come_back_detached():
    head, batch = small_text_head(), small_text()
    _, _, _, outputs, _ = head(head.initial_carry(batch), batch, return_keys=("answer", "q_halt_logits"))
    assert outputs.keys() == {"answer", "q_halt_logits"}
    assert not any(x.requires_grad for x in outputs.values())


# -- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
@pytest.mark.parametrize("halting", [False, True])
def test_scores_are_those_of_the_logits(architecture: str, halting: bool):
    head, batch = small_text_head(architecture).eval(), small_text()
    scores = head.scores(batch, halting)
    answer, steps = head.model.answers(batch["inputs"], batch["documents"], halting)
    logits, labels = head.model.logits(answer), batch["labels"].long()
    expected = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE_LABEL_ID, reduction="none")
    torch.testing.assert_close(scores.losses, expected.detach())
    assert torch.equal(scores.right, logits.argmax(-1) == labels)
    assert torch.equal(scores.steps, steps)
    with torch.inference_mode():
        again = head.scores(batch, halting)
    assert all(torch.equal(one, other) for one, other in zip(scores, again, strict=True))


# -- training ---------------------------------------------------------------------------------------------------------


def state_of(architecture: str, dtype: str = "float32", **settings: Any) -> TrainState:
    values = {
        "global_batch_size": 4,
        "lr": 0.01,
        "lr_min_ratio": 0.1,
        "lr_warmup_steps": 2,
        "beta1": 0.9,
        "beta2": 0.95,
        "weight_decay": 0.0,
        "optimizer": "adamw",
        "grad_clip_norm": 1.0,
        "ema": True,
        **settings,
    }
    options: dict[str, object] = {} if architecture == "flat" else {"halt_exploration_prob": 0.3}
    recompute = settings.get("activation_checkpointing", False)
    head = small_text_head(architecture, forward_dtype=dtype, recompute=recompute, **options)
    return train_state(head, values, Ranks(), total_steps=40)


def train(state: TrainState, first: int, last: int) -> list[dict[str, float]]:
    """The steps first..last; a batch is kept for as many of them as the model makes."""
    kept = state.head.model.config.halt_max_steps
    return [state.train_step(small_text(seed=(step - 1) // kept)) for step in range(first, last + 1)]


@pytest.mark.thorough
@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
def test_training_learns_a_batch_by_heart(architecture: str):
    state = state_of(architecture)
    found = [state.train_step(small_text()) for _ in range(40)]
    assert found[-1]["train/lm_loss"] < 0.8 * found[0]["train/lm_loss"]
    with_accuracy = [metrics for metrics in found if "train/accuracy" in metrics]
    assert len(with_accuracy) == 40 // state.head.model.config.halt_max_steps
    assert with_accuracy[-1]["train/accuracy"] > with_accuracy[0]["train/accuracy"]


@pytest.mark.parametrize("architecture", ["trm", "flat"])
def test_gradient_accumulation_changes_nothing(architecture: str):
    whole, parts = state_of(architecture), state_of(architecture, grad_accum_steps=2)
    for one, other in zip(train(whole, 1, 6), train(parts, 1, 6), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputed_activations_change_no_bit(architecture: str, dtype: str):
    one, other = (
        state_of(architecture, dtype, activation_checkpointing=flag, grad_accum_steps=2) for flag in (False, True)
    )
    assert all(level.recompute for level in other.head.model.modules() if isinstance(level, Level))
    assert train(other, 1, 4) == train(one, 1, 4)
    found = other.head.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in one.head.state_dict().items())


@pytest.mark.slow
def test_recomputation_uses_the_compiled_graphs_of_experts():
    found: list[tuple[int, list[dict[str, float]]]] = []
    for flag in (False, True):
        torch._dynamo.reset()
        counters.clear()
        state = state_of("moeut", activation_checkpointing=flag)
        state.use_fast_update(accelerate(state.head.model, choose_machine("cpu", "float32", compile=True)))
        metrics = train(state, 1, 4)
        found.append((counters["stats"]["unique_graphs"], metrics))
    (graphs, expected), (others, steps) = found
    assert others == graphs > 0
    for one, other in zip(expected, steps, strict=True):
        assert other == pytest.approx(one, rel=1e-5)


def test_records_of_experts_hold_nothing_that_is_recomputed(monkeypatch: pytest.MonkeyPatch):
    made: list[Selections] = []

    def make() -> Selections:
        made.append(Selections())
        return made[-1]

    monkeypatch.setattr(text_model, "Selections", make)
    for flag, held in ((False, 6), (True, 1)):  # of two layers with three selectors each
        train(state_of("moeut", activation_checkpointing=flag), 1, 1)
        assert len(made[-1]._records) == held


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
@pytest.mark.parametrize("parts", [1, 2])
def test_a_run_resumed_within_a_batch_is_the_same_bit_by_bit(tmp_path: Path, architecture: str, parts: int):
    state, last = state_of(architecture, grad_accum_steps=parts), 2
    train(state, 1, last)
    if architecture in HALTING:
        settled = torch.cat([carry.states["settled"] for carry in state.carries])
        assert settled.any()
        assert not settled.all()
    save_train_state(tmp_path, last, state.state_dict(), keep=1)
    weights = {name: value.clone() for name, value in state.head.state_dict().items()}

    resumed = state_of(architecture, grad_accum_steps=parts)
    resumed.head.load_state_dict(weights)
    resumed.load_state_dict(load_train_state(train_state_path(tmp_path, last)))
    assert train(resumed, last + 1, last + 7) == train(state, last + 1, last + 7)
    for one, other in zip(state.carries, resumed.carries, strict=True):
        assert one.states.keys() == other.states.keys()
        assert all(torch.equal(one.states[name], other.states[name]) for name in one.states)
    mine = resumed.head.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in state.head.state_dict().items())


def test_recipes_weigh_the_losses_of_a_step():
    options: dict[str, Any] = {"supervision_decay": 0.5, "halt_loss_weight": 0.1, "halt_exploration_prob": 0.0}
    head, batch = small_text_head("trm", **options), small_text()
    carry = head.initial_carry(batch)
    for step in range(1, 4):
        carry, loss, metrics, outputs, _ = head(carry, batch, return_keys=("active",))
        active = (outputs["active"] & (batch["labels"] != IGNORE_LABEL_ID)).float()
        share = active / (batch["labels"] != IGNORE_LABEL_ID).sum(-1, keepdim=True)
        token_loss = (carry.states["answer_loss"] * share).sum()
        expected = 0.5 ** (step - 1) * (token_loss + 0.1 * metrics["q_halt_loss"])
        torch.testing.assert_close(loss.detach(), expected)
