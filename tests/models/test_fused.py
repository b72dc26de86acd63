"""The fused sublayers against fp64: errors are no larger than those of the same formula in plain bf16 operations."""

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from models.acceleration import accelerate
from models.act import ACTModel
from models.fused import build, swiglu
from models.fused.convert import convert
from models.fused.layers import FusedAttention, FusedSwiGLU, fused_layer
from models.fused.operators import cannot_compute, load, optimizer_update
from models.layers import Attention, Block, RotaryEmbedding, Rotation, SwiGLU, cast_once, recomputed
from models.losses import ACTLossHead
from models.training import TrainState
from models.view import View
from tests.models.small import small_batch, small_model
from tests.models.small_text import small_text_model
from utils.distributed import Ranks
from utils.machine import choose_machine
from utils.optimizers import AdamATan2, _update_at_once
from utils.settings import OptimizationConfig

EPS = 1e-5
OPTIMIZATION = OptimizationConfig(
    global_batch_size=4, seed=0, optimizer="adam_atan2", lr=0.01, lr_min_ratio=1, beta1=0.9, beta2=0.95,
    weight_decay=0.1, ema=True, ema_rate=0.9,
)  # fmt: skip
MACHINE = choose_machine("cpu", "bfloat16")
UNFIT = build.cannot_build()
needs_the_cpu = pytest.mark.skipif(UNFIT is not None, reason=str(UNFIT))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def threads():
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def error(found: Tensor | None, exact: Tensor | None) -> float:
    assert found is not None
    assert exact is not None
    found, exact = found.detach().double(), exact.detach().double()
    return float((found - exact).norm() / exact.norm())


def random(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16()


def with_bf16_weights(module: nn.Module) -> Any:
    """The module with weights that bf16 can represent: what is left to differ is the arithmetic."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.bfloat16())
    return module


def exact_norm(u: Tensor, axis: int) -> Tensor:
    return u / (u.square().mean(axis, keepdim=True) + EPS).sqrt()


def exact_swiglu(plain: SwiGLU, x: Tensor) -> Tensor:
    """The sublayer in fp64, over the last axis."""
    gate, up = (x @ plain.gate_up_proj.weight.double().T).chunk(2, -1)
    return exact_norm(x + (gate * gate.sigmoid() * up) @ plain.down_proj.weight.double().T, -1)


def exact_attention(attention: Attention, x: Tensor, rotation: Rotation | None) -> Tensor:
    """The sublayer in fp64, one head after another."""
    heads, d = attention.num_heads, attention.head_dim
    weights, out = attention.qkv_proj.weight.double().split(d), attention.o_proj.weight.double()
    found = []
    for head in range(heads):
        q, k, v = (x @ weights[part * heads + head].T for part in range(3))
        if rotation is not None:
            q, k = (
                t * rotation.cos.double() + torch.cat((-t[..., d // 2 :], t[..., : d // 2]), -1) * rotation.sin.double()
                for t in (q, k)
            )
        found.append((q @ k.mT / d**0.5).softmax(-1) @ v)
    return exact_norm(x + torch.cat(found, -1) @ out.T, -1)


def fused(module: Attention | SwiGLU) -> FusedAttention | FusedSwiGLU:
    """The module with a fused sublayer, on the same weights; its widths must fit."""
    found = fused_layer(module)
    assert found is not None
    return found


def with_gradients(module: nn.Module, compute: Callable[[Tensor], Tensor], x: Tensor, dy: Tensor) -> list[Tensor]:
    """y, and the gradients of x and of both weights."""
    module.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = compute(x)
    y.backward(dy.to(y.dtype))
    return [t.detach().clone() for t in (y, x.grad, *(p.grad for p in module.parameters())) if t is not None]


def check_errors(
    module: Attention | SwiGLU,
    exact: Callable[[Tensor], Tensor],
    x: Tensor,
    dy: Tensor,
    *arguments: Any,
    bounds: Sequence[float] | None = None,
) -> None:
    """The fused sublayer is about as close to `exact` as the plain one, or closer; without gradient it is the same.

    Bounds, if given, are those of the errors of y and of the gradients, instead of the errors of the plain sublayer.
    """
    assert load() is None
    own: Any = fused(module)
    reference = with_gradients(module, exact, x.double(), dy)
    plain = with_gradients(module, lambda x: module.sublayer(x, *arguments), x, dy)
    found = with_gradients(own, lambda x: own.sublayer(x, *arguments), x, dy)
    assert len(found) == len(plain) == len(reference) == 4
    if bounds is None:
        bounds = [1.15 * error(other, expected) for other, expected in zip(plain, reference, strict=True)]
    for value, expected, bound in zip(found, reference, bounds, strict=True):
        assert error(value, expected) <= bound
    assert not torch.equal(found[0], plain[0])  # else nothing was fused
    with torch.no_grad():
        assert torch.equal(own.sublayer(x, *arguments), found[0])


@needs_the_cpu
@pytest.mark.parametrize("over_positions", [False, True], ids=["rows", "positions"])
@pytest.mark.parametrize(
    ("batch", "positions", "hidden", "inner"),
    [(3, 97, 512, 1536), (4, 36, 96, 256), (2, 82, 160, 512), (1, 17, 32, 64), (7, 12, 288, 96)],
)
@pytest.mark.parametrize("count", [1, 2])
def test_errors_of_swiglu(
    batch: int, positions: int, hidden: int, inner: int, over_positions: bool, count: int, threads
):
    threads(count)
    width = positions if over_positions else hidden
    plain = with_bf16_weights(SwiGLU(width, 4, inner=inner, over_positions=over_positions))

    def exact(x: Tensor) -> Tensor:
        return exact_swiglu(plain, x.mT).mT if over_positions else exact_swiglu(plain, x)

    x, dy = (random(batch, positions, hidden) for _ in range(2))
    check_errors(plain, exact, x, dy, EPS)


@needs_the_cpu
@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize(
    ("batch", "positions", "hidden", "heads"),
    [(2, 97, 512, 8), (3, 36, 64, 2), (2, 40, 96, 1), (1, 300, 128, 4), (1, 1000, 64, 1), (1, 32, 32, 1)],
)
@pytest.mark.parametrize("count", [1, 2])
def test_errors_of_attention(batch: int, positions: int, hidden: int, heads: int, rope: bool, count: int, threads):
    threads(count)
    attention: Attention = with_bf16_weights(Attention(hidden, heads))
    with torch.no_grad():
        attention.qkv_proj.weight.mul_(2)  # attention that is far from the mean
    rotation = RotaryEmbedding(attention.head_dim, positions, 10000.0)() if rope else None
    x, dy = (random(batch, positions, hidden) for _ in range(2))
    check_errors(attention, lambda x: exact_attention(attention, x, rotation), x, dy, View(rotation), EPS)


@needs_the_cpu
@pytest.mark.parametrize("kind", ["rows", "positions", "attention"])
def test_the_same_bits_each_time(kind: str, threads):
    """Threads sum the gradients of the weights over positions each for itself, in an order that does not change."""
    threads(2)
    load()
    x, dy = random(5, 33, 96), random(5, 33, 96)
    if kind == "attention":
        module: Any = fused(Attention(96, 3))
        arguments: tuple[Any, ...] = (View(), EPS)
    else:
        module = fused(SwiGLU(33 if kind == "positions" else 96, 4, inner=64, over_positions=kind == "positions"))
        arguments = (EPS,)
    runs = [with_gradients(module, lambda x: module.sublayer(x, *arguments), x, dy) for _ in range(3)]
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@needs_the_cpu
@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4, 1e14])
def test_gates_of_any_size(scale: float):
    """The sigmoid is 0 or 1 where its exponential leaves fp32."""
    load()
    x, own = random(1, 40, 64) * scale, FusedSwiGLU(SwiGLU(64, 4, inner=64))
    with torch.no_grad():
        own.down_proj.weight.div_(scale)
    with_bf16_weights(own)
    assert error(own.sublayer(x, EPS), exact_swiglu(own, x.double())) < 0.004


@needs_the_cpu
@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4, 1e5, 1e6])
def test_scores_of_any_size(scale: float):
    """Where one key takes all of a query's attention, the exponentials of the others are 0."""
    load()
    attention: Attention = with_bf16_weights(Attention(64, 1))
    x = random(50, 40, 64) * scale
    exact, plain = exact_attention(attention, x.double(), None), attention.sublayer(x, View(), EPS)
    own = FusedAttention(attention)
    # large scores that differ by less than the rounding of queries and keys are told apart by chance, fused or not
    assert error(own.sublayer(x, View(), EPS), exact) < max(0.004, 1.15 * error(plain, exact))


@needs_the_cpu
@pytest.mark.parametrize("positions", [97, 40, 32])
def test_gradients_where_all_scores_are_very_negative(positions: int):
    """The keys added up to a multiple of 32 have the score 0, far above those of the keys that there are."""
    load()
    attention: Attention = Attention(32, 1)
    with torch.no_grad():
        # q = x and k = -x, exactly, so that scores are not told apart by the rounding of queries and keys
        query, key, _ = attention.qkv_proj.weight.chunk(3)
        query.copy_(torch.eye(32))
        key.copy_(-query)
    with_bf16_weights(attention)
    x = (6 + (torch.randn(1, positions, 32) * 8).round().clamp(-50, 50) / 32).bfloat16()  # all alike, so q k = -q q
    q, k, _ = attention.qkv_proj(x.float()).chunk(3, -1)
    assert torch.equal(q, x.float())
    assert (q @ k.mT / 32**0.5).max() < -150
    dy = random(1, positions, 32)
    # twice what was seen of 60 draws; the gradients cancel, so the rounding of these or those products counts most
    bounds = (0.005, 0.2, 0.5, 0.008)
    check_errors(attention, lambda x: exact_attention(attention, x, None), x, dy, View(), EPS, bounds=bounds)


@needs_the_cpu
@pytest.mark.parametrize("kind", ["rows", "positions", "attention"])
def test_edges(kind: str):
    """No rows; rows that do not lie together; frozen weights; a gradient of a gradient; a NaN, which must be seen."""
    load()
    module: Any
    if kind == "attention":
        module, arguments = fused(Attention(64, 2)), (View(), EPS)
    else:
        module = fused(SwiGLU(10 if kind == "positions" else 64, 4, inner=64, over_positions=kind == "positions"))
        arguments = (EPS,)
    x = random(3, 10, 64)
    y = module.sublayer(x, *arguments)
    assert module.sublayer(x[:0], *arguments).shape == (0, 10, 64)
    apart = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert torch.equal(module.sublayer(apart, *arguments), y)
    assert torch.equal(module.sublayer(random(3, 10, 128)[..., :64].copy_(x), *arguments), y)

    y, dx, *_ = with_gradients(module, lambda x: module.sublayer(x, *arguments), x, x)
    module.requires_grad_(False).zero_grad()
    own = x.clone().requires_grad_()
    module.sublayer(own, *arguments).backward(x)
    assert own.grad is not None
    assert torch.equal(own.grad, dx)
    assert [p.grad for p in module.parameters()] == [None, None]

    module.requires_grad_(True)
    dy = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module.sublayer(own, *arguments), own, dy, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()

    x[1, 3, 5] = torch.nan
    reached = module.sublayer(x, *arguments).isnan()
    assert reached[1, 3, 5]
    assert not reached[0].any()


def blocks(mlp_t: bool) -> tuple[Block, Block]:
    """The same block, plain and fused."""
    plain, own = (Block(64, 2, 4, 10, mlp_t, EPS) for _ in range(2))
    own.load_state_dict(plain.state_dict())
    for name, module in list(own.named_children()):
        assert isinstance(module, Attention | SwiGLU)
        own.set_submodule(name, fused(module))
    return plain, own


@needs_the_cpu
@pytest.mark.parametrize("mlp_t", [False, True])
def test_a_fused_block_is_the_plain_one(mlp_t: bool):
    load()
    plain, own = blocks(mlp_t)
    h, dy = random(3, 10, 64), random(3, 10, 64)
    view = View(None if mlp_t else RotaryEmbedding(32, 10, 10000.0)())
    assert error(own(h, view), plain(h, view)) < 0.008
    for block in (plain, own):
        block(h, view).backward(dy)
    for (name, a), b in zip(own.named_parameters(), plain.parameters(), strict=True):
        assert error(a.grad, b.grad) < 0.015, name


@needs_the_cpu
@pytest.mark.parametrize("mlp_t", [False, True])
def test_weights_packed_once_give_the_same_bits_and_gradients_of_many_uses(mlp_t: bool):
    load()
    _, block = blocks(mlp_t)
    h = random(3, 10, 64)

    def gradients(once: bool, again: bool) -> list[Tensor | None]:
        block.zero_grad()
        use = (lambda h: recomputed(block, h, View())) if again else (lambda h: block(h, View()))
        if once:
            with cast_once(block, torch.bfloat16):
                assert isinstance(block.mlp, FusedSwiGLU)
                assert isinstance(block.mlp.held_cast, swiglu.Packed)
                assert block.mlp.down_proj.held_cast is None  # it is packed in that of the SwiGLU
                y = use(use(h.clone().requires_grad_()))
            assert block.mlp.held_cast is None
        else:
            y = use(use(h.clone().requires_grad_()))
        y.float().square().mean().backward()
        return [p.grad for p in block.parameters()]

    expected = gradients(once=False, again=False)
    for once, again in ((True, False), (True, True)):
        for a, b in zip(gradients(once, again), expected, strict=True):
            assert a is not None
            assert b is not None
            assert torch.equal(a, b)


@pytest.mark.thorough
@needs_the_cpu
def test_a_compiled_block_is_the_same():
    """The shapes that the compiler is told are those of the operators."""
    load()
    for mlp_t in (False, True):
        _, block = blocks(mlp_t)
        h, dy = random(3, 10, 64), random(3, 10, 64)
        expected = with_gradients(block, lambda h, block=block: block(h, View()), h, dy)
        compiled = torch.compile(block, dynamic=False)
        found = with_gradients(block, lambda h, compiled=compiled: compiled(h, View()), h, dy)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


OWN: dict[str, Any] = {"hidden_size": 64, "num_heads": 2, "forward_dtype": "bfloat16"}
MIXINGS: list[dict[str, Any]] = [
    {},
    {"num_heads": 4},
    {"mlp_t": True, "pos_encodings": "none"},
    {"pos_encodings": "learned"},
]


def fuse(model: ACTModel, setting: bool | Literal["auto"]) -> tuple[bool, str]:
    """As a program does in a short run."""
    acceleration = accelerate(model, choose_machine("cpu", "bfloat16", setting))
    assert acceleration.compiled == model.compiled == (setting is True)
    assert (acceleration.optimizer_update is not None) == acceleration.fused
    return acceleration.fused, acceleration.fuse_reason


@needs_the_cpu
def test_a_model_fuses_what_it_can_and_says_what_it_cannot(monkeypatch: pytest.MonkeyPatch):
    assert fuse(small_model("trm", **OWN), "auto") == (True, "bfloat16 on this CPU")
    assert fuse(small_model("hrm", **OWN), True)[0]
    assert fuse(small_model("trm", **OWN), False) == (False, "compile=false")
    assert fuse(small_model("trm", **(OWN | {"hidden_size": 48})), "auto") == (
        False,
        "hidden_size 48 is no multiple of 32",
    )
    with monkeypatch.context() as patch:
        patch.setenv("DISABLE_COMPILE", "")
        assert fuse(small_model("trm", **OWN), "auto") == (False, "DISABLE_COMPILE is set")
        assert fuse(small_model("trm", **OWN), True)[0]
    single, narrow = OWN | {"forward_dtype": "float32"}, OWN | {"num_heads": 4}
    assert fuse(small_model("trm", **single), "auto") == (False, "they are for bfloat16 on CPUs")
    assert fuse(small_model("trm", **narrow), "auto") == (
        True,
        "bfloat16 on this CPU; but not attention, whose heads are no multiple of 32 wide",
    )
    assert fuse(small_text_model("trm", forward_dtype="bfloat16"), "auto") == (
        False,
        "the blocks of this architecture are of another kind",
    )
    other_unit = "the MLPs, whose gated unit is no SwiGLU"
    gated = small_model("trm", **(OWN | {"gated_unit": "rms_gate"}))
    assert fuse(gated, "auto") == (True, f"bfloat16 on this CPU; but not {other_unit}")
    assert {type(block.mlp) for block in gated.blocks} == {SwiGLU}
    gated = small_model("trm", **(OWN | {"gated_unit": "rms_gate", "mlp_t": True, "pos_encodings": "none"}))
    assert fuse(gated, "auto") == (False, f"not for {other_unit}")
    batch = small_batch(4)
    for variant in MIXINGS:
        plain, fusing = (small_model("trm", **(OWN | variant)).eval() for _ in range(2))
        convert(fusing)
        with torch.inference_mode():
            expected, found = (m(m.initial_carry(batch), batch)[1]["logits"] for m in (plain, fusing))
        assert not torch.equal(found, expected)
        assert error(found, expected) < 0.03


@needs_the_cpu
@pytest.mark.parametrize("variant", MIXINGS)
def test_converting_keeps_the_parameters_and_their_names_and_is_done_once(variant: dict[str, Any]):
    model = small_model("trm", **(OWN | variant)).eval()
    parameters, names = dict(model.named_parameters()), list(model.state_dict())
    first = convert(model)
    modules = dict(model.named_modules())
    fusing = {name for name, module in modules.items() if isinstance(module, FusedAttention | FusedSwiGLU)}
    assert len(fusing) == (1 if variant == {"num_heads": 4} else 2)
    assert not any(module.training for module in modules.values())
    assert convert(model) == first
    assert dict(model.named_modules()) == modules
    assert list(model.state_dict()) == names
    found = dict(model.named_parameters())
    assert list(found) == list(parameters)
    assert all(found[name] is parameter for name, parameter in parameters.items())


@needs_the_cpu
def test_converting_after_the_optimizer_and_the_averages_were_made_is_the_same_as_before():
    states: list[TrainState] = []
    for late in (False, True):
        model = small_model("trm", **OWN)
        acceleration = None if late else accelerate(model, MACHINE)
        states.append(TrainState(ACTLossHead(model), OPTIMIZATION, Ranks(), 10))
        acceleration = acceleration or accelerate(model, MACHINE)
        states[-1].use_fast_update(acceleration)
    for seed in range(3):
        one, other = (state.train_step(small_batch(4, seed=seed)) for state in states)
        assert one == other
    one, other = states
    assert one.ema is not None
    assert other.ema is not None
    for name, p in one.parameters.items():
        assert torch.equal(other.parameters[name], p)
        assert torch.equal(other.ema.shadow[name], one.ema.shadow[name])
        assert not torch.equal(one.ema.shadow[name], p)


@needs_the_cpu
@pytest.mark.parametrize("count", [1, 15, 16, 17, 100_003])
@pytest.mark.parametrize("averages", [False, True])
def test_the_optimizers_update(count: int, averages: bool):
    """As the operations of its formula, for any number of values: those beyond a multiple of 16 are masked."""
    load()
    p, gradient, m, average = (torch.randn(count) for _ in range(4))
    values = [p, gradient * 10.0 ** torch.randint(-6, 6, (count,)), m, torch.rand(count), average if averages else None]
    found, expected = ([None if v is None else v.clone() for v in values] for _ in range(2))
    scalars = (0.9, 1e-2, 1.7, 0.9, 0.95, 0.99)
    optimizer_update()(*([value] for value in found), *scalars)
    versions = [None if v is None else v._version for v in found]
    assert versions == [1, 0, 1, 1, 1 if averages else None]  # autograd knows what was overwritten
    _update_at_once(*expected, *scalars)  # pyright: ignore[reportArgumentType, reportCallIssue]
    for a, b in zip(found, expected, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@needs_the_cpu
def test_a_run_that_is_not_compiled_uses_the_optimizers_operator_too():
    fusing, plain = (TrainState(ACTLossHead(small_model("trm", **OWN)), OPTIMIZATION, Ranks(), 10) for _ in range(2))
    fusing.use_fast_update(accelerate(fusing.head.model, MACHINE))
    convert(plain.head.model)  # the same sublayers, so the same gradients in the first step
    assert isinstance(fusing.dense, AdamATan2)
    assert isinstance(plain.dense, AdamATan2)
    assert (fusing.dense._one_pass, plain.dense._one_pass) == (optimizer_update(), None)
    before = {name: p.detach().clone() for name, p in plain.parameters.items()}
    assert fusing.train_step(small_batch(4)) == plain.train_step(small_batch(4))
    assert fusing.ema is not None
    assert plain.ema is not None
    for name, p in plain.parameters.items():
        torch.testing.assert_close(fusing.parameters[name], p, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fusing.ema.shadow[name], plain.ema.shadow[name], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(before[name], p) for name, p in plain.parameters.items())


@needs_the_cpu
def test_wrong_operands_are_refused():
    load()
    x, w = random(2, 64), swiglu.pack_rows(torch.randn(128, 64), torch.randn(64, 64), False)
    with pytest.raises(RuntimeError, match="x is Float"):
        torch.ops.recursive_reasoning.swiglu_rows(x.float(), w.gate_up, w.down, EPS, False)
    with pytest.raises(RuntimeError, match="gate_up is BFloat16"):
        torch.ops.recursive_reasoning.swiglu_rows(x, w.down, w.down, EPS, False)
    with pytest.raises(RuntimeError, match="and not contiguous"):
        torch.ops.recursive_reasoning.swiglu_rows(random(64, 2).t(), w.gate_up, w.down, EPS, False)
    odd = FusedSwiGLU(SwiGLU(10, 4, inner=64, over_positions=True))
    with pytest.raises(RuntimeError, match="width 40 and inner width 64 must be multiples of 32"):
        odd.sublayer(random(2, 10, 40), EPS)
    w = swiglu.pack_rows(torch.randn(160, 64), torch.randn(64, 80), False)
    with pytest.raises(RuntimeError, match="inner width 80"):
        torch.ops.recursive_reasoning.swiglu_rows(x, w.gate_up, w.down, EPS, False)


def test_a_folder_of_which_a_part_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "models.fused.convert", raising=False)
    monkeypatch.delitem(sys.modules, "models.fused.layers", raising=False)
    monkeypatch.setitem(sys.modules, "models.fused.packing", None)
    with pytest.raises(ModuleNotFoundError, match="models.fused.packing"):
        accelerate(small_model(), MACHINE)


# -- building ----------------------------------------------------------------------------------------------------------


@needs_the_cpu
def test_a_source_that_does_not_compile_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "built"))
    (tmp_path / "broken.cpp").write_text("int f() { return nothing; }")
    reason = build.build_and_load(tmp_path)
    assert reason is not None
    assert "g++ failed" in reason
    assert "nothing" in reason
    assert list((tmp_path / "built").iterdir()) == []


@needs_the_cpu
def test_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built, source = tmp_path / "built", tmp_path / "small.cpp"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(built))
    source.write_text("int small() { return 1; }")
    assert build.build_and_load(tmp_path) is None
    (library,) = built.iterdir()
    written = library.stat().st_mtime_ns
    assert build.build_and_load(tmp_path) is None
    assert library.stat().st_mtime_ns == written
    source.write_text("int small() { return 2; }")
    assert build.build_and_load(tmp_path) is None
    assert len(list(built.iterdir())) == 2


@needs_the_cpu
def test_a_library_that_cannot_be_kept_or_loaded_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "small.cpp").write_text("int small() { return 3; }")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    assert "cannot be built or loaded" in str(build.build_and_load(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "built"))
    assert build.build_and_load(tmp_path) is None
    (built,) = (tmp_path / "built").iterdir()
    library = tmp_path / "broken" / built.name
    library.parent.mkdir()
    library.write_text("not a library")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(library.parent))
    reason = str(build.build_and_load(tmp_path))
    assert "cannot be built or loaded" in reason
    assert str(library) in reason

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setattr(build.Path, "home", homeless)
    assert "Could not determine home directory. (TORCH_EXTENSIONS_DIR" in str(build.build_and_load(tmp_path))


@needs_the_cpu
def test_products_that_do_not_work_are_reported(monkeypatch: pytest.MonkeyPatch):
    assert load() is None
    with warnings.catch_warnings(action="ignore"), torch.backends.mkldnn.flags(enabled=False):
        assert "matrix products for them do not work" in str(cannot_compute())
    monkeypatch.setattr(swiglu, "rows", lambda x, *_, **__: x)
    assert "they compute wrongly here" in str(cannot_compute())


def test_reasons_not_to_build(monkeypatch: pytest.MonkeyPatch):
    reason = build.cannot_build.__wrapped__
    monkeypatch.setattr(build.sys, "platform", "darwin")
    assert reason() == "they are for Linux"
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert reason() == "this CPU has no AVX-512 bf16 instructions"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert reason() == "there is no C++ compiler (g++, or what CXX names)"
