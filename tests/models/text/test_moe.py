"""Mixtures of experts: sparse against dense computation, its cost, the regulariser, the loads, the initial weights."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from models.layers import RotaryEmbedding, rms_norm, rotate
from models.recursive_reasoning.text_moeut import TextMoEModel
from models.text import moe
from models.text.causal import PostNormBlock, TextView, attend, document_lengths
from models.text.loss import TextLossHead
from models.text.moe import ExpertAttention, ExpertFeedForward
from models.text.selection import Selections, Selector
from tests.models.small_text import CONFIG, small_text, small_text_head, small_text_model
from tests.ranks import on_two_ranks
from utils.constants import NO_DOCUMENT
from utils.distributed import GradientSum
from utils.hydra import compose

WIDTH, EPS = 16, 1e-5
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def view_of_text(width: int = WIDTH, record: bool = True) -> TextView:
    documents = small_text()["documents"]
    rotation = RotaryEmbedding(width, documents.shape[1], 1e4)()
    return TextView(
        rotation,
        real=documents != NO_DOCUMENT,
        lengths=document_lengths(documents),
        selections=Selections() if record else None,
    )


def states(seed: int = 0) -> Tensor:
    return torch.randn(4, 12, WIDTH, generator=torch.Generator().manual_seed(seed))


def feed_forward(experts: int, chosen: int, size: int = 8) -> ExpertFeedForward:
    torch.manual_seed(experts)
    return spread(ExpertFeedForward(WIDTH, experts, size, chosen, 0.01, 1.0, EPS))


def attention(heads: int, experts: int, chosen: int) -> ExpertAttention:
    torch.manual_seed(experts)
    return spread(ExpertAttention(WIDTH, heads, experts, chosen, 0.001, 1.0, EPS))


@torch.no_grad()
def spread(module: ModuleT) -> ModuleT:
    """Weights large enough for every part to matter, and an output scale that is not one."""
    for name, parameter in module.named_parameters():
        parameter.fill_(0.7) if name == "output_scale" else parameter.mul_(3)
    return module


def dense_scores(selector: Selector, x: Tensor) -> Tensor:
    """[..., width] -> [..., heads, experts], zero where an expert is not among the best k of its head."""
    logits = rms_norm(x, EPS) @ selector.weight.T
    scores = logits.unflatten(-1, (selector.heads, selector.experts)).sigmoid()
    least = scores.sort(-1, descending=True).values[..., selector.chosen - 1 : selector.chosen]
    return torch.where(scores >= least, scores, 0)


def dense_feed_forward(module: ExpertFeedForward, x: Tensor) -> Tensor:
    """Every expert on every token."""
    scores = dense_scores(module.selector, x).squeeze(-2)
    made = [torch.relu(x @ keys) @ values for keys, values in zip(module.keys, module.values, strict=True)]
    return module.output_scale * sum(scores[..., e, None] * y for e, y in enumerate(made))


def dense_attention(module: ExpertAttention, x: Tensor, view: TextView) -> Tensor:
    """Every expert of every head on every token."""
    values = module.values.unflatten(0, (module.heads, module.experts))
    outputs = module.outputs.unflatten(0, (module.heads, module.experts))
    value_scores, output_scores = dense_scores(module.value_selector, x), dense_scores(module.output_selector, x)
    rotation = view.rotation
    assert rotation is not None
    q, k = (
        rotate((x @ projection.weight.T).unflatten(-1, (module.heads, -1)).transpose(1, 2), rotation)
        for projection in (module.q_proj, module.k_proj)
    )
    v = torch.einsum("bshe,bsw,hewd->bhsd", value_scores, x, values)
    attended = attend(q, k, v, view)
    return module.output_scale * torch.einsum("bshe,bhsd,hedw->bsw", output_scores, attended, outputs)


def check_against_dense(module: nn.Module, sparse: Callable[[Tensor], Tensor], dense: Callable[[Tensor], Tensor]):
    found = []
    for function in (sparse, dense):
        x = states().requires_grad_()
        y = function(x)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
        gradients = torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])
        found.append([y.detach(), *gradients])
    names = ["y", "x", *(name for name, _ in module.named_parameters())]
    for name, one, other in zip(names, *found, strict=True):
        assert float((one - other).abs().max()) < 1e-5 * max(1, float(other.abs().max())), name
        assert other.any(), name


@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "by blocks"])
@pytest.mark.parametrize(("experts", "chosen"), [(1, 1), (5, 1), (5, 2), (5, 5), (200, 3)])
def test_feed_forward_is_the_dense_one(experts: int, chosen: int, grouped: bool, monkeypatch: pytest.MonkeyPatch):
    if not grouped:
        monkeypatch.setattr(moe, "has_grouped_product", lambda _: False)
    module, view = feed_forward(experts, chosen), view_of_text()
    check_against_dense(module, lambda x: module(x, view), lambda x: dense_feed_forward(module, x))


@pytest.mark.parametrize(("heads", "experts", "chosen"), [(1, 1, 1), (1, 2, 1), (2, 3, 1), (2, 3, 2), (1, 40, 2)])
def test_attention_is_the_dense_one(heads: int, experts: int, chosen: int):
    module, view = attention(heads, experts, chosen), view_of_text(WIDTH // heads)
    check_against_dense(module, lambda x: module(x, view), lambda x: dense_attention(module, x, view))


# -- cost -------------------------------------------------------------------------------------------------------------


def head_of_experts(experts: int) -> TextLossHead:
    options = {"hidden_size": 64, "num_heads": 1, "expert_size": 64, "seq_len": 256, "L_layers": 1, "halt_max_steps": 1}
    return small_text_head("moeut", **options, num_experts=experts, experts_per_token=2)


def step_time(head: TextLossHead) -> float:
    """Seconds of one step: forward, backward, update."""
    tokens = torch.randint(11, (8, 257), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    batch = {"inputs": tokens[:, :-1], "labels": tokens[:, 1:], "documents": torch.zeros_like(tokens[:, 1:])}
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-4)
    start = time.perf_counter()
    _, loss, *_ = head(head.initial_carry(batch), batch)
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


@pytest.mark.thorough
def test_a_step_with_192_experts_takes_at_most_twice_as_long_as_with_16():
    few, many = head_of_experts(16), head_of_experts(192)
    # in turn, and the best of each, because other work on the machine disturbs some
    times = [(step_time(few), step_time(many)) for _ in range(6)]
    assert min(many for _, many in times) < 2 * min(few for few, _ in times)


# -- the regulariser and the loads ------------------------------------------------------------------------------------


class Listener:
    """Keeps the logits of every use of the selectors of a model."""

    def __init__(self, model: nn.Module, monkeypatch: pytest.MonkeyPatch):
        self.logits: dict[Selector, list[Tensor]] = {m: [] for m in model.modules() if isinstance(m, Selector)}
        record = Selections.record

        def listen(selections: Selections, selector: Selector, logits: Tensor, ids: Tensor, real: Tensor) -> None:
            self.logits[selector].append(logits.detach())
            record(selections, selector, logits, ids, real)

        monkeypatch.setattr(Selections, "record", listen)


def naive_entropy(selector: Selector, uses: list[Tensor], real: Tensor) -> float:
    """Mean over the heads, in nats."""
    found = []
    for head in range(selector.heads):
        softmax = [
            [math.exp(v) for v in token[head].tolist()]
            for logits in uses
            for token, is_real in zip(logits, real.flatten().tolist(), strict=True)
            if is_real
        ]
        shares = [[v / sum(token) for v in token] for token in softmax]
        mean = [sum(column) / len(shares) for column in zip(*shares, strict=True)]
        found.append(-sum(p * math.log(p) for p in mean))
    return sum(found) / len(found)


def naive_shares(selector: Selector, uses: list[Tensor], real: Tensor, head: int) -> list[float]:
    counts = [0] * selector.experts
    for logits in uses:
        for token, is_real in zip(logits, real.flatten().tolist(), strict=True):
            order = sorted(range(selector.experts), key=lambda e, token=token: -float(token[head, e]))
            for expert in order[: selector.chosen] if is_real else ():
                counts[expert] += 1
    return [count / sum(counts) for count in counts]


def test_regulariser_and_loads_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch):
    model, batch = small_text_model("moeut", halt_max_steps=1), small_text()
    listener, real = Listener(model, monkeypatch), batch["documents"] != NO_DOCUMENT
    assert not real.all()
    _, outputs = model(model.initial_carry(batch), batch)

    assert len(listener.logits) == 6  # two layers of one feed-forward and two attention selectors
    weights = {"ff": 0.01, "attention": 0.001}
    expected, entropies, shares = 0.0, {"ff": [], "attention": []}, {"ff": [], "attention": []}
    for selector, uses in listener.logits.items():
        assert len(uses) == 3  # L_cycles + 1
        assert selector.entropy_weight == weights[selector.kind]
        entropies[selector.kind].append(naive_entropy(selector, uses, real))
        expected -= weights[selector.kind] * entropies[selector.kind][-1]
        shares[selector.kind] += [naive_shares(selector, uses, real, head) for head in range(selector.heads)]
    assert float(outputs["moe_loss"].detach()) == pytest.approx(expected, rel=1e-5)
    for kind in weights:
        n = len(shares[kind])
        assert float(outputs[f"moe/{kind}_entropy"]) == pytest.approx(sum(entropies[kind]) / len(entropies[kind]))
        assert float(outputs[f"moe/{kind}_busiest"]) == pytest.approx(sum(map(max, shares[kind])) / n)
        assert float(outputs[f"moe/{kind}_least_busy"]) == pytest.approx(sum(map(min, shares[kind])) / n)


def test_following_the_regulariser_evens_out_the_choices():
    model, batch = small_text_model("moeut"), small_text()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Selector):
                module.weight.mul_(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    entropies = []
    for _ in range(30):
        _, outputs = model(model.initial_carry(batch), batch)
        outputs["moe_loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        entropies.append(float(outputs["moe/ff_entropy"]))
    assert entropies[0] < 0.97 * math.log(5)
    assert entropies[-1] > 0.99 * math.log(5)


def test_nothing_is_recorded_in_evaluation():
    model, batch = small_text_model("moeut").eval(), small_text()
    _, outputs = model(model.initial_carry(batch), batch)
    assert not any(name.startswith("moe") for name in outputs)


def test_a_batch_of_padding_alone_has_finite_gradients():
    head, batch = small_text_head("moeut"), small_text()
    batch["documents"].fill_(NO_DOCUMENT)
    batch["labels"].fill_(-100)
    _, loss, metrics, _, _ = head(head.initial_carry(batch), batch)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    assert all(value.isfinite() for value in metrics.values())


def gradients_of(rows: slice, ranks: int) -> dict[str, Tensor]:
    """Of the loss of some rows of a batch, as a training step makes them."""
    head, batch = small_text_head("moeut"), small_text()
    mine = {name: x[rows] for name, x in batch.items()}
    _, loss, metrics, _, _ = head(head.initial_carry(mine), mine)
    with GradientSum(head.parameters()).over_ranks():
        (loss / 4).backward()
    found = {name: p.grad for name, p in head.named_parameters() if p.grad is not None}
    return found | {"moe_loss": metrics["moe_loss"] * ranks / 4}


def of_one_of_two(rank: int, folder: str) -> None:
    for name, value in gradients_of(slice(2 * rank, 2 * rank + 2), ranks=2).items():
        expected = torch.load(Path(folder) / "expected.pt")[name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.thorough
def test_two_processes_balance_the_choices_of_all_rows(tmp_path: Path):
    torch.save(gradients_of(slice(0, 4), ranks=1), tmp_path / "expected.pt")
    on_two_ranks(of_one_of_two, tmp_path)


# -- initial weights --------------------------------------------------------------------------------------------------


def test_initial_weights():
    options = {"hidden_size": 64, "num_heads": 2, "num_experts": 16, "expert_size": 64, "H_cycles": 2, "L_cycles": 3}
    torch.manual_seed(0)
    model = TextMoEModel({**CONFIG, **options, "num_attention_experts": 4})
    scale = math.sqrt(2 / 16)  # 2 layers, passed 2 * (3 + 1) times a step
    stds = {
        "mlp.keys": scale / 8,
        "mlp.values": scale / 32,
        "self_attn.q_proj.weight": scale / 8,
        "self_attn.k_proj.weight": scale / 8,
        "self_attn.values": scale / 8,
        "self_attn.outputs": scale / 8,
    }
    for layer in ("inner.L_level.layers.0.", "inner.L_level.layers.1."):
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        weights = {name.removeprefix(layer): p for name, p in parameters.items() if name.startswith(layer)}
        for name, std in stds.items():
            assert float(weights[name].std()) == pytest.approx(std, rel=0.04)
            assert abs(float(weights[name].mean())) < std / 10
        selectors = [name for name in weights if name.endswith("selector.weight")]
        assert len(selectors) == 3
        for name in selectors:
            assert weights[name].shape == (16 if name.startswith("mlp") else 8, 64)
            torch.testing.assert_close(weights[name].norm(dim=-1), torch.full((len(weights[name]),), scale))
        assert float(weights["mlp.output_scale"]) == float(weights["self_attn.output_scale"]) == 1


@pytest.mark.parametrize("block", [1, 3, 64])
@pytest.mark.parametrize("counts", [[0, 7, 0, 4], [5, 5, 5], [0, 0, 9], [9, 0, 0], [1]])
def test_the_product_by_blocks_is_the_grouped_one(counts: list[int], block: int):
    generator = torch.Generator().manual_seed(0)
    found = []
    x0 = torch.randn(sum(counts), 6, generator=generator, dtype=torch.float64)
    weights0 = torch.randn(len(counts), 6, 5, generator=generator, dtype=torch.float64)
    upstream = torch.randn(sum(counts), 5, generator=generator, dtype=torch.float64)
    for by_blocks in (True, False):
        x, weights = x0.clone().requires_grad_(), weights0.clone().requires_grad_()
        if by_blocks:
            y = moe.blocked_product(x, weights, torch.tensor(counts).cumsum(0).int(), block)
        else:
            parts = zip(x.split(counts), weights, strict=True)
            y = torch.cat([part @ weight for part, weight in parts])
        y.backward(upstream)
        found.append((y.detach(), x.grad, weights.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("block", "share"), [("damped", 0.2), ("post-norm", None)])
def test_the_blocks_of_experts_add_as_they_are_told(block: str, share: float | None):
    model = small_text_model("moeut", block=block)
    layer, batch = model.blocks[0], small_text()
    assert isinstance(layer, PostNormBlock)
    view = model.inner.view(batch["documents"], cut_documents=True, record=False)
    h = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(0))
    expected = h
    for part in (layer.self_attn, layer.mlp):
        change = part(expected, view)
        expected = rms_norm(expected + (change if share is None else share * rms_norm(change, 1e-5)), 1e-5)
    assert torch.equal(layer(h, view), expected)


def test_a_configuration_of_an_earlier_version_means_the_blocks_that_it_had():
    assert type(small_text_model("moeut").blocks[0]) is PostNormBlock
    arch = compose("cfg_tinystories_1m_moeut").arch
    assert arch.own_keys["block"] == "damped"
