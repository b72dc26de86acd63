"""AdamATan2 against its formula written out for single numbers, the choice by name, and the learning-rate schedule."""

import copy
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.muon import LR_RATIO
from utils.optimizers import AdamATan2, atan2_above, learning_rate, make_optimizer

BETAS = (0.9, 0.95)


class Number:
    """One parameter, its averages and its own count of steps."""

    def __init__(self, value: float):
        self.value, self.m, self.v, self.t = value, 0.0, 0.0, 0

    def step(self, gradient: float, lr: float, decay: float) -> None:
        beta1, beta2 = BETAS
        self.t += 1
        self.m = beta1 * self.m + (1 - beta1) * gradient
        self.v = beta2 * self.v + (1 - beta2) * gradient * gradient
        self.value -= lr * decay * self.value
        root = math.sqrt(self.v / (1 - beta2**self.t))
        self.value -= lr / (1 - beta1**self.t) * math.atan2(self.m, root)


def some_parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in ((2, 3), (4,), ())]


def gradient(parameter: Tensor, step: int, number: int) -> Tensor | None:
    """A gradient of any size; none for parameter 1 in every third step, nor for parameter 2 in the first ten."""
    if (number == 1 and step % 3 == 0) or (number == 2 and step <= 10):
        return None
    generator = torch.Generator().manual_seed(100 * step + number)
    scale = 10.0 ** (step % 7 - 4) if number else 1.0
    return (torch.randn(parameter.shape, generator=generator) * scale).to(parameter.dtype)


def rate(step: int) -> float:
    """Some of the steps are made with lr = 0."""
    return 0.0 if step in (1, 50, 51) else 1e-3 * (1 + step % 5)


@pytest.mark.parametrize("decay", [0.0, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_adam_atan2_follows_its_formula(dtype: torch.dtype, tolerance: float, decay: float):
    parameters = some_parameters(dtype)
    optimizer = AdamATan2(parameters, lr=0.0, betas=BETAS, weight_decay=decay)
    numbers = [[Number(x) for x in p.flatten().tolist()] for p in parameters]
    for step in range(1, 101):
        optimizer.param_groups[0]["lr"] = rate(step)
        for number, (parameter, plain) in enumerate(zip(parameters, numbers, strict=True)):
            parameter.grad = gradient(parameter, step, number)
            if parameter.grad is not None:
                for single, g in zip(plain, parameter.grad.flatten().tolist(), strict=True):
                    single.step(g, rate(step), decay)
        optimizer.step()
    for parameter, plain in zip(parameters, numbers, strict=True):
        expected = torch.tensor([single.value for single in plain], dtype=torch.float64)
        assert (parameter.detach().double().flatten() - expected).abs().max() <= tolerance


def test_a_rate_of_zero_moves_nothing_and_still_averages():
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = AdamATan2([parameter], lr=0.0, weight_decay=1.0)
    parameter.grad = torch.tensor([3.0, 0.0])
    optimizer.step()
    assert parameter.tolist() == [1.0, -2.0]
    torch.testing.assert_close(optimizer.state[parameter]["exp_avg"], torch.tensor([0.3, 0.0]))


def test_the_first_step_does_not_depend_on_the_size_of_the_gradient():
    # m = (1 - beta1) g and sqrt(v) / sqrt(1 - beta2) = |g|: the first correction is not inside atan2
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    parameter.grad = torch.tensor([1e-30, -5.0, 0.0], dtype=torch.float64)
    AdamATan2([parameter], lr=1.0).step()
    step = math.atan(0.1) / 0.1
    torch.testing.assert_close(parameter.detach(), torch.tensor([-step, step, 0.0], dtype=torch.float64))


def test_groups_have_rates_and_decays_of_their_own():
    parameters = some_parameters(torch.float64)[:2]
    groups = [{"params": [parameters[0]], "lr": 0.01}, {"params": [parameters[1]], "lr": 0.1, "weight_decay": 0.5}]
    optimizer = AdamATan2(groups, betas=BETAS)  # pyright: ignore[reportArgumentType]
    numbers = [[Number(x) for x in p.flatten().tolist()] for p in parameters]
    for parameter, plain, (lr, decay) in zip(parameters, numbers, ((0.01, 0.0), (0.1, 0.5)), strict=True):
        parameter.grad = torch.ones_like(parameter)
        for single in plain:
            single.step(1.0, lr, decay)
    optimizer.step()
    for parameter, plain in zip(parameters, numbers, strict=True):
        assert parameter.flatten().tolist() == pytest.approx([single.value for single in plain], abs=1e-12)


def run(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last + 1):
        for number, parameter in enumerate(parameters):
            parameter.grad = gradient(parameter, step, number)
        optimizer.step()


def test_a_saved_optimizer_goes_on_bit_for_bit(tmp_path: Path):
    parameters = some_parameters(torch.float32)
    optimizer = AdamATan2(parameters, lr=0.01, betas=BETAS, weight_decay=0.1)
    run(parameters, optimizer, 1, 15)
    torch.save({"optimizer": optimizer.state_dict(), "parameters": parameters}, tmp_path / "saved.pt")
    run(parameters, optimizer, 16, 30)

    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    resumed = [nn.Parameter(p.detach()) for p in saved["parameters"]]
    optimizer = AdamATan2(resumed)
    optimizer.load_state_dict(saved["optimizer"])
    run(resumed, optimizer, 16, 30)
    assert all(torch.equal(mine, other) for mine, other in zip(resumed, parameters, strict=True))


@pytest.mark.parametrize("wrong", [{"lr": -1e-4}, {"weight_decay": -0.1}, {"betas": (0.9, 1.0)}])
def test_impossible_settings_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="must be >= 0"):
        AdamATan2(some_parameters(torch.float32), **wrong)


# -- by name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "plain_class"), [("adam_atan2", AdamATan2), ("adamw", torch.optim.AdamW)])
def test_make_optimizer_passes_its_settings_on(name, plain_class):
    one, other = some_parameters(torch.float32), some_parameters(torch.float32)
    run(one, make_optimizer(name, one, 0.01, BETAS, 0.1), 1, 10)
    run(other, plain_class(other, lr=0.01, betas=BETAS, weight_decay=0.1), 1, 10)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def hidden_muon(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Muon for parameter 0, AdamW at a tenth of its rate for the others, of which the last does not decay."""
    more = {"undecayed": parameters[2:], "hidden": parameters[:1], "adamw_lr_ratio": 0.1}
    return make_optimizer("muon_hidden", parameters, 0.02, BETAS, 0.1, **more)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(LR_RATIO, 1.0)


def test_muon_for_hidden_matrices_is_that_of_torch_beside_adamw():
    one, other = some_parameters(torch.float32), some_parameters(torch.float32)
    optimizer = hidden_muon(one)
    muon = torch.optim.Muon(other[:1], 0.02, weight_decay=0.1, momentum=0.95)
    decays = [{"params": other[1:2]}, {"params": other[2:], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(decays, 0.002, BETAS, weight_decay=0.1)
    for step in range(1, 13):
        set_rate(optimizer, 0.02 * step)
        set_rate(muon, 0.02 * step)
        set_rate(adamw, 0.002 * step)
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            mine.grad = gradient(mine, step, number)
            theirs.grad = gradient(theirs, step, number)
        optimizer.step()
        muon.step()
        adamw.step()
    assert all(torch.allclose(mine, theirs, rtol=1e-6, atol=0) for mine, theirs in zip(one, other, strict=True))
    assert {key for state in optimizer.state.values() for key in state} >= {"momentum_buffer", "exp_avg"}


def test_a_saved_muon_for_hidden_matrices_goes_on_bit_for_bit():
    parameters = some_parameters(torch.float32)
    optimizer = hidden_muon(parameters)
    run(parameters, optimizer, 1, 15)
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = [nn.Parameter(p.detach().clone()) for p in parameters]
    run(parameters, optimizer, 16, 20)
    other = hidden_muon(resumed)
    other.load_state_dict(saved)
    run(resumed, other, 16, 20)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(resumed, parameters, strict=True))


def test_muon_for_hidden_matrices_needs_some():
    parameters = some_parameters(torch.float32)
    with pytest.raises(UserError, match="no matrix to train. Use optimizer=adamw"):
        make_optimizer("muon_hidden", parameters, 0.02, BETAS, 0.1)
    run(parameters[:1], make_optimizer("muon_hidden", parameters[:1], 0.02, BETAS, 0.1, hidden=parameters), 1, 2)


def test_the_cuda_package_is_refused_without_cuda(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"no CUDA device here.*optimizer=adam_atan2 computes the same"):
        make_optimizer("adam_atan2_cuda", some_parameters(torch.float32), 1e-4, BETAS, 0.1)


def test_the_cuda_package_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "adam_atan2", None)
    with pytest.raises(UserError, match=r"needs the package adam-atan2.*--no-build-isolation"):
        make_optimizer("adam_atan2_cuda", some_parameters(torch.float32), 1e-4, BETAS, 0.1)


# -- schedule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1, 1 / 200),
        (50, 1 / 4),
        (199, 199 / 200),
        (200, 1.0),  # the top
        (400, 0.1 + 0.9 * (2 + math.sqrt(2)) / 4),  # a quarter of the way: (1 + cos 45 degrees) / 2
        (600, 0.55),  # half of the way
        (1000, 0.1),  # the end
        (1001, 0.1),
    ],
)
def test_rate_warms_up_and_falls_along_a_cosine(step: int, expected: float):
    found = learning_rate(3e-4, step, total_steps=1000, warmup_steps=200, min_ratio=0.1)
    assert found == pytest.approx(3e-4 * expected)


def test_published_rate_is_constant_after_its_warm_up():
    rates = [learning_rate(1e-4, step, 65_104, 2000, 1.0) for step in (1, 2, 1000, 2000, 2001, 30_000, 65_104)]
    assert rates == pytest.approx([5e-8, 1e-7, 5e-5, 1e-4, 1e-4, 1e-4, 1e-4])


@pytest.mark.parametrize("warmup", [0, 1])
def test_without_warm_up_the_first_step_has_the_full_rate(warmup: int):
    assert learning_rate(1.0, 1, 10_000, warmup, 0.0) == pytest.approx(1.0, abs=1e-6)


def test_a_warm_up_longer_than_the_training_is_never_finished():
    assert learning_rate(1.0, 10, total_steps=10, warmup_steps=40, min_ratio=0.0) == pytest.approx(0.25)


def test_atan2_above_is_atan2():
    generator = torch.Generator().manual_seed(0)
    size = 10.0 ** torch.randint(-30, 10, (2, 200_000), generator=generator)
    y, x = torch.randn(2, 200_000, generator=generator) * size
    exact = torch.atan2(y.double(), x.abs().double())
    assert (atan2_above(y, x.abs()).double() - exact).abs().max() < 3e-7
    corners = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0], [-1.0, 0.0], [1e-38, 1e30], [-1e30, 1e-38]])
    assert torch.allclose(atan2_above(*corners.T), torch.atan2(*corners.T), atol=3e-7)


@pytest.mark.thorough
@pytest.mark.parametrize("own_operator", [False, True])
def test_compiled_update_is_the_plain_one_and_averages(own_operator: bool):
    """In fp32 over 100 steps; parameters without a gradient are averaged too."""
    update = None
    if own_operator:
        operators = pytest.importorskip("models.fused.operators")
        if operators.load() is not None:
            pytest.skip(operators.load())
        update = operators.optimizer_update()
    plain_parameters, parameters = some_parameters(torch.float32), some_parameters(torch.float32)
    plain_optimizer, optimizer = (AdamATan2(some, 0.0, BETAS, 0.1) for some in (plain_parameters, parameters))
    averages: dict[Tensor, Tensor] = {p: p.detach().clone() for p in parameters}
    plain_averages = [p.detach().clone() for p in parameters]
    optimizer.update_in_one_pass(averages, ema_rate=0.9, update=update)
    for step in range(1, 101):
        for one, some in ((plain_optimizer, plain_parameters), (optimizer, parameters)):
            one.param_groups[0]["lr"] = rate(step)
            for number, parameter in enumerate(some):
                parameter.grad = gradient(parameter, step, number)
            one.step()
        plain_averages = [0.9 * a + 0.1 * p.detach() for a, p in zip(plain_averages, plain_parameters, strict=True)]
    for p, q, average in zip(plain_parameters, parameters, plain_averages, strict=True):
        torch.testing.assert_close(q, p, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(averages[q], average, rtol=1e-6, atol=1e-6)
