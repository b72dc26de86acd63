"""Text models: the formulas, halting per position, and the answers for evaluation and generation."""

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.act import Carry
from models.factory import check_arch
from models.inner import Level
from models.layers import RotaryEmbedding, rotate
from models.text.model import TextModel
from tests.models.small_text import (
    HALTING,
    TEXT_ARCHITECTURES,
    set_text_q,
    small_text,
    small_text_model,
)
from tests.models.text.test_causal import plain_attention
from utils.errors import UserError
from utils.settings import ArchConfig

Weights = dict[str, Tensor]


# -- the formulas, written out ----------------------------------------------------------------------------------------


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def plain_self_attention(x: Tensor, weights: Weights, documents: Tensor, heads: int) -> Tensor:
    rotation = RotaryEmbedding(x.shape[-1] // heads, x.shape[1], 1e4)()
    parts = (x @ weights["self_attn.qkv_proj.weight"].T).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    y = plain_attention(rotate(q, rotation), rotate(k, rotation), v, documents, across=False)
    return y.transpose(1, 2).flatten(2) @ weights["self_attn.o_proj.weight"].T


def plain_swiglu(x: Tensor, weights: Weights) -> Tensor:
    gate, up = (x @ weights["mlp.gate_up_proj.weight"].T).chunk(2, dim=-1)
    return (gate * gate.sigmoid() * up) @ weights["mlp.down_proj.weight"].T


def layers_of(model: TextModel, level: str) -> list[Weights]:
    found: list[Weights] = [{}, {}]
    for name, p in model.named_parameters():
        if name.startswith(f"inner.{level}.layers."):
            number, _, rest = name.removeprefix(f"inner.{level}.layers.").partition(".")
            found[int(number)][rest] = p.detach()
    return found


def level_of(model: TextModel) -> Level:
    level = model.inner.L_level
    assert isinstance(level, Level)
    return level


def embedded(model: TextModel, inputs: Tensor) -> Tensor:
    return model.inner.embed_tokens.embedding_weight.detach()[inputs.long()] * 4  # sqrt(16)


def test_causal_trm_is_the_formula():
    model, batch = small_text_model("trm"), small_text(rows=2)
    layers, x = layers_of(model, "L_level"), embedded(model, batch["inputs"])

    def level(h: Tensor) -> Tensor:
        for weights in layers:
            h = norm(h + 0.2 * norm(plain_self_attention(h, weights, batch["documents"], heads=2)))
            h = norm(h + 0.2 * norm(plain_swiglu(h, weights)))
        return h

    z_H, z_L = x, torch.zeros_like(x)
    carry = model.initial_carry(batch)
    set_text_q(model, -1)
    for _ in range(3):
        for _ in range(2):
            z_L = level(z_L + z_H + x)
        z_H = level(z_H + z_L)
        carry, outputs = model(carry, batch)
        torch.testing.assert_close(carry.states["z_L"], z_L, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(carry.states["z_H"], z_H, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs["answer"].detach(), z_H, rtol=1e-4, atol=1e-5)
        expected = z_H @ model.inner.embed_tokens.embedding_weight.detach().T
        torch.testing.assert_close(model.logits(outputs["answer"]).detach(), expected, rtol=1e-4, atol=1e-4)


def test_flat_transformer_is_the_formula():
    model, batch = small_text_model("flat"), small_text(rows=2)
    h = embedded(model, batch["inputs"])
    for weights in layers_of(model, "H_level"):
        h = h + plain_self_attention(norm(h), weights, batch["documents"], heads=2)
        h = h + plain_swiglu(norm(h), weights)
    _, outputs = model(model.initial_carry(batch), batch)
    torch.testing.assert_close(outputs["answer"].detach(), norm(h), rtol=1e-4, atol=1e-5)


def test_all_cycles_are_trained_through_with_one_outer_cycle():
    """The gradient of a layer's weights is that through every use of them, the first included."""
    model, batch = small_text_model("trm"), small_text()
    torch.manual_seed(0)
    copies = [small_text_model("trm") for _ in range(3)]  # one for each pass of the level in a step

    def answer_sum(levels: list[Level]) -> Tensor:
        inner = model.inner
        states = inner.reset_states(inner.empty_states(4, torch.device("cpu")), torch.ones(4, dtype=torch.bool))
        x, view = inner.embed(batch).detach(), inner.view(batch["documents"], cut_documents=True, record=False)
        assert not any(states[name].any() for name in inner.states)
        z_L = levels[0](states["z_L"], x + x, view)  # the answer starts at the embedded tokens
        z_L = levels[1](z_L, x + x, view)
        return (levels[2](x, z_L, view) * torch.linspace(-1, 1, 16)).sum()

    levels = [level_of(copy) for copy in copies]
    answer_sum(levels).backward()
    _, outputs = model(model.initial_carry(batch), batch)
    (outputs["answer"] * torch.linspace(-1, 1, 16)).sum().backward()
    for mine, *parts in zip(level_of(model).parameters(), *(level.parameters() for level in levels), strict=True):
        assert mine.grad is not None
        gradients = [p.grad for p in parts if p.grad is not None]
        assert all(gradient.any() for gradient in gradients)
        torch.testing.assert_close(mine.grad, sum(gradients), rtol=1e-3, atol=1e-4)


# -- halting ----------------------------------------------------------------------------------------------------------


def steps_of(model: TextModel, min_steps: Tensor | None = None, rows: int = 4) -> list[tuple[Carry, dict[str, Tensor]]]:
    """What each step of one batch gives."""
    batch, found = small_text(rows), []
    carry = model.initial_carry(batch)
    for _ in range(model.config.halt_max_steps):
        carry, outputs = model(carry, batch, min_steps)
        found.append((carry, outputs))
    return found


@pytest.mark.parametrize("architecture", HALTING)
def test_halting_is_that_of_a_loop(architecture: str):
    """Against positions one by one; rows explore, and so positions settle at every step."""
    model, minimum = small_text_model(architecture), torch.tensor([0, 2, 3, 4])
    batch, inner = small_text(), model.inner
    view = inner.view(batch["documents"], cut_documents=True, record=False)
    z = {name: getattr(inner, str(init)).expand(4, 12, 16).clone() for name, init in inner.states.items()}
    settled_at: dict[tuple[int, int], int] = {}
    for step, (carry, outputs) in enumerate(steps_of(model, minimum), 1):
        with torch.no_grad():
            new = inner.recurse(z, inner.embed(batch), view)
            for row in range(4):
                for at in range(12):
                    assert bool(outputs["active"][row, at]) == ((row, at) not in settled_at)
                    if (row, at) in settled_at:
                        continue
                    for name in z:
                        z[name][row, at] = new[name][row, at]
                    wants = bool(inner.q_head(z["z_H"][row, at])[0] > 0)
                    if wants and step >= minimum[row]:
                        settled_at[row, at] = step
        for name, expected in z.items():
            torch.testing.assert_close(carry.states[name], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs["answer"].detach(), z["z_H"], rtol=1e-4, atol=1e-5)
        made = [[settled_at.get((row, at), step) for at in range(12)] for row in range(4)]
        assert carry.states["answer_steps"].tolist() == made
        assert carry.states["settled"].tolist() == [[(row, at) in settled_at for at in range(12)] for row in range(4)]
        assert carry.halted.tolist() == [step == 4] * 4
    assert set(settled_at.values()) == {1, 2, 3, 4}


@pytest.mark.parametrize("architecture", HALTING)
def test_settled_positions_keep_the_answer_that_they_settled_with(architecture: str):
    found = steps_of(small_text_model(architecture))
    for (before, earlier), (after, later) in pairwise(found):
        settled = before.states["settled"]
        assert settled.any()
        assert not settled.all()
        for name in ("z_H", "z_L"):
            assert torch.equal(after.states[name][settled], before.states[name][settled])
            assert not torch.equal(after.states[name][~settled], before.states[name][~settled])
        assert torch.equal(later["answer"][settled], earlier["answer"][settled])
        assert after.states["settled"][settled].all()


@pytest.mark.parametrize("architecture", HALTING)
def test_later_positions_see_the_recursion_of_settled_ones(architecture: str):
    """The first position of a row settles at once in one of two models; the others, which never do, notice."""
    model, batch = set_text_q(small_text_model(architecture), -1), small_text()
    carry, _ = model(model.initial_carry(batch), batch)
    frozen = carry.map(torch.clone)
    frozen.states["settled"][2, 0] = True
    (one, _), (other, _) = (model(*(c, batch)) for c in (carry, frozen))
    # in the step itself the recursion of the settled position is run like any other
    assert torch.equal(one.states["z_H"][2, 1:], other.states["z_H"][2, 1:])
    (one, _), (other, _) = (model(*(c, batch)) for c in (one, other))
    assert not torch.equal(one.states["z_H"][2, 1:], other.states["z_H"][2, 1:])
    # with experts, the rows of an expert are multiplied together, so the change of one may round the others otherwise
    torch.testing.assert_close(one.states["z_H"][[0, 1, 3]], other.states["z_H"][[0, 1, 3]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
def test_the_halting_head_of_a_position_reads_its_own_state(architecture: str):
    model = small_text_model(architecture)
    answer = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    states = dict.fromkeys(model.inner.states, answer)
    _, q_halt = model.inner.read(states)
    assert q_halt.shape == (4, 12)
    for row, at in [(0, 0), (1, 5), (3, 11)]:
        (gradient,) = torch.autograd.grad(q_halt[row, at], answer, retain_graph=True)
        torch.testing.assert_close(gradient[row, at], model.inner.q_head.weight[0])
        gradient[row, at] = 0
        assert not gradient.any()


def test_rows_of_a_batch_begin_and_end_together():
    model, batch, later = set_text_q(small_text_model(), 1), small_text(), small_text(seed=9)
    carry = model.initial_carry(batch)
    for step in range(1, 9):
        carry, outputs = model(carry, batch if step <= 4 else later)
        assert torch.equal(carry.current_data["inputs"], (batch if step <= 4 else later)["inputs"])
        assert carry.halted.tolist() == [step % 4 == 0] * 4
        assert bool(outputs["active"].all()) == (step % 4 == 1)  # all settle with their first step


def test_no_position_settles_before_its_row_has_explored():
    model = set_text_q(small_text_model(halt_exploration_prob=1.0), 1)
    carry, _ = steps_of(model, min_steps=torch.tensor([0, 2, 3, 4]))[-1]
    assert carry.states["answer_steps"].tolist() == [[1] * 12, [2] * 12, [3] * 12, [4] * 12]


def test_exploration_is_drawn_where_none_is_given():
    model = set_text_q(small_text_model(halt_exploration_prob=1.0), 1)
    torch.manual_seed(0)
    carry, _ = steps_of(model, rows=64)[0]
    assert not carry.states["settled"].any()


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
def test_evaluation_makes_every_step_at_every_position(architecture: str):
    carry, outputs = steps_of(set_text_q(small_text_model(architecture), 9).eval())[-1]
    assert carry.halted.all()
    assert outputs["active"].all()
    assert (carry.states["answer_steps"] == carry.steps[0]).all()


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
def test_rows_do_not_depend_on_one_another(architecture: str):
    model = small_text_model(architecture).eval()
    batch = small_text()
    for halting in (False, True):
        together, steps = model.answers(batch["inputs"], batch["documents"], halting)
        for row in range(4):
            mine = slice(row, row + 1)
            alone, own_steps = model.answers(batch["inputs"][mine], batch["documents"][mine], halting)
            torch.testing.assert_close(together[mine], alone, rtol=1e-4, atol=1e-5)
            assert torch.equal(steps[mine], own_steps)


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", HALTING)
@pytest.mark.parametrize("halting", [False, True])
def test_answers_are_those_of_the_steps(architecture: str, halting: bool):
    model, batch = small_text_model(architecture), small_text()
    carry, outputs = steps_of(model.train(halting))[-1]  # in training positions settle, in evaluation they do not
    answer, steps = model.eval().answers(batch["inputs"], batch["documents"], halting)
    torch.testing.assert_close(answer, outputs["answer"].detach())
    assert torch.equal(steps, carry.states["answer_steps"])
    assert len(steps.unique()) == (4 if halting else 1)
    assert not answer.requires_grad


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
@pytest.mark.parametrize("halting", [False, True])
def test_a_prefix_is_answered_as_in_the_whole(architecture: str, halting: bool):
    model, inputs = small_text_model(architecture).eval(), small_text()["inputs"]
    whole, whole_steps = model.answers(inputs, halting=halting)
    for length in (1, 7):
        prefix, steps = model.answers(inputs[:, :length], halting=halting)
        torch.testing.assert_close(prefix, whole[:, :length], rtol=1e-4, atol=1e-5)
        assert torch.equal(steps, whole_steps[:, :length])


def test_answers_end_when_all_positions_have_settled():
    model, calls = set_text_q(small_text_model(), 1).eval(), []
    level_of(model).register_forward_hook(lambda *_: calls.append(1))
    _, steps = model.answers(small_text()["inputs"], halting=True)
    assert steps.unique().tolist() == [1]
    assert len(calls) == 3  # L_cycles + 1


def test_evaluation_may_make_another_number_of_steps():
    model, inputs = small_text_model().eval(), small_text()["inputs"]
    assert model.answers(inputs, max_steps=7)[1].unique().tolist() == [7]


def test_rows_longer_than_the_model_reads_are_refused():
    with pytest.raises(UserError, match="13 tokens: this model reads at most seq_len=12"):
        small_text_model().answers(torch.zeros(1, 13, dtype=torch.int32))


# -- configurations and dtypes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("trm", {"inner_size": 0}, "inner_size"),
        ("trm", {"num_heads": 16}, "is odd"),
        ("flat", {"halt_max_steps": 2}, "less than or equal to 1"),
        ("moeut", {"experts_per_token": 6}, "experts_per_token 6: at most num_experts, 5"),
        ("moeut", {"attention_experts_per_token": 4}, "at most num_attention_experts, 3"),
        ("moeut", {"expert_size": 12}, "expert_size 12: .* multiples of 8"),
        ("moeut", {"num_heads": 4}, "hidden_size // num_heads 4: .* multiples of 8"),
    ],
)
def test_impossible_configurations_are_refused(architecture: str, options: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        small_text_model(architecture, **options)


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
@pytest.mark.parametrize("key", ["mlp_t", "pos_encodings", "puzzle_emb_ndim", "puzzle_emb_len", "no_ACT_continue"])
def test_text_has_none_of_the_keys_of_puzzles(architecture: str, key: str):
    name = f"recursive_reasoning.{TEXT_ARCHITECTURES[architecture]}"
    loss = {"name": "text.loss@TextLossHead", "loss_type": "softmax_cross_entropy"}
    with pytest.raises(UserError, match=rf"arch\.{key}: no such key"):
        check_arch(ArchConfig.model_validate({"name": name, "loss": loss, key: 1}), data="text")


def test_the_inner_width_may_follow_from_the_expansion():
    width = {"inner_size": None, "expansion": 4.0, "hidden_size": 192}
    weight = dict(small_text_model(**width).named_parameters())["inner.L_level.layers.0.mlp.down_proj.weight"]
    assert weight.shape == (192, 512)  # two thirds of 4 * 192


def test_the_answer_is_read_with_the_embedding_table():
    model = small_text_model()
    assert not any(name.startswith("inner.lm_head") for name in model.state_dict())
    z = torch.randn(3, 16)
    torch.testing.assert_close(model.logits(z), z @ model.inner.embed_tokens.embedding_weight.T)


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
def test_bf16_is_close_to_fp32(architecture: str):
    exact, coarse = (
        small_text_model(architecture, forward_dtype=dtype, halt_max_steps=1) for dtype in ("float32", "bfloat16")
    )
    batch = small_text()
    _, outputs = exact(exact.initial_carry(batch), batch)
    carry, coarse_outputs = coarse(coarse.initial_carry(batch), batch)
    assert {p.dtype for p in coarse.parameters()} == {torch.float32}
    assert carry.states["z_H"].dtype == coarse_outputs["answer"].dtype == torch.bfloat16
    assert coarse_outputs["q_halt_logits"].dtype == torch.float32
    fine, found = outputs["answer"].detach(), coarse_outputs["answer"].detach().float()
    assert 0 < (fine - found).norm() / fine.norm() < 0.05
    coarse_outputs["answer"].float().square().sum().backward()
    gradients = [p.grad for name, p in coarse.named_parameters() if not name.startswith("inner.q_head")]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)
