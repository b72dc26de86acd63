"""Training steps on a CUDA device that is not there: what the CPU computes, without waiting for the device."""

from typing import Any

import pytest
import torch
from torch import Tensor

from models.text import moe
from models.training import TrainState
from tests.fake_cuda.architectures import (
    ARCHITECTURES,
    PUZZLES,
    SETTINGS,
    batch_of,
    head_of,
    state_of,
)
from tests.fake_cuda.device import CPU, CUDA, CudaTensor, FakeCuda, fake_cuda, values_of
from tests.fake_cuda.ranks import two_ranks
from tests.fake_cuda.waits import check_waits
from tests.models.small import train_state
from utils.distributed import Ranks, broadcast_module


def made(name: str, device: torch.device, settings: dict[str, Any] | None = None, **changes: Any) -> TrainState:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = head_of(name, **changes).to(device)
    return state_of(head, **(settings or {}))


def trained(state: TrainState, name: str, device: FakeCuda | None = None, first: int = 1) -> list[dict[str, float]]:
    """The metrics of two steps."""
    found = []
    for seed in (first, first + 1):
        batch = {key: value.to(CPU if device is None else CUDA) for key, value in batch_of(name, seed).items()}
        if device is None:
            metrics = state.launch_step(batch)
        else:
            with device.step():
                metrics = state.launch_step(batch)
        found.append(metrics.read())
    if name.startswith("se_rrm"):
        # symbols that are absent from a question have equal logits, so rounding decides which one is answered
        found = [{key: value for key, value in step.items() if "accuracy" not in key} for step in found]
    return found


def weights(state: TrainState) -> dict[str, Tensor]:
    """Parameters and buffers, among them the puzzle table; without those whose gradients are nothing but rounding."""
    return {name: values_of(x) for name, x in state.head.state_dict().items() if not name.endswith("in_proj_bias")}


def agree(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def all_on_device(state: TrainState) -> bool:
    assert state.ema is not None
    owned = [*state.head.parameters(), *state.head.buffers(), *state.ema.shadow.values()]
    carried: list[Tensor] = []
    for carry in state.carries:
        carry.map(carried.append)
    return all(isinstance(x, CudaTensor) for x in (*owned, *carried))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_steps_are_those_of_the_cpu(name: str):
    state = made(name, CPU)
    expected, saved, table = trained(state, name), state.state_dict(), weights(state)
    with fake_cuda() as device:
        state = made(name, CUDA)
        agree(trained(state, name, device), expected)
        assert all_on_device(state)
        check_waits(device, "metrics")
        device.waits.clear()
        found = state.state_dict()
        check_waits(device, "checkpoint")
        agree(weights(state), table)
        assert state.sparse is None or name in PUZZLES
    assert found.keys() == saved.keys()
    for name, value in found["carry"].items():
        agree(value, saved["carry"][name])
    for part in ("parameters", "ema", "optimizer"):
        for name, value in found[part].items():
            agree(value, saved[part][name]) if not name.endswith("in_proj_bias") else None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("trm", {"no_ACT_continue": False, "pos_encodings": "learned"}),
        ("trm", {"forward_dtype": "bfloat16"}),
        ("ldt", {"dropout": 0.1, "pos_encodings": "rope"}),
        ("text_trm", {"attend_across_documents": True}),
        ("text_moeut", {"forward_dtype": "bfloat16"}),
    ],
)
def test_variants_wait_for_nothing(name: str, changes: dict[str, Any]):
    with fake_cuda() as device:
        state = made(name, CUDA, {"grad_accum_steps": 1, "optimizer": "adamw"}, **changes)
        losses = [metrics["train/lm_loss"] for metrics in trained(state, name, device)]
        assert all_on_device(state)
        check_waits(device, "metrics")
    assert all(0 < loss < 10 for loss in losses)


def test_experts_take_the_way_without_a_read(monkeypatch: pytest.MonkeyPatch):
    taken = []
    blocked = moe.blocked_product
    monkeypatch.setattr(moe, "blocked_product", lambda *args: taken.append(len(args)) or blocked(*args))
    with fake_cuda() as device:
        trained(made("text_moeut", CUDA, L_cycles=1), "text_moeut", device)
    assert taken


@pytest.mark.parametrize("name", ["trm", pytest.param("text_trm", marks=pytest.mark.thorough)])
def test_a_resumed_run_is_the_uninterrupted_one(name: str):
    with fake_cuda() as device:
        state = made(name, CUDA)
        trained(state, name, device)
        saved, weights = state.state_dict(), {key: x.cpu() for key, x in state.head.state_dict().items()}
        expected = trained(state, name, device, first=3)
        resumed = made(name, CUDA)
        resumed.head.load_state_dict(weights)
        device.waits.clear()
        resumed.load_state_dict(saved)
        check_waits(device, "resume")
        assert all_on_device(resumed)
        assert trained(resumed, name, device, first=3) == expected


@pytest.mark.parametrize("name", ["trm", "text_flat", pytest.param("text_moeut", marks=pytest.mark.thorough)])
def test_two_ranks_send_what_is_on_the_device(name: str):
    settings = SETTINGS | {"global_batch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = train_state(head_of(name, halt_exploration_prob=0.0), settings, Ranks(), 8)
    batches = [{key: torch.cat([x, x]) for key, x in batch_of(name, seed).items()} for seed in (1, 2)]
    # the micro-batches of a rank
    order = torch.arange(8).view(2, 2, 2).transpose(0, 1).flatten()
    expected = [state.train_step({key: x[order] for key, x in batch.items()}) for batch in batches]
    with fake_cuda() as device, two_ranks(device) as sent, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = train_state(head_of(name, halt_exploration_prob=0.0).to(CUDA), settings, Ranks(0, 2), 8)
        broadcast_module(state.head)
        assert set(sent) == {"broadcast"}
        first = {key: value.to(CUDA) for key, value in batch_of(name, 1).items()}
        agree([state.train_step(first), *trained(state, name, device, first=2)[:1]], expected)
        check_waits(device, "first step of several ranks", "metrics")
        assert sent["all_reduce"] >= 4
        assert ("all_gather_into_tensor" in sent) == (name == "trm")
        assert state.state_dict()["carry"]["steps"].shape == (8,)
        assert "gather" in sent
        assert not {"broadcast_object_list", "gather_object"} & sent.keys()
