"""The layers against plain implementations of their formulas, most of them in fp64."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from models.layers import (
    STD_OF_TRUNCATED_NORMAL,
    Attention,
    Block,
    CastedEmbedding,
    CastedLinear,
    RotaryEmbedding,
    SwiGLU,
    cast_once,
    multiply_each,
    rms_norm,
    rotate,
    swiglu_width,
    trunc_normal_,
)
from models.view import View

EPS = 1e-5


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert (found.double() - expected.double()).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


def plain_norm(x: Tensor, axis: int) -> Tensor:
    return x / ((x**2).sum(axis, keepdim=True) / x.shape[axis] + EPS) ** 0.5


def plain_rotation(x: Tensor) -> Tensor:
    """[positions, width]. Numbers j and j + width/2 make one complex number, turned at p by p*10000^(-2j/width)."""
    half = x.shape[1] // 2
    angles = [[p * 10000 ** (-j / half) for j in range(half)] for p in range(len(x))]
    turned = torch.complex(x[:, :half], x[:, half:]) * torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
    return torch.cat((turned.real, turned.imag), dim=1)


def plain_attention(attention: Attention, x: Tensor, rope: bool) -> Tensor:
    """One example and one head at a time. [batch, positions, hidden] in fp64."""
    heads, d = attention.num_heads, attention.head_dim
    weights = attention.qkv_proj.weight.detach().double().split(d)  # a block of rows per head: q, then k, then v
    out = torch.zeros(*x.shape[:2], heads * d, dtype=torch.float64)
    for example, result in zip(x, out, strict=True):
        for head in range(heads):
            q, k, v = (example @ weights[part * heads + head].T for part in range(3))
            if rope:
                q, k = plain_rotation(q), plain_rotation(k)
            scores = q @ k.T / math.sqrt(d)
            weight = scores.exp()
            result[:, head * d : (head + 1) * d] = weight / weight.sum(1, keepdim=True) @ v
    return out @ attention.o_proj.weight.detach().double().T


def plain_swiglu(swiglu: SwiGLU, x: Tensor) -> Tensor:
    both, down = swiglu.gate_up_proj.weight.detach().double(), swiglu.down_proj.weight.detach().double()
    inner = down.shape[1]
    gate, up = x @ both[:inner].T, x @ both[inner:].T
    return (gate / (1 + (-gate).exp()) * up) @ down.T


# -- initialisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [1.0, 0.05])
def test_truncated_normal_has_the_std_asked_for_and_the_shape_of_a_normal_cut_at_two(std: float):
    x = trunc_normal_(torch.empty(1_000_000), std).double()
    normal = NormalDist()
    mass = 2 * normal.cdf(2) - 1
    scale = std / math.sqrt(1 - 4 * normal.pdf(2) / mass)
    assert float(x.std()) == pytest.approx(std, rel=3e-3)
    assert float(x.mean()) == pytest.approx(0, abs=4e-3 * std)
    assert 1.99 * scale < float(x.abs().max()) <= 2 * scale * (1 + 1e-6)
    inside = float((x.abs() < scale).double().mean())
    assert inside == pytest.approx((2 * normal.cdf(1) - 1) / mass, abs=3e-3)


def test_values_outside_are_drawn_again_and_those_inside_are_kept():
    scale = 0.5 / STD_OF_TRUNCATED_NORMAL
    torch.manual_seed(0)
    first, again, third = (torch.empty(20, 50).normal_(0, scale) for _ in range(3))
    torch.manual_seed(0)
    x = trunc_normal_(torch.empty(20, 50), 0.5)
    for later in (again, third):
        first = torch.where(first.abs() > 2 * scale, later, first)
    assert (first.abs() <= 2 * scale).all()
    assert torch.equal(x, first)


def test_a_seed_gives_the_same_weights_with_every_version_of_torch():
    """The first and the last of a thousand; the normal numbers of torch differ between processors by their rounding."""
    torch.manual_seed(0)
    x = trunc_normal_(torch.empty(4, 250), 1.0).flatten()
    expected = torch.tensor([-1.2799079, -1.3100575, -0.2848696, -0.4932539, 0.1437181, -0.6663882])
    torch.testing.assert_close(x[[0, 1, 2, 3, -2, -1]], expected, rtol=1e-5, atol=1e-6)


def test_linear_and_embedding_start_with_their_std():
    linear = CastedLinear(256, 1024, bias=True)
    embedding = CastedEmbedding(1024, 256, 256**-0.5, torch.bfloat16)
    assert float(linear.weight.detach().std()) == pytest.approx(1 / 16, rel=0.01)
    assert float(embedding.embedding_weight.detach().std()) == pytest.approx(1 / 16, rel=0.01)
    assert linear.bias is not None
    assert not linear.bias.any()


def test_weights_stay_fp32_and_follow_the_dtype_of_the_input():
    linear, embedding = CastedLinear(8, 4, bias=True), CastedEmbedding(5, 8, 1.0, torch.bfloat16)
    assert {p.dtype for p in (*linear.parameters(), *embedding.parameters())} == {torch.float32}
    ids = torch.tensor([[0, 4]])
    assert torch.equal(embedding(ids), embedding.embedding_weight[ids].bfloat16())
    assert linear(embedding(ids)).dtype == torch.bfloat16
    assert linear(embedding(ids).float()).dtype == torch.float32


def test_cast_once_changes_nothing_but_the_number_of_casts():
    """Three uses of a weight in bf16: output and gradient are, bit for bit, those of a cast at every use."""
    linear, x = CastedLinear(64, 64), torch.randn(5, 64).bfloat16()

    def three_uses() -> tuple[Tensor, Tensor]:
        linear.weight.grad = None
        y = linear(torch.tanh(linear(torch.tanh(linear(x)))))
        y.float().square().sum().backward()
        assert linear.weight.grad is not None
        return y, linear.weight.grad

    expected, expected_gradient = three_uses()
    with cast_once(linear, torch.bfloat16):
        assert linear.weight_as(torch.float32).data_ptr() == linear.weight.data_ptr()
        found, gradient = three_uses()
        with torch.no_grad():
            assert linear.weight_as(torch.bfloat16) is linear.held_cast
    assert linear.held_cast is None
    assert torch.equal(found, expected)
    assert gradient.dtype == torch.float32
    assert torch.equal(gradient, expected_gradient)


# -- norm and rotation ------------------------------------------------------------------------------------------------


def test_rms_norm():
    x = torch.randn(3, 5, 64) * 10.0 ** torch.randint(-4, 4, (3, 5, 1))
    assert_close(rms_norm(x, EPS), plain_norm(x.double(), -1), 1e-6)


def test_rms_norm_of_bf16_is_computed_in_fp32():
    x = torch.randn(4, 512).bfloat16()
    assert torch.equal(rms_norm(x, EPS), rms_norm(x.float(), EPS).bfloat16())


@pytest.mark.parametrize(("width", "positions"), [(2, 3), (42, 81), (64, 916)])
def test_rope_turns_complex_numbers(width: int, positions: int):
    x = torch.randn(2, 3, positions, width)
    turned = rotate(x, RotaryEmbedding(width, positions, 10000.0)())
    for example in range(2):
        for head in range(3):
            # an angle of a thousand radians in fp32 is good to about 1e-4
            assert_close(turned[example, head], plain_rotation(x[example, head].double()), 1e-4)


def test_rope_of_bf16_is_computed_in_fp32():
    x, rotation = torch.randn(1, 2, 9, 8).bfloat16(), RotaryEmbedding(8, 9, 10000.0)()
    assert torch.equal(rotate(x, rotation), rotate(x.float(), rotation).bfloat16())


# -- attention and SwiGLU ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden", "heads", "rope"),
    [(512, 12, True), (64, 8, True), (64, 4, False), (64, 1, True)],
)
def test_attention(hidden: int, heads: int, rope: bool):
    attention = Attention(hidden, heads)
    x = torch.randn(2, 7, hidden) * 3
    rotation = RotaryEmbedding(hidden // heads, 7, 10000.0)() if rope else None
    assert_close(attention(x, View(rotation)), plain_attention(attention, x.double(), rope))


def test_twelve_heads_of_hidden_512_are_42_wide():
    attention = Attention(512, 12)
    assert attention.head_dim == 42
    assert attention.qkv_proj.weight.shape == (3 * 504, 512)
    assert attention.o_proj.weight.shape == (512, 504)


@pytest.mark.parametrize(
    ("width", "expansion", "inner"),
    [
        (512, 4, 1536),  # 1365: TRM and HRM
        (97, 4, 512),  # 259: over the positions of Sudoku, 81 + 16
        (81, 4, 256),  # 216
        (96, 4, 256),  # exactly 256
        (384, 4, 1024),  # exactly 1024
        (385, 4, 1280),  # 1027
        (16, 4, 256),
        (192, 2.002, 256),  # 256.256 rounds down to 256
        (192, 2.005, 512),  # 256.64 rounds up to 257
    ],
)
def test_swiglu_width(width: int, expansion: float, inner: int):
    assert swiglu_width(width, expansion) == inner
    swiglu = SwiGLU(width, expansion)
    assert swiglu.gate_up_proj.weight.shape == (2 * inner, width)
    assert swiglu.down_proj.weight.shape == (width, inner)


def test_swiglu_gates_with_the_first_half():
    swiglu, x = SwiGLU(48, 4), torch.randn(2, 5, 48) * 2
    assert_close(swiglu(x), plain_swiglu(swiglu, x.double()))


def test_swiglu_over_positions_is_that_over_the_last_axis_of_the_transposed():
    swiglu, x = SwiGLU(48, 4, over_positions=True), torch.randn(3, 48, 5) * 2
    assert_close(swiglu(x), plain_swiglu(swiglu, x.double().mT).mT)


# -- block ------------------------------------------------------------------------------------------------------------


def test_block_norms_after_each_residual():
    block, h = Block(32, 4, 4, 7, False, EPS), torch.randn(2, 7, 32)
    assert block.self_attn is not None
    expected = plain_norm(h.double() + plain_attention(block.self_attn, h.double(), True), 2)
    expected = plain_norm(expected + plain_swiglu(block.mlp, expected), 2)
    assert_close(block(h, View(RotaryEmbedding(8, 7, 10000.0)())), expected)


def test_block_with_mlp_t_mixes_and_norms_over_the_positions():
    block, h = Block(32, 4, 4, 7, True, EPS), torch.randn(2, 7, 32)
    assert block.mlp_t is not None
    columns = h.double().mT  # each row of this: one hidden unit at all positions
    expected = plain_norm((columns + plain_swiglu(block.mlp_t, columns)).mT, 1)
    expected = plain_norm(expected + plain_swiglu(block.mlp, expected), 2)
    assert_close(block(h, View()), expected)


def test_a_weight_times_each_example_and_its_gradients():
    """Against einsum, in fp64."""
    weight, x = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 7), (3, 7, 4)))
    gradient = torch.randn(3, 5, 4, dtype=torch.float64)
    y, expected = multiply_each(weight, x), torch.einsum("op,bpw->bow", weight, x)
    assert_close(y.detach(), expected.detach(), 1e-12)
    found = torch.autograd.grad(y, (weight, x), gradient)
    for a, b in zip(found, torch.autograd.grad(expected, (weight, x), gradient), strict=True):
        assert_close(a, b, 1e-12)


@pytest.mark.parametrize("over_positions", [False, True])
def test_the_gated_unit_with_a_norm(over_positions: bool):
    layer = SwiGLU(6, 4.0, inner=5, over_positions=over_positions, unit="rms_gate").double()
    x = torch.randn(2, 6, 6, dtype=torch.float64)
    rows = x.mT if over_positions else x
    both = rows @ layer.gate_up_proj.weight.T
    gate, value = both[..., :5], both[..., 5:]
    expected = (plain_norm(gate * value, -1) / (1 + torch.exp(-gate))) @ layer.down_proj.weight.T
    assert_close(layer(x).detach(), (expected.mT if over_positions else expected).detach(), 1e-6)
