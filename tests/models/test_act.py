"""Halting: which slots stop and when, what a slot starts from, exploration, and the target of the continue head."""

from dataclasses import replace

import pytest
import torch

from models.act import ACTModel, Carry, draw_min_steps
from tests.models.small import ARCHITECTURES, halve_q, set_q, small_batch, small_model, spread_q

TRM_LIKE = ["trm", "trm_singlez", "trm_hier6"]


def first_halts(model: ACTModel, rows: int = 3, min_steps: torch.Tensor | None = None) -> list[int]:
    """The step at which each slot halts for the first time."""
    batch = small_batch(rows)
    carry, at = model.initial_carry(batch), [0] * rows
    for step in range(1, model.config.halt_max_steps + 1):
        carry, _ = model(carry, batch, min_steps)
        at = [before or step * int(halted) for before, halted in zip(at, carry.halted.tolist(), strict=True)]
    return at


def one_step(model: ACTModel, rows: int = 8) -> Carry:
    """A carry after one step, then told that its slots go on, at 1, 2, 3, ... of the steps allowed."""
    batch = small_batch(rows)
    with torch.no_grad():
        carry, _ = model.eval()(model.initial_carry(batch), batch)
    model.train()
    steps = (torch.arange(rows) % (model.config.halt_max_steps - 1) + 1).int()
    return replace(carry, steps=steps, halted=torch.zeros(rows, dtype=torch.bool))


# -- slots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_halted_slot_takes_its_row_of_the_batch_and_the_others_go_on(architecture: str):
    model = spread_q(small_model(architecture))
    carry, batch = one_step(model, rows=5), small_batch(5, seed=9)
    carry.halted = torch.tensor([True, False, False, True, False])
    new, outputs = model(carry, batch)
    for slot, fresh in enumerate(carry.halted.tolist()):
        source = batch if fresh else carry.current_data
        data = {name: x[slot : slot + 1] for name, x in source.items()}
        states = {
            z: getattr(model.inner, str(init)).expand(1, 7, 16) if fresh else carry.states[z][slot : slot + 1]
            for z, init in model.inner.states.items()
        }
        states, logits, q_halt, q_continue = model.inner(states, data)
        assert new.steps[slot] == (0 if fresh else carry.steps[slot]) + 1
        for name, x in data.items():
            assert torch.equal(new.current_data[name][slot], x[0])
        for name, z in states.items():
            torch.testing.assert_close(new.states[name][slot], z[0].detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs["logits"][slot], logits[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs["q_halt_logits"][slot], q_halt[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs["q_continue_logits"][slot], q_continue[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_carry_is_detached_and_the_outputs_are_not(architecture: str):
    model, batch = small_model(architecture), small_batch(3)
    carry, outputs = model(model.initial_carry(batch), batch)
    assert not any(z.requires_grad for z in carry.states.values())
    assert outputs["logits"].requires_grad
    assert outputs["q_halt_logits"].requires_grad


def test_all_slots_wait_at_the_start():
    carry = small_model().initial_carry(small_batch(3))
    assert carry.halted.tolist() == [True] * 3
    assert carry.steps.tolist() == [0] * 3


def test_labels_play_no_part_in_reasoning():
    model, batch = small_model(), small_batch(3)
    _, expected = model(model.initial_carry(batch), batch)
    question = {name: x for name, x in batch.items() if name != "labels"}
    carry, outputs = model(model.initial_carry(question), question)
    assert torch.equal(outputs["logits"], expected["logits"])
    assert "labels" not in carry.current_data


def test_map_reaches_every_tensor():
    carry = one_step(small_model(), rows=4)
    last = carry.map(lambda x: x[2:])
    assert last.steps.tolist() == carry.steps.tolist()[2:]
    assert last.halted.shape == (2,)
    for mine, all_of_it in [(last.states, carry.states), (last.current_data, carry.current_data)]:
        assert mine.keys() == all_of_it.keys()
        assert all(torch.equal(mine[name], all_of_it[name][2:]) for name in mine)


# -- who halts --------------------------------------------------------------------------------------------------------

NEVER, AT_ONCE = [4, 4, 4], [1, 1, 1]


@pytest.mark.parametrize("architecture", TRM_LIKE)
@pytest.mark.parametrize(
    ("q_halt", "q_continue", "halts"),
    [(0.0, -9.0, NEVER), (1e-6, 9.0, AT_ONCE), (-1e-6, -9.0, NEVER)],
)
def test_without_a_continue_head_a_slot_halts_above_zero(
    architecture: str, q_halt: float, q_continue: float, halts: list[int]
):
    assert first_halts(set_q(small_model(architecture), q_halt, q_continue)) == halts


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("hrm", {}), ("hrm", {"no_ACT_continue": True}), ("transformers_baseline", {})]
    + [(name, {"no_ACT_continue": False}) for name in TRM_LIKE],
)
@pytest.mark.parametrize(
    ("q_halt", "q_continue", "halts"),
    [(0.25, 0.25, NEVER), (0.25, 0.5, NEVER), (-0.5, -0.75, AT_ONCE), (0.0, -1e-6, AT_ONCE)],
)
def test_with_a_continue_head_a_slot_halts_above_it(
    architecture: str, options: dict, q_halt: float, q_continue: float, halts: list[int]
):
    assert first_halts(set_q(small_model(architecture, **options), q_halt, q_continue)) == halts


@pytest.mark.parametrize("options", [{}, {"no_ACT_continue": False}])
def test_the_threshold_is_a_probability(options: dict):
    model = small_model(**options)
    q_halt, q_continue = torch.tensor([-40.0, -2.0, 0.0, 1e-6, 2.0, 2.25, 4.0]), torch.tensor([0.0, -1, 0, 0, 1, 0, 9])
    outputs = {"q_halt_logits": q_halt, "q_continue_logits": q_continue}
    probability = (q_halt - q_continue if options else q_halt).sigmoid()
    for threshold in (0.2, 0.5, 0.9, 0.99):
        assert torch.equal(model.wants_to_halt(outputs, threshold), probability > threshold)
    assert torch.equal(model.wants_to_halt(outputs), q_halt > (q_continue if options else 0))
    assert model.wants_to_halt(outputs, 0.0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_evaluation_makes_every_step(architecture: str):
    model = set_q(small_model(architecture), 9.0, -9.0).eval()
    assert first_halts(model) == NEVER
    assert first_halts(model, min_steps=torch.zeros(3, dtype=torch.int32)) == NEVER


@pytest.mark.parametrize("training", [True, False])
def test_one_step_is_all_where_one_is_allowed(training: bool):
    model, batch = set_q(small_model(halt_max_steps=1, no_ACT_continue=False), -9.0).train(training), small_batch(3)
    carry, outputs = model(model.initial_carry(batch), batch)
    assert carry.halted.all()
    assert "target_q_continue" not in outputs


def test_baseline_without_act_makes_every_step():
    assert first_halts(set_q(small_model("transformers_baseline", act_enabled=False), 9.0, -9.0)) == NEVER


@pytest.mark.parametrize("act_enabled", [True, False])
def test_baseline_may_halt_in_evaluation_and_does_not_explore_there(act_enabled: bool):
    options = {"act_inference": True, "act_enabled": act_enabled, "halt_exploration_prob": 1.0}
    model = small_model("transformers_baseline", **options).eval()
    assert first_halts(set_q(model, 0.5, 0.25)) == AT_ONCE
    assert first_halts(set_q(model, 0.25, 0.25)) == NEVER


# -- exploration ------------------------------------------------------------------------------------------------------


def test_minimum_steps_are_drawn_uniformly_by_some_of_the_slots():
    draws, prob, most = 100_000, 0.25, 6
    minimum = draw_min_steps(draws, most, prob, torch.Generator().manual_seed(0))
    assert minimum.dtype == torch.int32
    counts = minimum.bincount(minlength=most + 1).tolist()
    assert len(counts) == most + 1
    assert counts[1] == 0
    expected = [draws * (1 - prob), 0] + [draws * prob / (most - 1)] * (most - 1)
    chi_squared = sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True) if e)
    assert chi_squared < 20.5  # one in a thousand, five degrees of freedom
    # whether a slot explores says nothing about its neighbour
    explores = (minimum > 0).double()
    assert float((explores[1:] * explores[:-1]).mean()) == pytest.approx(prob**2, abs=0.005)


@pytest.mark.parametrize(("prob", "allowed"), [(0.0, {0}), (1.0, {2, 3, 4})])
def test_exploration_can_be_none_or_all(prob: float, allowed: set[int]):
    assert set(draw_min_steps(1000, 4, prob, torch.Generator().manual_seed(0)).tolist()) == allowed


def test_the_generator_decides_the_draw():
    one, other, again = (draw_min_steps(50, 16, 0.5, torch.Generator().manual_seed(seed)) for seed in (3, 4, 3))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_no_slot_halts_before_the_minimum_given():
    model = set_q(small_model(halt_exploration_prob=1.0), 9.0)
    assert first_halts(model, rows=5, min_steps=torch.tensor([0, 1, 2, 3, 4])) == [1, 1, 2, 3, 4]


def test_a_minimum_makes_nobody_halt():
    assert first_halts(set_q(small_model(), -9.0), rows=3, min_steps=torch.tensor([0, 2, 3])) == NEVER


def test_slots_draw_anew_at_each_step_where_no_minimum_is_given():
    model, batch = set_q(small_model(halt_exploration_prob=0.75), 9.0), small_batch(64)
    carry = model.initial_carry(batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        minimum = [draw_min_steps(64, 4, 0.75) for _ in range(6)]
        torch.manual_seed(5)
        for drawn in minimum:
            carry, _ = model(carry, batch)
            assert torch.equal(carry.halted, carry.steps >= drawn)
    assert not torch.equal(minimum[0], minimum[1])


# -- the target of the continue head ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "options", "arguments"),
    [("hrm", {}, {}), ("transformers_baseline", {}, {"compute_target_q": True})]
    + [(name, {"no_ACT_continue": False}, {}) for name in TRM_LIKE],
)
def test_the_target_is_what_the_next_step_would_say(architecture: str, options: dict, arguments: dict):
    model, batch = spread_q(small_model(architecture, **options)), small_batch(8, seed=9)
    before = one_step(model)
    carry, outputs = halve_q(model, model(before, batch)[1])(before, batch, **arguments)
    assert len(carry.halted.unique()) == 2

    with torch.no_grad():
        going_on = replace(carry, halted=torch.zeros_like(carry.halted))
        _, then = model.eval()(going_on, batch)
    best = [
        halt if step >= 4 else max(halt, go_on)
        for halt, go_on, step in zip(
            then["q_halt_logits"].tolist(), then["q_continue_logits"].tolist(), carry.steps.tolist(), strict=True
        )
    ]
    torch.testing.assert_close(outputs["target_q_continue"], torch.tensor(best).sigmoid())
    assert not outputs["target_q_continue"].requires_grad


@pytest.mark.parametrize(
    ("architecture", "options", "training"),
    [
        ("trm", {}, True),
        ("transformers_baseline", {}, True),
        ("trm", {"no_ACT_continue": False}, False),
        ("hrm", {}, False),
    ],
)
def test_there_is_no_target_in_evaluation_nor_without_a_continue_head(architecture: str, options: dict, training: bool):
    model, batch = small_model(architecture, **options).train(training), small_batch(3)
    _, outputs = model(model.initial_carry(batch), batch)
    assert "target_q_continue" not in outputs


def test_no_target_in_evaluation_even_when_asked():
    model, batch = small_model("transformers_baseline").eval(), small_batch(3)
    _, outputs = model(model.initial_carry(batch), batch, compute_target_q=True)
    assert "target_q_continue" not in outputs


@pytest.mark.parametrize("architecture", ["trm", "hrm"])
def test_the_second_forward_leaves_gradients_alone(architecture: str):
    model, batch = small_model(architecture, no_ACT_continue=False), small_batch(6)
    assert model.puzzle_emb is not None
    found = []
    for compute_target_q in (True, False):
        _, outputs = model(model.initial_carry(batch), batch, compute_target_q=compute_target_q)
        assert ("target_q_continue" in outputs) == compute_target_q
        outputs["logits"].square().sum().backward()
        pending = model.puzzle_emb.take_gradient()
        assert pending is not None
        assert torch.equal(pending[0], batch["puzzle_identifiers"])
        assert pending[1].any()
        found.append([pending[1], *(p.grad for p in model.parameters() if p.grad is not None)])
        model.zero_grad()
    assert all(torch.equal(with_it, without) for with_it, without in zip(*found, strict=True))
