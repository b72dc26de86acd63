"""The parts around the recursion: the embedded question, the initial states, the heads, and bf16."""

import pytest
import torch
from pydantic import ValidationError

from models.layers import CastedEmbedding
from tests.models.small import ARCHITECTURES, CONFIG, small_batch, small_model, spread_q

STATES = {
    "trm": ["z_H", "z_L"],
    "trm_singlez": ["z_L"],
    "trm_hier6": ["z_H", "z_L1", "z_L2", "z_L3", "z_L4", "z_L5", "z_L6"],
    "hrm": ["z_H", "z_L"],
    "transformers_baseline": ["z_H"],
}


@pytest.mark.parametrize(
    ("architecture", "ndim", "length", "tokens"),
    [
        ("trm", 16, 0, 1),
        ("trm", 17, 0, 2),
        ("trm", 17, 3, 3),
        ("trm", 0, 0, 0),
        ("trm", 0, 3, 0),
        ("hrm", 17, 5, 2),
        ("transformers_baseline", 16, 5, 1),
    ],
)
def test_puzzle_embedding_is_padded_to_whole_tokens(architecture: str, ndim: int, length: int, tokens: int):
    model = small_model(architecture, puzzle_emb_ndim=ndim, puzzle_emb_len=length)
    batch = small_batch(3)
    x = model.inner.embed(batch)
    assert x.shape == (3, tokens + 6, 16)
    for row in range(3):
        puzzle, table = batch["puzzle_identifiers"][row], model.puzzle_emb
        numbers = [] if table is None else table.weights[puzzle].tolist()
        numbers += [0.0] * (16 * tokens - len(numbers))
        words = model.inner.embed_tokens.embedding_weight[batch["inputs"][row]]
        expected = torch.cat((torch.tensor(numbers).view(tokens, 16), words)) * 4  # sqrt(16)
        torch.testing.assert_close(x[row], expected)
    _, outputs = model(model.initial_carry(batch), batch)
    assert outputs["logits"].shape == (3, 6, 7)


def test_learned_positions_are_added_and_the_sum_scaled_back():
    plain, learned = small_model(pos_encodings="none"), small_model(pos_encodings="learned")
    learned.load_state_dict(plain.state_dict(), strict=False)
    positions = learned.inner.embed_pos
    assert isinstance(positions, CastedEmbedding)
    assert positions.embedding_weight.shape == (7, 16)
    batch = small_batch(3)
    expected = (plain.inner.embed(batch) / 4 + positions.embedding_weight) / 2**0.5 * 4
    torch.testing.assert_close(learned.inner.embed(batch), expected)
    assert learned.inner.rotary is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_start_from_fixed_vectors_that_are_not_trained(architecture: str):
    model = small_model(architecture, hidden_size=512, forward_dtype="bfloat16")
    names = [z.removeprefix("z_") + "_init" for z in STATES[architecture]]
    buffers = {name.removeprefix("inner."): b for name, b in model.named_buffers() if name.endswith("_init")}
    assert sorted(buffers) == sorted(names)
    for vector in buffers.values():
        assert vector.shape == (512,)
        assert vector.dtype == torch.bfloat16
        assert float(vector.float().std()) == pytest.approx(1, abs=0.1)
        assert float(vector.abs().max()) <= 2.28  # two standard deviations before the cut
    carry = model.initial_carry(small_batch(2))
    assert sorted(carry.states) == sorted(STATES[architecture])
    started = model.inner.reset_states(carry.states, torch.tensor([True, False]))
    for z, name in zip(STATES[architecture], names, strict=True):
        assert torch.equal(started[z][0], buffers[name].expand(7, 512))
        assert not started[z][1].any()


def test_halting_starts_unlikely():
    model, batch = small_model(), small_batch(3)
    _, outputs = model(model.initial_carry(batch), batch)
    assert outputs["q_halt_logits"].tolist() == outputs["q_continue_logits"].tolist() == [-5.0] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 17}, "at most hidden_size"),
        ({"hidden_size": 18, "num_heads": 2}, "is odd"),
        ({"puzzle_emb_ndim": 33, "puzzle_emb_len": 2}, "does not fit"),
        ({"pos_encodings": "alibi"}, "pos_encodings"),
        ({"H_cycles": 0}, "H_cycles"),
    ],
)
def test_impossible_configurations_are_refused(options: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        small_model(**options)


def test_six_latents_allow_six_inner_cycles():
    small_model("trm_hier6", L_cycles=6)
    with pytest.raises(ValidationError, match="L_cycles"):
        small_model("trm_hier6", L_cycles=7)


# -- bf16 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"pos_encodings": "learned"}, {"mlp_t": True, "pos_encodings": "none"}])
def test_bf16_is_close_to_fp32(options: dict):
    exact = spread_q(small_model(**options))
    coarse = spread_q(small_model(**options, forward_dtype="bfloat16"))
    coarse.load_state_dict(exact.state_dict())
    batch = small_batch(8)
    carry, outputs = exact(exact.initial_carry(batch), batch)
    coarse_carry, coarse_outputs = coarse(coarse.initial_carry(batch), batch)

    assert {p.dtype for p in coarse.parameters()} == {torch.float32}
    assert {z.dtype for z in coarse_carry.states.values()} == {torch.bfloat16}
    assert coarse_outputs["logits"].dtype == torch.bfloat16
    assert coarse_outputs["q_halt_logits"].dtype == coarse_outputs["q_continue_logits"].dtype == torch.float32
    # the head itself computes in bf16: its logits are bf16 numbers
    assert torch.equal(coarse_outputs["q_halt_logits"], coarse_outputs["q_halt_logits"].bfloat16().float())
    pairs = [(carry.states[name], z) for name, z in coarse_carry.states.items()]
    for fine, found in [*pairs, *((outputs[key], coarse_outputs[key]) for key in outputs)]:
        error = (fine - found.float()).norm() / fine.norm()
        assert 0 < error < 0.05


def test_bf16_gradients_reach_the_fp32_masters():
    model = small_model(forward_dtype="bfloat16")
    batch = small_batch(4)
    _, outputs = model(model.initial_carry(batch), batch)
    outputs["logits"].float().square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if not name.startswith("inner.q_head")}
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert gradient.dtype == torch.float32
        assert gradient.any(), name
    assert model.puzzle_emb is not None
    pending = model.puzzle_emb.take_gradient()
    assert pending is not None
    assert pending[1].dtype == torch.float32


@pytest.mark.parametrize("saved", ["bfloat16", "float32"])
@pytest.mark.parametrize("loaded", ["bfloat16", "float32"])
def test_initial_states_load_from_either_dtype(saved: str, loaded: str):
    weights = small_model(forward_dtype=saved, H_cycles=1).state_dict()
    model = small_model(forward_dtype=loaded)
    for name in ("H_init", "L_init"):
        getattr(model.inner, name).zero_()
    model.load_state_dict(weights)
    for name in ("H_init", "L_init"):
        vector = getattr(model.inner, name)
        assert str(vector.dtype) == f"torch.{loaded}"
        assert torch.equal(vector, weights[f"inner.{name}"].to(vector.dtype))


def test_keys_that_an_architecture_does_not_use_are_accepted():
    assert small_model(entity="someone", loss={"name": "losses@ACTLossHead"}).config.vocab_size == CONFIG["vocab_size"]
