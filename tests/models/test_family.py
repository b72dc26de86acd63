"""The architectures after TRM: training, resuming, recomputing, answers that depend on their example alone, options."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from models.act import ACTModel
from models.flops import flops_per_example
from models.losses import ACTLossHead, Score
from models.memory import step_memory
from tests.models.small import CONFIG, small_batch, small_model
from tests.models.small_family import FAMILY, OWN, family_model, family_state
from utils.checkpoint import check_fits, load_weights
from utils.errors import UserError
from utils.functions import load_class
from utils.settings import ArchConfig, PretrainConfig

FROM_DATA = ("vocab_size", "seq_len", "num_puzzle_identifiers")


def spread_halting(model: ACTModel) -> ACTModel:
    """Let halting logits differ from slot to slot, where there are any."""
    q_head = getattr(model.inner, "q_head", None)
    if q_head is not None:
        with torch.no_grad():
            q_head.weight.normal_(generator=torch.Generator().manual_seed(1))
            q_head.bias.zero_()
    return model


@pytest.mark.parametrize("architecture", FAMILY)
def test_a_resumed_run_goes_on_bit_for_bit(architecture: str):
    state = family_state(architecture)
    for step in range(3):
        state.train_step(small_batch(6, seed=step))
    weights = {name: value.clone() for name, value in state.head.state_dict().items()}
    saved = state.state_dict()
    saved = saved | {"parameters": {name: value.clone() for name, value in saved["parameters"].items()}}
    saved = torch.load(_written(saved), weights_only=False)
    expected = [state.train_step(small_batch(6, seed=step)) for step in (3, 4)]

    other = family_state(architecture)
    other.head.load_state_dict(weights)
    other.load_state_dict(saved)
    assert [other.train_step(small_batch(6, seed=step)) for step in (3, 4)] == expected
    assert len({metrics["train/lm_loss"] for metrics in expected}) == 2


def _written(content: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("architecture", FAMILY)
def test_recomputing_activations_changes_no_bit(architecture: str):
    losses = []
    for recompute in (False, True):
        state = family_state(architecture, recompute=recompute)
        losses.append([state.train_step(small_batch(6, seed=step))["train/lm_loss"] for step in range(3)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("architecture", FAMILY)
def test_every_parameter_learns(architecture: str):
    model = spread_halting(family_model(architecture))
    batch = small_batch(6)
    head = ACTLossHead(model)
    head(head.initial_carry(batch), batch)[1].backward()
    untrained = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert untrained == []


@pytest.mark.parametrize("architecture", FAMILY)
def test_an_answer_depends_on_its_example_alone(architecture: str):
    overrides = {"noise_scale": 0.0} if architecture == "eqr" else {}
    model = spread_halting(family_model(architecture, **overrides)).eval()
    batch = small_batch(5)

    def answers(rows: slice) -> torch.Tensor:
        data = {name: values[rows] for name, values in batch.items()}
        return torch.stack([outputs["logits"] for _, outputs in model.answer_steps(data, max_steps=3)])

    together, alone = answers(slice(0, 5)), answers(slice(2, 3))
    torch.testing.assert_close(together[:, 2:3], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(answers(slice(0, 5)), together)


@pytest.mark.parametrize("architecture", FAMILY)
def test_operations_and_memory_are_known_before_a_run(architecture: str):
    own = {key: value for key, value in (CONFIG | OWN.get(architecture, {})).items() if key not in FROM_DATA}
    name = "recursive_reasoning." + FAMILY[architecture]
    loss = {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"}
    arch = ArchConfig.model_validate({"name": name, "loss": loss, **own})
    more = ArchConfig.model_validate({"name": name, "loss": loss, **own, "L_layers": 2})
    one, two = (flops_per_example(a, CONFIG["vocab_size"], CONFIG["seq_len"]) for a in (arch, more))
    assert 1.5 * one < two < 2 * one
    config = PretrainConfig.model_validate({"arch": arch, "global_batch_size": 6})
    needs = step_memory(config, CONFIG["vocab_size"], CONFIG["seq_len"], 5, 1, "float32", compiled=False)
    states = family_model(architecture).inner.empty_states(6, torch.device("cpu")).values()
    assert needs.states == 2 * sum(z.nbytes for z in states)
    assert needs.activations > 0


def test_a_model_computes_in_bfloat16():
    for architecture in FAMILY:
        state = family_state(architecture, forward_dtype="bfloat16")
        assert state.train_step(small_batch(6))["train/lm_loss"] > 0


# -- URM ---------------------------------------------------------------------------------------------------------------


def test_urm_accepts_the_published_names_of_its_settings():
    model = family_model("urm", num_layers=3, loops=7)
    assert (len(model.blocks), model.config.halt_max_steps) == (3, 7)


def test_a_position_of_urm_sees_the_one_before_it():
    mlp: Any = family_model("urm").blocks[0].mlp
    u = torch.randn(2, 6, mlp.down_proj.weight.shape[1])
    expected = torch.nn.functional.conv1d(u.mT, mlp.dwconv.weight, mlp.dwconv.bias, padding=1, groups=u.shape[-1]).mT[
        :, :-1
    ]
    torch.testing.assert_close(mlp.convolve(u), expected)


# -- EqR ---------------------------------------------------------------------------------------------------------------


def test_starts_are_truncated_normals_that_depend_on_the_seed_alone():
    model = family_model("eqr", L_init_std=2.0)
    starts = model.starts(torch.arange(200))
    assert starts["z_H"].shape == (200, 6, 16)
    assert starts["z_H"].std() == pytest.approx(1, abs=0.02)
    assert starts["z_L"].std() == pytest.approx(2, abs=0.04)
    assert starts["z_H"].abs().max() <= 2 / 0.8796 + 1e-3
    assert torch.equal(model.starts(torch.tensor([7]))["z_L"][0], starts["z_L"][7])
    assert abs(torch.corrcoef(torch.stack((starts["z_H"].flatten(), starts["z_L"].flatten())))[0, 1]) < 0.03


def test_the_noise_of_an_evaluation_can_be_switched_off():
    for noisy in (True, False):
        model = family_model("eqr", noise_scale=0.1, noise_in_evaluation=noisy).eval()
        first, second = (list(model.answer_steps(small_batch(2)))[-1][1]["logits"] for _ in range(2))
        assert torch.equal(first, second) != noisy


# -- SE-RRM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_permuting_the_symbols_permutes_the_logits(positions: str):
    model = family_model("se_rrm", puzzle_emb_ndim=0, add_tokens=2, pos_encodings=positions).eval()
    batch = small_batch(4)
    permutation = torch.tensor([0, 1, 5, 2, 6, 4, 3])
    permuted = batch | {"inputs": permutation[batch["inputs"]]}
    steps = zip(model.answer_steps(batch), model.answer_steps(permuted), strict=True)
    for (_, plain), (_, moved) in steps:
        # The logit of symbol c before is the logit of permutation[c] afterwards, to the last bit if products do not
        # depend on the place of a row, as with AVX-512 but not with AVX2.
        torch.testing.assert_close(moved["logits"][..., permutation], plain["logits"], rtol=1e-5, atol=1e-5)


def test_special_symbols_are_told_apart():
    model = family_model("se_rrm", puzzle_emb_ndim=0).eval()
    batch = small_batch(4)
    permutation = torch.tensor([1, 0, 2, 3, 4, 5, 6])
    plain, moved = (
        next(iter(model.answer_steps(data)))[1]["logits"]
        for data in (batch, batch | {"inputs": permutation[batch["inputs"]]})
    )
    assert not torch.allclose(moved[..., permutation], plain, atol=1e-3)


def test_dropout_is_off_in_evaluation_unless_it_is_wanted():
    for wanted in (False, True):
        model = family_model("se_rrm", dropout=0.5, dropout_in_evaluation=wanted).eval()
        first, second = (list(model.answer_steps(small_batch(2)))[-1][1]["logits"] for _ in range(2))
        assert torch.equal(first, second) != wanted


def test_a_slot_halts_by_chance():
    model = family_model("se_rrm", halt_exploration_prob=0.25, halt_max_steps=9)
    drawn = model.draw_step(4000, torch.Generator().manual_seed(0))["min_steps"]
    assert set(drawn.tolist()) == {0, 9}
    assert (drawn == 0).float().mean() == pytest.approx(0.25, abs=0.03)


# -- FPRM --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", ["pre-norm", "peri-norm", "post-norm"])
@pytest.mark.parametrize("placement", ["none", "input", "output"])
def test_the_norms_of_fprm(norm_type: str, placement: str):
    for scale, outer_only in (("input-independent", False), ("fixed", True), ("none", False)):
        options = {"residual_scale": scale, "outer_only": outer_only, "softmax_temp": 2.0}
        state = family_state("fprm", norm_type=norm_type, norm_placement=placement, **options)
        assert state.train_step(small_batch(6))["train/lm_loss"] > 0


def test_the_convolution_on_a_grid_is_centred():
    model = family_model("fprm", conv_type="conv2d", conv_kernel_size=3, board_height=2, board_width=3)
    level = model.inner.L_level
    with torch.no_grad():
        level.conv.weight.zero_()
        level.conv.weight[:, 0, 1, 2] = 1.0  # the cell on the right
    h = torch.randn(2, 7, 16)
    mixed = level.convolve(h)
    assert torch.equal(mixed[:, 0], h[:, 0])
    grid, expected = h[:, 1:].view(2, 2, 3, 16), mixed[:, 1:].view(2, 2, 3, 16)
    assert torch.equal(expected[:, :, :2], grid[:, :, 1:])
    assert not expected[:, :, 2].any()


def test_scales_keep_the_weight_decay_off():
    state = family_state("fprm")
    assert state.dense is not None
    decayed, undecayed = state.dense.param_groups
    level: Any = state.head.model.inner.L_level
    assert {id(p) for p in undecayed["params"]} == {id(level.alpha_1_param), id(level.alpha_2_param)}
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("together", [False, True])
def test_a_slot_halts_at_its_fixed_point(together: bool):
    batch = small_batch(6)
    restless = family_model("fprm", fp_thresh=0).eval()
    with torch.no_grad():
        threshold = float(restless(restless.initial_carry(batch), batch)[1]["residues"].median()) * 1.001
        model = family_model("fprm", fp_thresh=threshold, eval_stops_together=together).eval()
        carry, outputs = model(model.initial_carry(batch), batch)
    settled = outputs["residues"] < threshold
    assert 0 < settled.sum() < 6
    assert torch.equal(carry.halted, torch.zeros_like(settled) if together else settled)


# -- WTA ---------------------------------------------------------------------------------------------------------------


def test_one_chain_is_trm():
    batch = small_batch(6)
    trm, wta = small_model("trm"), family_model("trm_wta", num_chains=1)
    wta.load_state_dict(trm.state_dict(), strict=False)
    results = []
    for model in (trm, wta):
        head = ACTLossHead(model)
        carry, loss, *_ = head(head.initial_carry(batch), batch)
        carry, loss, *_ = head(carry, batch)
        results.append((loss, carry.states["z_H"], carry.states["z_L"].view_as(carry.states["z_H"])))
    for mine, theirs in zip(*results, strict=True):
        assert torch.equal(mine, theirs)


def test_the_chain_with_the_lowest_loss_wins():
    batch = small_batch(6)
    model = family_model("trm_wta", num_chains=3)
    head = ACTLossHead(model)
    _, together, *_ = head(head.initial_carry(batch), batch)
    first, more = model.inner.L_init.clone(), model.inner.more_L_init
    alone = []
    for start in (first, *more):
        single = family_model("trm_wta", num_chains=1)
        single.load_state_dict(
            {name: value for name, value in model.state_dict().items() if name != "inner.more_L_init"}, strict=False
        )
        single.inner.L_init.copy_(start)
        outputs = single(single.initial_carry(batch), batch)[1]
        score = Score(outputs["logits"].argmax(-1), outputs["q_halt_logits"], batch["labels"])
        alone.append(torch.stack(head.example_losses(outputs, batch["labels"], score)))
    losses = torch.stack(alone)  # [chains, 2, batch]
    best = losses[:, 0].argmin(0)
    assert len(set(best.tolist())) > 1
    expected = sum(losses[best[row], 0, row] + 0.5 * losses[best[row], 1, row] for row in range(6))
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-6)


# -- options that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("urm", {"mlp_t": True}, "mlp_t"),
        ("eqr", {"puzzle_emb_ndim": 16}, "has no puzzle embedding"),
        ("eqr", {"pos_encodings": "rope2d", "hidden_size": 12}, "multiple of 4"),
        ("eqr", {"pos_encodings": "rope2d"}, "not the 6 cells"),
        ("se_rrm", {"head_dim": 7}, "multiple of 2"),
        ("se_rrm", {"mlp_t": True}, "mlp_t"),
        ("se_rrm", {"no_ACT_continue": False}, "no halting head"),
        ("fprm", {"conv_type": "conv2d", "conv_kernel_size": 4}, "odd"),
        ("fprm", {"conv_type": "conv2d", "conv_kernel_size": 3}, "not the 6 cells"),
        ("fprm", {"residual_scale": "input-dependent"}, "input-independent"),
        ("trm_wta", {"eval_chains": 4}, "at most num_chains"),
        ("trm_wta", {"no_ACT_continue": False}, "several chains"),
    ],
)
def test_options_that_do_not_fit_are_refused(architecture: str, options: dict, message: str):
    with pytest.raises(Exception, match=message):
        family_model(architecture, **options)


@pytest.mark.parametrize("equivariant", [True, False])
@pytest.mark.parametrize("options", [{"puzzle_emb_ndim": 0}, {"add_tokens": 2}, {"pos_encodings": "learned"}], ids=str)
def test_the_options_of_se_rrm(equivariant: bool, options: dict):
    state = family_state("se_rrm", equivariant_symbols=equivariant, **options)
    assert state.train_step(small_batch(6))["train/lm_loss"] > 0


@pytest.mark.parametrize("positions", ["rope", "rope2d", "learned", "none"])
def test_the_positions_of_eqr(positions: str):
    state = family_state("eqr", pos_encodings=positions, board_height=2, board_width=3)
    assert state.train_step(small_batch(6))["train/lm_loss"] > 0


# -- published files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "architecture"),
    [
        ("eqr@EqRModel", "eqr"),
        ("recursive_reasoning.trm_equi@SERRM", "se_rrm"),
        ("fixed_point_reasoning.fprm@FixedPointReasoningModel_ACTV1", "fprm"),
    ],
)
def test_published_names_of_classes_are_known(published: str, architecture: str):
    assert isinstance(family_model(architecture), load_class(published))


def test_weights_of_urm_lie_in_a_file_with_other_things(tmp_path: Path):
    head = ACTLossHead(family_model("urm"))
    weights = {f"_orig_mod.{name}": value for name, value in head.state_dict().items()}
    torch.save({"model_state_dict": weights, "optimizer_states": [], "step": 7}, tmp_path / "step_7")
    loaded = load_weights(tmp_path / "step_7")
    check_fits(loaded, head, tmp_path)
    assert all(torch.equal(loaded[name], value) for name, value in head.state_dict().items())


def test_masks_of_fprm_are_left_out_unless_they_mask_something(tmp_path: Path):
    head = ACTLossHead(family_model("fprm"))
    name = "model.inner.lm_head"
    weights = head.state_dict()
    mask = torch.ones_like(weights[f"{name}.weight"])
    torch.save(weights | {f"{name}.mask": mask}, tmp_path / "step_1")
    check_fits(load_weights(tmp_path / "step_1"), head, tmp_path)
    mask[0, 0] = 0
    torch.save(weights | {f"{name}.mask": mask}, tmp_path / "step_2")
    with pytest.raises(UserError, match=r"lm_head\.mask"):
        check_fits(load_weights(tmp_path / "step_2"), head, tmp_path)
