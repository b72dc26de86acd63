"""The parts of the recipes against second implementations of their formulas."""

import random

import pytest
import torch
from torch import nn

from models.act import draw_random_stops
from models.recipes.config import DepthStage
from models.recipes.depth import RecursionDepth, stage_at
from models.recipes.improvement import improvement_targets
from models.recipes.latent_noise import latent_update
from tests.models.small import small_model
from tests.models.small_family import family_model
from utils.constants import IGNORE_LABEL_ID

CGAR = [DepthStage(until=0.3, H_cycles=1, L_cycles=2), DepthStage(until=0.6, H_cycles=2, L_cycles=4)]

# -- depth -------------------------------------------------------------------------------------------------------------


def test_the_stages_of_a_curriculum():
    depth = RecursionDepth(3, 6)
    found = []
    for step in range(1, 11):
        stage = stage_at(CGAR, (step - 1) / 10)
        if stage is None:
            found.append((depth.H_cycles, depth.L_cycles))
            continue
        with depth.at(stage):
            found.append((depth.H_cycles, depth.L_cycles))
    assert found == 3 * [(1, 2)] + 3 * [(2, 4)] + 4 * [(3, 6)]
    with pytest.raises(RuntimeError), depth.at(CGAR[0]):
        raise RuntimeError
    assert (depth.H_cycles, depth.L_cycles) == (3, 6)


@pytest.mark.parametrize("architecture", ["trm", "trm_singlez", "trm_hier6", "hrm", "urm", "eqr", "se_rrm", "trm_wta"])
def test_a_stage_computes_what_a_model_of_that_depth_does(architecture: str):
    model_of = family_model if architecture in ("urm", "eqr", "se_rrm", "trm_wta") else small_model
    deep = model_of(architecture, depth_curriculum=[{"until": 0.5, "H_cycles": 1, "L_cycles": 3}]).eval()
    shallow, full = model_of(architecture, H_cycles=1, L_cycles=3).eval(), model_of(architecture).eval()
    batch = {"inputs": torch.arange(12).view(2, 6) % 7, "puzzle_identifiers": torch.zeros(2, dtype=torch.int64)}

    def logits(model):
        torch.manual_seed(0)
        return [outputs["logits"] for _, outputs in model.answer_steps(batch, max_steps=2)]

    with deep.at_progress(0.49):
        assert all(torch.equal(one, other) for one, other in zip(logits(deep), logits(shallow), strict=True))
    with deep.at_progress(0.5):
        assert all(torch.equal(one, other) for one, other in zip(logits(deep), logits(full), strict=True))
    assert not torch.equal(logits(shallow)[1], logits(full)[1])


# -- improvement -------------------------------------------------------------------------------------------------------


def test_targets_lead_from_the_question_to_the_label():
    random.seed(0)
    inputs = [[random.choice([1, 2, 3]) for _ in range(9)] for _ in range(20)]
    labels = [[random.choice([2, 3, IGNORE_LABEL_ID]) for _ in range(9)] for _ in range(20)]
    last = 4
    before = [list(row) for row in inputs]
    for step in range(1, last + 1):
        steps = torch.full((20,), step, dtype=torch.int32)
        found = improvement_targets(torch.tensor(inputs).int(), torch.tensor(labels), steps, last).tolist()
        for question, label, target, previous in zip(inputs, labels, found, before, strict=True):
            apart = [i for i in range(9) if label[i] not in (IGNORE_LABEL_ID, question[i])]
            shown = [i for i in apart if target[i] == label[i]]
            assert len(shown) == step * len(apart) // last
            assert all(target[i] == (label[i] if i in shown or i not in apart else question[i]) for i in range(9))
            assert all(target[i] == label[i] for i in apart if previous[i] == label[i])  # what is shown stays shown
        before = found
    assert before == labels


def test_the_order_of_the_targets_is_random_and_that_of_the_question():
    inputs = torch.cat((torch.zeros(400, 8, dtype=torch.int64), torch.arange(400).view(-1, 1).expand(-1, 2)), dim=1)
    labels = inputs.clone()
    labels[:, :8] = 1
    targets = improvement_targets(inputs, labels, torch.ones(400, dtype=torch.int32), 8)
    counts = targets[:, :8].sum(0)
    assert targets[:, :8].sum(1).tolist() == [1] * 400
    assert counts.min() > 25  # 50 of each are expected
    again = improvement_targets(inputs[7:9], labels[7:9], torch.ones(2, dtype=torch.int32), 8)
    assert torch.equal(again, targets[7:9])


# -- noise -------------------------------------------------------------------------------------------------------------


def test_noise_has_its_size_in_training_and_is_absent_in_evaluation():
    update, z = latent_update(0.3), torch.full((4, 100, 50), 2.0)
    torch.manual_seed(0)
    noisy = update(z)
    torch.manual_seed(0)
    assert torch.equal(noisy, z + 0.3 * torch.randn(4, 100, 50))
    assert update.eval()(z) is z
    assert latent_update(0.0)(z) is z


@pytest.mark.parametrize("architecture", ["trm", "trm_singlez", "trm_hier6", "hrm", "transformers_baseline"])
def test_every_update_of_a_latent_is_disturbed(architecture: str):
    calm, noisy = small_model(architecture), small_model(architecture, latent_noise=0.1)
    batch = {"inputs": torch.arange(12).view(2, 6) % 7, "puzzle_identifiers": torch.zeros(2, dtype=torch.int64)}
    draws = 0
    real = torch.randn_like

    def counted(z: torch.Tensor) -> torch.Tensor:
        nonlocal draws
        draws += 1
        return real(z)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", counted)
        next(iter(noisy.answer_steps(batch)))
        expected = {"trm": 6, "trm_singlez": 6, "trm_hier6": 6, "hrm": 6, "transformers_baseline": 1}
        assert draws == expected[architecture]
        states = [next(iter(model.eval().answer_steps(batch)))[0] for model in (calm, noisy)]
        assert draws == expected[architecture]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# -- stopping by chance ------------------------------------------------------------------------------------------------


def test_stops_are_a_matter_of_chance():
    drawn = draw_random_stops(4000, 9, 0.25, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 9}
    assert (drawn == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert draw_random_stops(5, 9, 0.0).tolist() == [9] * 5


@pytest.mark.parametrize("architecture", ["trm", "hrm", "transformers_baseline", "fprm"])
def test_the_halting_head_has_no_say_in_training(architecture: str):
    model_of = family_model if architecture == "fprm" else small_model
    model = model_of(architecture, stop_probability=0.5)
    batch = {
        "inputs": torch.arange(24).view(4, 6) % 7,
        "labels": torch.arange(24).view(4, 6) % 7,
        "puzzle_identifiers": torch.zeros(4, dtype=torch.int64),
    }
    with torch.no_grad():
        model.inner.q_head.weight.zero_()
        model.inner.q_head.bias = nn.Parameter(torch.tensor([5.0, -5.0]))  # it would stop at once
    carry, outputs = model(model.initial_carry(batch), batch, min_steps=torch.tensor([0, 4, 0, 4]))
    assert carry.halted.tolist() == [True, False, True, False]
    assert "target_q_continue" not in outputs
    fixed = model_of(architecture, deep_improvement=True)
    with torch.no_grad():
        fixed.inner.q_head.weight.zero_()
        fixed.inner.q_head.bias = nn.Parameter(torch.tensor([5.0, -5.0]))
    carry = fixed.initial_carry(batch)
    for step in range(1, 5):
        carry, _ = fixed(carry, batch)
        assert carry.halted.tolist() == [step == fixed.config.halt_max_steps] * 4
