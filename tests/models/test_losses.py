"""Token losses against their formulas, and the loss head against a computation row by row in plain Python."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.act import ACTModel, Carry
from models.losses import TOKEN_LOSSES, ACTLossHead, log_stablemax, softmax_cross_entropy, stablemax_cross_entropy
from models.recipes.improvement import improvement_targets
from tests.models.small import set_q, small_batch, small_model, spread_q
from utils.constants import IGNORE_LABEL_ID

KEYS = ("logits", "preds", "q_halt_logits", "q_continue_logits", "target_q_continue")


def plain_log_stablemax(row: list[float]) -> list[float]:
    s = [v + 1 if v >= 0 else 1 / (1 - v) for v in row]
    return [math.log(x) - math.log(math.fsum(s)) for x in s]


def plain_log_softmax(row: list[float]) -> list[float]:
    return [v - math.log(math.fsum(math.exp(other) for other in row)) for v in row]


PLAIN = {"stablemax_cross_entropy": plain_log_stablemax, "softmax_cross_entropy": plain_log_softmax}


def plain_bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


# -- token losses -----------------------------------------------------------------------------------------------------


def test_stablemax_follows_its_formula():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 11, generator=generator, dtype=torch.float64) * torch.logspace(-3, 4, 20).view(-1, 1)
    logits[3, :2] = torch.tensor([0.0, 1.0])
    expected = torch.tensor([plain_log_stablemax(row) for row in logits.tolist()], dtype=torch.float64)
    torch.testing.assert_close(log_stablemax(logits), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("token_loss", [stablemax_cross_entropy, softmax_cross_entropy])
def test_token_losses_have_the_right_gradient(token_loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64) * 2
    labels = torch.tensor([[0, 4, IGNORE_LABEL_ID, 2], [IGNORE_LABEL_ID, 1, 1, 3]])
    if token_loss is softmax_cross_entropy:  # fp32 inside: too coarse for differences in fp64
        found, expected = logits.clone().requires_grad_(), logits.softmax(-1)
        token_loss(found, labels).sum().backward()
        valid = labels != IGNORE_LABEL_ID
        expected = (expected - torch.nn.functional.one_hot(labels.where(valid, 0), 5)) * valid.unsqueeze(-1)
        assert found.grad is not None
        torch.testing.assert_close(found.grad, expected, rtol=1e-5, atol=1e-6)
    else:
        assert torch.autograd.gradcheck(lambda x: token_loss(x, labels), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_stablemax_has_a_gradient_at_every_logit(dtype: torch.dtype):
    logits = torch.tensor([1.0, 0.0, -1.0, 5.0], dtype=dtype, requires_grad=True)
    log_stablemax(logits)[0].backward()
    # d/dv of log s(v) is s'(v) / s(v); s' is 1 from zero on and s^2 below
    s, slope = [2, 1, 0.5, 6], [1, 1, 0.25, 1]
    expected = [(int(i == 0) / s[i] - 1 / sum(s)) * slope[i] for i in range(4)]
    torch.testing.assert_close(logits.grad, torch.tensor(expected, dtype=dtype))


def test_stablemax_computes_in_fp64_whatever_it_is_given():
    logits, labels = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0)), torch.full((3, 4), 2)
    for dtype in (torch.bfloat16, torch.float32):
        loss = stablemax_cross_entropy(logits.to(dtype), labels)
        assert loss.dtype == torch.float64
        assert torch.equal(loss, stablemax_cross_entropy(logits.to(dtype).double(), labels))


@pytest.mark.parametrize("name", TOKEN_LOSSES)
@pytest.mark.parametrize("label_dtype", [torch.int32, torch.int64])
def test_token_losses_skip_ignored_labels(name: str, label_dtype: torch.dtype):
    logits = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.tensor([[1, 2, 3, 4], [IGNORE_LABEL_ID, 0, 6, IGNORE_LABEL_ID], [IGNORE_LABEL_ID] * 4])
    found = TOKEN_LOSSES[name](logits, labels.to(label_dtype))
    for i in range(3):
        for j in range(4):
            label = int(labels[i, j])
            expected = 0 if label == IGNORE_LABEL_ID else -PLAIN[name](logits[i, j].tolist())[label]
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_softmax_cross_entropy_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 9, 7, generator=generator).bfloat16(), torch.randint(7, (5, 9), generator=generator)
    labels[1:4, 2:5] = IGNORE_LABEL_ID
    found = softmax_cross_entropy(logits, labels)
    assert found.dtype == torch.float32
    mean = torch.nn.functional.cross_entropy(logits.float().view(-1, 7), labels.view(-1))
    torch.testing.assert_close(found.sum() / (labels != IGNORE_LABEL_ID).sum(), mean)


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_smoothing_spreads_a_share_of_the_target(name: str):
    logits = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.tensor([[1, 2, 3, 4], [IGNORE_LABEL_ID, 0, 6, IGNORE_LABEL_ID], [5, 5, 5, 5]])
    found = TOKEN_LOSSES[name](logits, labels, 0.3)
    for i in range(3):
        for j in range(4):
            logs, label = PLAIN[name](logits[i, j].tolist()), int(labels[i, j])
            target = [0.7 * (v == label) + 0.3 / 7 for v in range(7)]
            expected = -sum(p * log for p, log in zip(target, logs, strict=True))
            assert float(found[i, j]) == pytest.approx(0 if label == IGNORE_LABEL_ID else expected, rel=1e-5, abs=1e-6)
    assert torch.equal(TOKEN_LOSSES[name](logits, labels, 0.0), TOKEN_LOSSES[name](logits, labels))


# -- loss head --------------------------------------------------------------------------------------------------------


def by_hand(loss_type: str, carry: Carry, outputs: dict[str, Tensor]) -> tuple[float, dict[str, float]]:
    """(loss, metrics) of one step."""
    names = ["count", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps", "lm_loss", "q_halt_loss"]
    names += ["q_continue_loss"] * ("target_q_continue" in outputs)
    metrics = dict.fromkeys(names, 0.0)
    for row, labels in enumerate(carry.current_data["labels"].tolist()):
        logits, q_halt = outputs["logits"][row].double().tolist(), float(outputs["q_halt_logits"][row])
        labelled = [(values, label) for values, label in zip(logits, labels, strict=True) if label != IGNORE_LABEL_ID]
        right = [values.index(max(values)) == label for values, label in labelled]
        token_losses = [-PLAIN[loss_type](values)[label] for values, label in labelled]
        metrics["lm_loss"] += sum(token_losses) / max(1, len(labelled))
        metrics["q_halt_loss"] += plain_bce(q_halt, float(all(right)))
        if "target_q_continue" in outputs:
            q_continue, target = float(outputs["q_continue_logits"][row]), float(outputs["target_q_continue"][row])
            metrics["q_continue_loss"] += plain_bce(q_continue, target)
        if carry.halted[row] and labelled:
            metrics["count"] += 1
            metrics["accuracy"] += sum(right) / len(right)
            metrics["exact_accuracy"] += all(right)
            metrics["q_halt_accuracy"] += (q_halt >= 0) == all(right)
            metrics["steps"] += int(carry.steps[row])
    return metrics["lm_loss"] + 0.5 * (metrics["q_halt_loss"] + metrics.get("q_continue_loss", 0)), metrics


def mixed_slots(model: ACTModel) -> tuple[Carry, dict[str, Tensor]]:
    """Eight slots at different steps, none to be refilled. 0 and 4 are solved, 1 and 5 have no labels.

    Slots 0 to 3 stand before their last step.
    """
    batch = small_batch(8)
    with torch.no_grad():
        carry, _ = model.eval()(model.initial_carry(batch), batch)
        going_on = replace(
            carry, halted=torch.zeros(8, dtype=torch.bool), steps=torch.tensor([3, 3, 3, 3, 1, 1, 1, 2]).int()
        )
        _, outputs = model(going_on, batch)
    model.train()
    labels = going_on.current_data["labels"]
    solved = torch.tensor([0, 4])
    labels[solved] = torch.where(labels == IGNORE_LABEL_ID, labels, outputs["logits"].argmax(-1))[solved]
    labels[torch.tensor([1, 5])] = IGNORE_LABEL_ID
    return going_on, batch


@pytest.mark.parametrize("loss_type", TOKEN_LOSSES)
@pytest.mark.parametrize(
    ("architecture", "options"),
    [("trm", {}), ("trm", {"no_ACT_continue": False}), ("hrm", {}), ("transformers_baseline", {})],
)
@pytest.mark.parametrize("training", [True, False])
def test_loss_and_metrics(loss_type: str, architecture: str, options: dict, training: bool):
    model = spread_q(small_model(architecture, **options))
    carry, batch = mixed_slots(model)
    head = ACTLossHead(model, loss_type).train(training)
    carry, loss, metrics, outputs, all_finished = head(carry, batch, return_keys=KEYS)
    assert bool(all_finished) == bool(carry.halted.all())
    assert ("target_q_continue" in outputs) == (training and (architecture == "hrm" or bool(options)))

    expected_loss, expected = by_hand(loss_type, carry, outputs)
    assert expected["exact_accuracy"] >= 1
    assert 3 <= expected["count"] <= 6  # slots 1 and 5 never
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5), name
        assert not metrics[name].requires_grad
    assert float(loss.detach()) == pytest.approx(expected_loss, rel=1e-5)
    assert not any(x.requires_grad for x in outputs.values())


@pytest.mark.parametrize("loss_type", TOKEN_LOSSES)
def test_every_parameter_learns_from_the_loss(loss_type: str):
    model = spread_q(small_model(no_ACT_continue=False))
    carry, batch = mixed_slots(model)
    _, loss, *_ = ACTLossHead(model, loss_type)(carry, batch)
    loss.backward()
    assert model.inner.q_head.weight.grad is not None
    assert model.inner.q_head.weight.grad.any(1).all()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_halting_logit_of_zero_counts_as_halting():
    model = set_q(small_model(), 0.0)
    carry, batch = mixed_slots(model)
    carry, _, metrics, _, _ = ACTLossHead(model)(carry, batch)
    assert carry.halted.tolist() == [True] * 4 + [False] * 4  # not above zero: only the last step halts
    # slots 0, 2, 3 are counted, and of these 0 alone is right
    assert [int(metrics[key]) for key in ("count", "exact_accuracy", "q_halt_accuracy", "steps")] == [3, 1, 1, 12]


def test_examples_without_labels_train_the_halting_head_alone():
    model, batch = spread_q(small_model()).eval(), small_batch(3)
    batch["labels"].fill_(IGNORE_LABEL_ID)
    head = ACTLossHead(model)
    carry = head.initial_carry(batch)
    for _ in range(4):
        carry, loss, metrics, outputs, all_finished = head(carry, batch, return_keys=KEYS)
    assert all_finished
    counted = [int(metrics[k]) for k in ("count", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps", "lm_loss")]
    assert counted == [0] * 6
    expected = 0.5 * sum(plain_bce(q, 1.0) for q in outputs["q_halt_logits"].tolist())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_minimum_steps_are_passed_on():
    model, batch = set_q(small_model(), 9.0), small_batch(3)
    head = ACTLossHead(model)
    carry, *_ = head(head.initial_carry(batch), batch, min_steps=torch.tensor([0, 2, 0]))
    assert carry.halted.tolist() == [True, False, True]


def test_unknown_losses_are_refused_by_name():
    with pytest.raises(ValueError, match="allowed are stablemax_cross_entropy, softmax_cross_entropy"):
        ACTLossHead(small_model(), "focal")


@pytest.mark.parametrize("training", [True, False])
def test_recipes_change_the_loss_of_training_alone(training: bool):
    options = {"label_smoothing": 0.2, "supervision_decay": 0.7, "halt_loss_weight": 0.05}
    model = spread_q(small_model("trm", **options))
    carry, batch = mixed_slots(model)
    head = ACTLossHead(model).train(training)
    carry, loss, metrics, outputs, _ = head(carry, batch, return_keys=KEYS)
    lm_loss, q_loss, total = 0.0, 0.0, 0.0
    share = 0.2 if training else 0.0
    for row, labels in enumerate(carry.current_data["labels"].tolist()):
        logs = [PLAIN["stablemax_cross_entropy"](v) for v in outputs["logits"][row].double().tolist()]
        found = [(v, label) for v, label in zip(logs, labels, strict=True) if label != IGNORE_LABEL_ID]
        own = sum(-(1 - share) * v[label] - share * sum(v) / 7 for v, label in found) / max(1, len(found))
        right = all(v.index(max(v)) == label for v, label in found)
        own_q = plain_bce(float(outputs["q_halt_logits"][row]), float(right))
        weight = 0.7 ** (int(carry.steps[row]) - 1) if training else 1.0
        lm_loss, q_loss, total = lm_loss + own, q_loss + own_q, total + weight * (own + 0.05 * own_q)
    assert float(metrics["lm_loss"]) == pytest.approx(lm_loss, rel=1e-5)
    assert float(metrics["q_halt_loss"]) == pytest.approx(q_loss, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)


def test_a_step_of_deep_improvement_is_compared_with_its_own_target():
    model = small_model("trm", deep_improvement=True)
    carry, batch = mixed_slots(model)
    head = ACTLossHead(model).train()
    new, _, metrics, outputs, _ = head(carry, batch, return_keys=KEYS)
    data = new.current_data
    targets = improvement_targets(data["inputs"], data["labels"], new.steps, model.config.halt_max_steps)
    assert not torch.equal(targets, data["labels"])
    counts = (targets != IGNORE_LABEL_ID).sum(-1).clamp_min(1)
    expected = (stablemax_cross_entropy(outputs["logits"], targets).sum(-1) / counts).sum()
    assert float(metrics["lm_loss"]) == pytest.approx(float(expected))
    assert new.halted.tolist() == (new.steps == 4).tolist()
    evaluated = head.eval()(carry, batch)[2]["lm_loss"]
    plain = (stablemax_cross_entropy(outputs["logits"], data["labels"]).sum(-1) / counts).sum()
    assert float(evaluated) == pytest.approx(float(plain), rel=1e-5)
