"""The imitation itself: what a GPU would refuse or wait for is noticed, and what it would do has the right values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.fake_cuda.device import CUDA, CudaTensor, DevicesMix, FakeCuda, HostWaits, fake_cuda, values_of


@pytest.fixture
def device():
    with fake_cuda() as device:
        yield device


def test_values_gradients_and_views_are_those_of_the_cpu(device: FakeCuda):
    layer = nn.Linear(3, 3).to("cuda")
    x = torch.arange(6.0).view(2, 3).to("cuda").requires_grad_()
    rows = layer(x) * torch.ones(3, device="cuda")
    (rows[:, :2].sum() + rows.unbind(1)[0].sum()).backward()
    assert isinstance(layer.weight, CudaTensor)
    assert isinstance(layer.weight, nn.Parameter)
    assert x.grad is not None
    assert layer.bias.grad is not None
    assert x.device == x.grad.device == CUDA
    assert values_of(layer.bias.grad).tolist() == [4, 2, 0]
    view = torch.zeros(4, device="cuda")
    view[1:3].add_(1)
    assert values_of(view).tolist() == [0, 1, 1, 0]


MIXES: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x + torch.ones(4),
    "written in place": lambda x: torch.ones(4).add_(x),
    "where": lambda x: torch.where(torch.ones(4, dtype=torch.bool), x, 0),
    "list": lambda x: torch.cat([x, torch.ones(4)]),
    "index": lambda x: torch.ones(4)[x.long()],
    "matrix": lambda x: x.view(2, 2) @ torch.ones(2, 2),
    "generator of the host": lambda x: torch.rand(4, generator=torch.Generator(), device=x.device),
    "NumPy": lambda x: x.numpy(),
}


@pytest.mark.parametrize("name", MIXES)
def test_devices_do_not_mix(name: str, device: FakeCuda):
    with pytest.raises(DevicesMix):
        MIXES[name](torch.ones(4, device="cuda"))


WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "truth": lambda x: bool((x > 0).all()),
    "list": lambda x: x.tolist(),
    "to the host": lambda x: x.cpu(),
    "onto the host": lambda x: torch.empty(4).copy_(x),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "repeats": lambda x: x.repeat_interleave(x.long()),
    "equal": lambda x: torch.equal(x, x),
    "from a list": lambda x: torch.tensor([1, 2], device=x.device),
    "from the host": lambda x: torch.ones(2).to(x.device),
    "from the host, not pinned": lambda x: torch.ones(2).to(x.device, non_blocking=True),
    "pinned, but waited for": lambda x: torch.ones(2).pin_memory().to(x.device),
    "index of the host": lambda x: x[torch.tensor([0, 1])],
    "assigned from the host": lambda x: x.copy_(torch.ones(4)),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_host_waits(name: str, device: FakeCuda):
    x = torch.ones(4, device="cuda")
    WAITS[name](x)
    assert sum(device.waits.values()) >= 1
    assert {place.split(":")[0] for place in device.waits} == {"tests/fake_cuda/test_device.py"}
    with device.step(), pytest.raises(HostWaits, match=r"test_device\.py"):
        WAITS[name](x)


def test_the_host_does_not_wait(device: FakeCuda):
    x = torch.ones(4, device="cuda")
    with device.step():
        moved = torch.arange(4).pin_memory().to("cuda", non_blocking=True)
        x[moved[:2]] = 2.0
        x = torch.where(x > 1, x, 0).clamp(max=3).sort().values
        assert x.to("cuda") is x
    assert not device.waits
    assert values_of(x).tolist() == [0, 0, 2, 2]
    assert torch.ones(2).device.type == "cpu"  # what stays on the host is ordinary
    assert not isinstance(torch.rand(2, generator=torch.Generator()), CudaTensor)


def test_a_tensor_does_not_outlive_the_device():
    with fake_cuda():
        x = torch.ones(2, device="cuda")
    with pytest.raises(AssertionError, match="outside of it"):
        _ = x + 1
