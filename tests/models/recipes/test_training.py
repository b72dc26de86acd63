"""Training with all recipes that an architecture takes: resuming at any step, micro-batches, ranks, compilation."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from models.losses import ACTLossHead
from models.training import TrainState
from tests.models.recipes.test_config import NOT_TAKEN
from tests.models.small import ARCHITECTURES, double_precision, small_batch, small_model, train_state
from tests.models.small_family import FAMILY, family_model
from tests.models.small_text import small_text, small_text_head
from tests.ranks import on_two_ranks
from utils.distributed import Ranks

STEPS, BATCH = 6, 4
RECIPES: dict[str, Any] = {
    "gated_unit": "rms_gate",
    "latent_noise": 0.05,
    "depth_curriculum": [{"until": 0.3, "H_cycles": 1, "L_cycles": 1}, {"until": 0.6, "H_cycles": 1, "L_cycles": 2}],
    "stop_probability": 0.4,
    "label_smoothing": 0.2,
    "supervision_decay": 0.7,
    "halt_loss_weight": 0.05,
}
TEXT = {"trm": "text_trm", "moeut": "text_moeut", "flat": "text_flat"}
SETTINGS = {"global_batch_size": BATCH, "lr": 0.02, "lr_min_ratio": 0.01, "lr_warmup_steps": 2, "ema": True}


def recipes_of(name: str) -> dict[str, Any]:
    return {key: value for key, value in RECIPES.items() if key not in NOT_TAKEN.get(name, ())}


def state_of(name: str, ranks: Ranks | None = None, accumulate: int = 1, **changed: Any) -> TrainState:
    """A training state with all recipes that the architecture takes."""
    settings = SETTINGS | {"grad_accum_steps": accumulate, "optimizer": changed.pop("optimizer", "adamw")}
    if name in TEXT.values():
        small = next(key for key, value in TEXT.items() if value == name)
        head = small_text_head(small, **recipes_of(name) | changed)
        return train_state(head, settings | {"adamw_lr_ratio": 0.1}, ranks or Ranks(), STEPS)
    model = (family_model if name in FAMILY else small_model)(name, **recipes_of(name) | changed)
    settings |= {"adamw_lr_ratio": 0.1, "puzzle_emb_lr": 0.01}
    return train_state(ACTLossHead(model), settings, ranks or Ranks(), STEPS)


def batch_of(name: str, step: int, rows: slice = slice(None)) -> dict[str, torch.Tensor]:
    batch = small_text(BATCH) if name in TEXT.values() else small_batch(BATCH, seed=step)
    return {key: value[rows] for key, value in batch.items()}


def copied(state: TrainState) -> tuple[io.BytesIO, dict[str, torch.Tensor]]:
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    return file, {name: value.clone() for name, value in state.head.state_dict().items()}


SLOW = pytest.param("text_moeut", marks=pytest.mark.thorough)


@pytest.mark.parametrize("name", [*ARCHITECTURES, *FAMILY, "text_trm", "text_flat", SLOW])
def test_a_run_goes_on_bit_for_bit_from_any_step(name: str):
    options: dict[str, Any] = {"accumulate": 2, "optimizer": "muon_hidden"}
    state = state_of(name, **options)
    found, saved = [], []
    for step in range(STEPS):
        saved.append(copied(state))
        found.append(state.train_step(batch_of(name, step)))
    final = copied(state)[1]
    assert len({metrics["train/lm_loss"] for metrics in found}) == STEPS
    for first in range(1, STEPS) if name == "trm" else (3, STEPS - 1):
        file, weights = saved[first]
        file.seek(0)
        other = state_of(name, **options)
        other.head.load_state_dict(weights)
        other.load_state_dict(torch.load(file, weights_only=False))
        last = STEPS if first in (1, 3, STEPS - 1) else first + 1
        assert [other.train_step(batch_of(name, step)) for step in range(first, last)] == found[first:last]
        if last == STEPS:
            assert all(torch.equal(value, final[key]) for key, value in copied(other)[1].items())


@pytest.mark.parametrize("more", [{}, {"stop_probability": None, "deep_improvement": True}])
def test_micro_batches_give_what_one_batch_gives(more: dict[str, Any]):
    """All but the noise, which is drawn for each micro-batch, as dropout is."""
    with double_precision():
        states = [state_of("trm", accumulate=parts, latent_noise=0.0, **more) for parts in (1, 2, 4)]
        found = [[state.train_step(batch_of("trm", step)) for step in range(STEPS)] for state in states]
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert two == pytest.approx(one, rel=1e-6, abs=1e-9)


def train_on_two(rank: int, folder: str) -> None:
    for optimizer in ("adamw", "muon_hidden"):
        state = state_of("trm", Ranks(rank, 2), latent_noise=0.0, optimizer=optimizer)
        for step in range(STEPS):
            state.train_step(batch_of("trm", step, slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)))
        weights = state.head.state_dict()
        torch.save(weights, Path(folder) / f"{optimizer}{rank}.pt")


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path):
    on_two_ranks(train_on_two, tmp_path)
    for optimizer, tolerance in (("adamw", 1e-4), ("muon_hidden", 2e-2)):  # Muon computes in bf16
        state = state_of("trm", latent_noise=0.0, optimizer=optimizer)
        for step in range(STEPS):
            state.train_step(batch_of("trm", step))
        first, second = (torch.load(tmp_path / f"{optimizer}{rank}.pt") for rank in (0, 1))
        for key, value in state.head.state_dict().items():
            assert torch.equal(first[key], second[key]), key
            torch.testing.assert_close(
                first[key], value, rtol=tolerance, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.thorough
def test_a_stage_of_the_curriculum_compiles_nothing_again(monkeypatch: pytest.MonkeyPatch):
    """The graphs that the compiler takes from the blocks are counted; what is made of them is another matter."""
    torch._dynamo.reset()
    counters.clear()
    state, real = state_of("trm"), torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: real(self, dynamic=False, backend="eager"))
    state.head.model.compile_recursion()
    graphs = []
    for step in range(STEPS):
        state.train_step(batch_of("trm", step))
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [1, 1, 1, 1, 2, 2]  # with gradient; from H_cycles 2 on, also without
