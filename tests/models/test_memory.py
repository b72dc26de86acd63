"""The estimate of a training step's memory, against peaks measured on a GPU and against what autograd keeps."""

import json
from dataclasses import dataclass

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from models.acceleration import Acceleration
from models.factory import make_head
from models.memory import StepMemory, say_memory, step_memory
from tests.runs import ROOT
from utils.hydra import compose
from utils.machine import Machine, choose_machine
from utils.settings import ArchConfig, PretrainConfig

BENCHES = [json.loads(line) for line in (ROOT / "docs/gpu/bench.jsonl").read_text().splitlines()]
# the newest of each kind
MEASURED = {f"{b['experiment']}-{b['compiled']}-{b['fused']}": b for b in BENCHES}
PLAIN = Acceleration(False, "", False, "")
SMALL = ["experiment=quickstart", "global_batch_size=6", "arch.forward_dtype=float32"]


@dataclass
class Sizes:
    """Those of 6x6 Sudokus."""

    vocab_size: int = 8
    seq_len: int = 36


def config_of(*overrides: str) -> PretrainConfig:
    return PretrainConfig.model_validate(compose("cfg_pretrain", list(overrides)).model_dump())


@pytest.mark.parametrize("bench", MEASURED.values(), ids=MEASURED)
def test_the_estimate_is_the_peak_measured_on_a_gpu(bench: dict):
    arch = ArchConfig.model_validate(bench["arch"])
    config = config_of(f"global_batch_size={bench['batch']}").model_copy(update={"arch": arch, "ema": True})
    sizes = (bench["vocab_size"], bench["seq_len"])
    if bench["fused"]:
        pytest.importorskip("triton")
    estimate = step_memory(config, *sizes, 1, 1, "bfloat16", bench["compiled"], bench["fused"])
    assert estimate.total / 1e9 == pytest.approx(bench["peak_memory_gb"], rel=0.06)


@pytest.mark.parametrize("recompute", [False, True])
def test_it_counts_what_autograd_keeps(recompute: bool):
    config = config_of(*SMALL, f"activation_checkpointing={recompute}")
    head = make_head(config.arch, 8, 36, dtype="float32", recompute=recompute)
    tokens = torch.randint(1, 8, (6, 36), dtype=torch.int32)
    batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": torch.zeros(6, dtype=torch.int32)}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        head(carry=head.initial_carry(batch), batch=batch)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*head.parameters(), *head.buffers())}
    real = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
    estimate = step_memory(config, 8, 36, 1, 1, "float32", compiled=False)
    assert estimate.activations == pytest.approx(real, rel=0.02)


def test_what_divides_the_batch_divides_the_activations():
    whole = step_memory(config_of(*SMALL), 8, 36, 1, 1, "float32", compiled=False)
    two = step_memory(config_of(*SMALL), 8, 36, 1, 2, "float32", compiled=False)
    parts = step_memory(config_of(*SMALL, "grad_accum_steps=2"), 8, 36, 1, 1, "float32", compiled=False)
    assert two.activations == parts.activations < whole.activations
    assert (two.states, parts.states) == (whole.states // 2, whole.states)
    assert two.weights == whole.weights
    recomputing = config_of(*SMALL, "activation_checkpointing=true")
    assert step_memory(recomputing, 8, 36, 1, 1, "float32", False).activations < whole.activations / 3


def test_a_step_that_does_not_fit_is_said_with_the_ways_out():
    memory = StepMemory(weights=10**8, puzzle_table=2 * 10**9, states=10**8, activations=42 * 10**9)
    assert memory.warning(45 * 10**9, 768, recomputes=False) is None
    warning = memory.warning(24 * 10**9, 768, recomputes=False)
    assert warning is not None
    assert "needs about 44.2 GB, of which 42.0 GB are activations of 768 examples, and 24.0 GB are free" in warning
    assert "activation_checkpointing=true, grad_accum_steps=N, more processes" in warning
    assert "checkpointing" not in (memory.warning(1, 1, recomputes=True) or "")


def test_nothing_is_said_without_a_gpu():
    said: list[str] = []
    sizes = Sizes()
    say_memory(config_of(*SMALL), sizes, 1, 1, choose_machine("cpu", "float32"), PLAIN, said.append)
    assert not said


def test_several_processes_say_what_a_large_puzzle_table_costs():
    said: list[str] = []
    config, sizes, cpu = config_of("experiment=arc1"), Sizes(), choose_machine("cpu", "float32")
    say_memory(config, sizes, 876_406, 8, cpu, PLAIN, said.append)
    assert said == [
        "puzzle table: 876,406 rows, 1.8 GB in each process; a step exchanges the gradients of the batch, 1.6 MB"
    ]
    say_memory(config, sizes, 876_406, 1, cpu, PLAIN, said.append)
    say_memory(config, sizes, 1_000, 8, cpu, PLAIN, said.append)
    assert len(said) == 1


@pytest.mark.parametrize(("free", "begins"), [(10**12, "memory: about"), (1, "warning: a training step needs about")])
def test_a_gpu_is_asked_what_is_free(free: int, begins: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    said: list[str] = []
    sizes = Sizes()
    machine = Machine(torch.device("cuda", 0), "", "float32", "", False)
    say_memory(config_of(*SMALL), sizes, 1, 1, machine, PLAIN, said.append)
    assert len(said) == 1
    assert said[0].startswith(begins)
