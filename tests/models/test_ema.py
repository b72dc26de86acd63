"""The average of the weights against its formula, and its use in the model and removal afterwards."""

import pytest
import torch
from torch import Tensor, nn

from models.ema import EMA
from models.sparse_embedding import SparsePuzzleEmbedding


def some_model(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two layers, the second without its bias trained, and a puzzle table."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), SparsePuzzleEmbedding(5, 2, dtype)).to(dtype)
    model.get_parameter("1.bias").requires_grad_(False)
    return model


@torch.no_grad()
def wander(model: nn.Module, step: int, size: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=size)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("rate", [0.999, 0.9, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_average_follows_its_formula_in_fp32(rate: float, dtype: torch.dtype):
    model = some_model(dtype)
    ema = EMA(model, rate)
    history = [values(model)]
    for step in range(20):
        wander(model, step)
        ema.update()
        history.append(values(model))
    assert ema.shadow.keys() == {"0.weight", "0.bias", "1.weight"}
    for name, shadow in ema.shadow.items():
        # unrolled: the newest counts 1 - rate, the one before rate * (1 - rate), ..., the first rate^20
        expected = history[0][name].double() * rate**20
        for age, at in enumerate(reversed(history[1:])):
            expected += at[name].double() * (1 - rate) * rate**age
        assert shadow.dtype == torch.float32
        torch.testing.assert_close(shadow.double(), expected, rtol=0, atol=1e-6)


def test_the_average_starts_as_a_copy():
    model = some_model()
    ema, start = EMA(model, 0.9), values(model)
    wander(model, 0)
    assert all(torch.equal(ema.shadow[name], x) for name, x in start.items())


def test_changes_too_small_for_bf16_are_kept():
    model = some_model(torch.bfloat16)
    ema = EMA(model, 0.999)
    before = ema.shadow["0.weight"].clone()
    wander(model, 0, size=1.0)
    ema.update()
    assert not torch.equal(ema.shadow["0.weight"], before)
    assert (ema.shadow["0.weight"] - before).abs().max() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fails", [False, True])
def test_applied_lends_the_average_and_takes_it_back(dtype: torch.dtype, fails: bool):
    model = some_model(dtype)
    ema = EMA(model, 0.9)
    wander(model, 0)
    ema.update()
    raw, average = values(model), {name: x.clone() for name, x in ema.shadow.items()}
    storages = [p.data_ptr() for p in model.parameters()]
    frozen = model.get_parameter("1.bias").clone()

    def look() -> None:
        with ema.applied():
            saved = model.state_dict()
            assert all(torch.equal(saved[name], x) for name, x in average.items())
            assert torch.equal(saved["1.bias"], frozen)
            if fails:
                raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            look()
    else:
        look()
    assert all(torch.equal(p, raw[name]) and p.dtype == dtype for name, p in values(model).items())
    assert [p.data_ptr() for p in model.parameters()] == storages
    assert all(torch.equal(ema.shadow[name], x) for name, x in average.items())


def test_training_goes_on_after_a_loan():
    model = some_model()
    ema = EMA(model, 0.9)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    with ema.applied():
        pass
    sum(p.sum() for p in model.parameters()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    before = values(model)
    optimizer.step()
    for name, x in values(model).items():
        torch.testing.assert_close(x, before[name] - 1)


def test_an_average_can_be_restored():
    model = some_model()
    ema = EMA(model, 0.9)
    wander(model, 0)
    ema.update()
    other = EMA(some_model(), 0.9)
    other.load_state_dict(ema.shadow)
    assert all(torch.equal(other.shadow[name], x) for name, x in ema.shadow.items())
    ema.update()
    assert not torch.equal(other.shadow["0.weight"], ema.shadow["0.weight"])


@pytest.mark.parametrize("shape", [(3, 4), (1, 3), ()])
def test_an_average_of_another_shape_is_refused(shape: tuple[int, ...]):
    ema = EMA(some_model(), 0.9)
    with pytest.raises(RuntimeError):
        ema.load_state_dict(ema.shadow | {"0.weight": torch.zeros(shape)})


def test_an_average_with_a_name_missing_is_refused():
    ema = EMA(some_model(), 0.9)
    with pytest.raises(KeyError, match=r"1\.weight"):
        ema.load_state_dict({name: x for name, x in ema.shadow.items() if name != "1.weight"})
