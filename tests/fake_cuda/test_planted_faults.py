"""Faults that only a GPU shows, planted into a training step: each must be caught."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from models.losses import ACTLossHead
from models.training import TrainState
from tests.fake_cuda.architectures import batch_of, head_of, state_of
from tests.fake_cuda.device import CUDA, DevicesMix, HostWaits, fake_cuda
from tests.fake_cuda.ranks import HostCollective, two_ranks
from utils import distributed

Patch = pytest.MonkeyPatch


def step(name: str = "trm", ranks: bool = False) -> TrainState:
    """One step on the device, in which the host must not wait."""
    with fake_cuda() as device:
        state = state_of(head_of(name).to(CUDA))
        batch = {key: value.to(CUDA) for key, value in batch_of(name, 0).items()}
        if ranks:
            with two_ranks(device):
                state.launch_step(batch)  # the order of the gradients is read once
                with device.step():
                    state.launch_step(batch)
        else:
            with device.step():
                state.launch_step(batch)
    return state


def in_the_loss(monkeypatch: Patch, change: Callable[[Tensor], Any]) -> None:
    """Adds to the token loss of each example what `change` makes of it."""
    losses = ACTLossHead.example_losses

    def changed(self: ACTLossHead, *args: Any) -> tuple[Tensor, Tensor]:
        lm_loss, halt_loss = losses(self, *args)
        return lm_loss + change(lm_loss), halt_loss

    monkeypatch.setattr(ACTLossHead, "example_losses", changed)


@pytest.mark.parametrize("ranks", [False, True])
def test_without_a_fault_nothing_is_caught(ranks: bool):
    assert step(ranks=ranks).step == 1 + ranks


def test_a_cpu_tensor_in_the_loss(monkeypatch: Patch):
    in_the_loss(monkeypatch, lambda loss: torch.zeros(len(loss)))
    with pytest.raises(DevicesMix, match="test_planted_faults"):
        step()


@pytest.mark.parametrize(
    "read",
    [
        lambda loss: loss.sum().item(),
        lambda loss: 0.0 if loss.isfinite().all() else 1.0,
        lambda loss: loss[loss > 0].sum(),
        lambda loss: torch.tensor([0.0] * len(loss), device=loss.device),
    ],
)
def test_a_read_in_the_step(monkeypatch: Patch, read: Callable[[Tensor], Any]):
    in_the_loss(monkeypatch, read)
    with pytest.raises(HostWaits, match="test_planted_faults"):
        step()


def test_a_read_in_the_backward_pass(monkeypatch: Patch):
    def observed(loss: Tensor) -> Tensor:
        loss.register_hook(lambda gradient: gradient * (1 + 0 * gradient.sum().item()))
        return torch.zeros_like(loss)

    in_the_loss(monkeypatch, observed)
    with pytest.raises(HostWaits, match="test_planted_faults"):
        step()


def test_a_draw_that_stays_on_the_cpu(monkeypatch: Patch):
    for module in ("models.training", "models.act"):
        monkeypatch.setattr(f"{module}.to_device", lambda tensor, device: tensor)
    with pytest.raises(DevicesMix, match=r"models/act\.py"):
        step()


def test_a_draw_that_is_waited_for(monkeypatch: Patch):
    monkeypatch.setattr("models.training.to_device", lambda tensor, device: tensor.to(device))
    with pytest.raises(HostWaits, match=r"test_planted_faults"):
        step()


def test_a_draw_from_a_generator_of_the_cpu(monkeypatch: Patch):
    def draw(self: ACTLossHead, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"min_steps": torch.randint(2, 4, (rows,), generator=generator, device=CUDA)}

    monkeypatch.setattr(ACTLossHead, "draw_step", draw)
    with pytest.raises(DevicesMix, match="generator of the CPU"):
        step()


def on_the_host(*args: Any) -> Tensor:
    return torch.zeros(3)


COLLECTIVES: dict[str, Callable[[], Any]] = {
    "sum of gradients": lambda: distributed.summed_over_ranks(torch.zeros(3)),
    "sum of metrics": lambda: distributed.SummedScalars({"loss": torch.zeros(())}),
    "maximum": lambda: distributed.largest_over_ranks(1.0, torch.device("cpu")),
    "weights": lambda: distributed.broadcast_module(torch.nn.Linear(2, 2)),
    "rows": lambda: distributed.gather_rows(torch.zeros(3)),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_a_collective_on_a_host_tensor(monkeypatch: Patch, name: str):
    def with_collective(loss: Tensor) -> Tensor:
        COLLECTIVES[name]()
        return torch.zeros_like(loss)

    in_the_loss(monkeypatch, with_collective)
    with pytest.raises(HostCollective, match="in the memory of the host"):
        step(ranks=True)


def test_a_collective_on_an_object_in_the_step(monkeypatch: Patch):
    calls: list[int] = []

    def with_object(loss: Tensor) -> Tensor:
        calls.append(len(calls))
        if len(calls) > 2:  # both micro-batches of the first step may
            distributed.broadcast_object("value")
        return torch.zeros_like(loss)

    in_the_loss(monkeypatch, with_object)
    with pytest.raises(HostWaits, match="broadcast_object"):
        step(ranks=True)


def test_a_table_of_embeddings_left_on_the_cpu(monkeypatch: Patch):
    sums = "models.sparse_embedding.sums_by_id"
    monkeypatch.setattr(sums, lambda ids, values: (torch.arange(len(ids)), values))
    with pytest.raises(HostWaits, match=r"models/sparse_embedding\.py"):
        step()
