"""The choice of device, dtype and compilation on machines that are pretended to be here."""

import platform
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.runs import ROOT
from utils.errors import UserError
from utils.machine import choose_compile, choose_device, choose_dtype, to_device

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


class Machine:
    """What torch says about the hardware."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.set = monkeypatch.setattr
        self.gpus(0)
        self.apple(False)
        self.capability((9, 0))
        self.cpu_bfloat16(False)
        self.chosen: list[torch.device] = []
        self.set(torch.cuda, "set_device", self.chosen.append)
        self.set(torch.cuda, "get_device_name", lambda device: f"GPU number {device.index}")

    def gpus(self, count: int) -> None:
        self.set(torch.cuda, "is_available", lambda: count > 0)
        self.set(torch.cuda, "device_count", lambda: count)

    def apple(self, there: bool) -> None:
        self.set(torch.backends.mps, "is_available", lambda: there)

    def capability(self, version: tuple[int, int]) -> None:
        self.set(torch.cuda, "get_device_capability", lambda _: version)

    def cpu_bfloat16(self, there: bool) -> None:
        self.set(torch.cpu, "_is_avx512_bf16_supported", lambda: there)
        self.set(torch.cpu, "_is_amx_tile_supported", lambda: False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_auto_takes_cuda_then_mps_then_cpu(machine: Machine):
    assert choose_device("auto") == (CPU, "there is no other")
    machine.apple(True)
    assert choose_device("auto") == (MPS, "the first of mps, cpu")
    machine.gpus(2)
    assert choose_device("auto") == (CUDA, "the first of cuda, mps, cpu: GPU number 0")
    assert machine.chosen == [CUDA]


def test_what_is_asked_for_is_taken(machine: Machine):
    machine.apple(True)
    machine.gpus(4)
    assert choose_device("cpu") == (CPU, "as asked")
    assert choose_device("mps") == (MPS, "as asked")
    assert choose_device("cuda", local_rank=3) == (torch.device("cuda", 3), "as asked: GPU number 3")


@pytest.mark.parametrize(("wanted", "reason"), [("cuda", "no CUDA device"), ("mps", "no Apple GPU")])
def test_what_is_not_here_is_refused(machine: Machine, wanted, reason: str):
    with pytest.raises(UserError, match=rf"device={wanted}, but this torch finds {reason}. Here there is: cpu;"):
        choose_device(wanted)


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused(machine: Machine, wanted):
    machine.gpus(2)
    with pytest.raises(UserError, match="process 2 of this machine has no GPU: there are 2"):
        choose_device(wanted, local_rank=2)
    assert choose_device("cpu", local_rank=2)[0] == CPU


@pytest.mark.parametrize(
    ("device", "capability", "cpu_bfloat16", "dtype"),
    [
        (CPU, (0, 0), False, "float32"),
        (CPU, (0, 0), True, "bfloat16"),
        (CUDA, (7, 5), True, "float32"),
        (CUDA, (8, 0), False, "bfloat16"),
        (CUDA, (9, 0), False, "bfloat16"),
        (MPS, (0, 0), True, "float32"),
    ],
)
def test_bfloat16_where_the_hardware_has_it(
    machine: Machine, device: torch.device, capability: tuple[int, int], cpu_bfloat16: bool, dtype: str
):
    machine.capability(capability)
    machine.cpu_bfloat16(cpu_bfloat16)
    assert choose_dtype("auto", device)[0] == dtype
    for configured in ("bfloat16", "float32", "float16"):
        chosen, reason = choose_dtype(configured, device)
        assert chosen == configured
        assert ("slow" in reason) == (configured == "bfloat16" and dtype == "float32")


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
def test_compilation(monkeypatch: pytest.MonkeyPatch, device: torch.device):
    monkeypatch.delenv("DISABLE_COMPILE", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert choose_compile("auto", device)[0] == (device == CUDA)
    assert choose_compile("auto", device, work=1e13)[0] == (device == CUDA)
    assert choose_compile("auto", device, work=1e15)[0] == (device in (CUDA, CPU))
    # in fp32 a run of the same length takes longer
    assert choose_compile("auto", device, work=4e13, dtype="float32")[0] == (device in (CUDA, CPU))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    chosen, reason = choose_compile("auto", device, work=1e15)
    assert not chosen
    assert {CUDA: "Triton", CPU: "g++", MPS: "device"}[device] in reason
    monkeypatch.setenv("DISABLE_COMPILE", "")
    assert choose_compile("auto", device, work=1e15) == (False, "DISABLE_COMPILE is set")
    assert choose_compile(True, device) == (True, "as configured")
    assert choose_compile(False, device, work=1e15) == (False, "compile=false")


def page_faults(prepare: str) -> int:
    """Of 20 tensors of 48 MB, one after another, in a process of its own."""
    program = f"""
import resource, torch
from utils.machine import keep_freed_memory
torch.set_num_threads(1)
{prepare}
for _ in range(10):  # the heap grows until the holes fit
    torch.ones(12_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.thorough
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_stays_with_the_process():
    assert page_faults("keep_freed_memory()") < page_faults("pass") / 10


def test_what_goes_to_a_gpu_is_pinned_first():
    class Recorded:
        def __init__(self, device: str):
            self.device, self.calls = torch.device(device), []

        def pin_memory(self) -> "Recorded":
            self.calls.append("pin")
            return self

        def to(self, device: torch.device, non_blocking: bool = False) -> "Recorded":
            self.calls.append((device.type, non_blocking))
            return self

    def calls(source: str, target: torch.device) -> list[Any]:
        recorded: Any = Recorded(source)
        assert to_device(recorded, target) is recorded
        return recorded.calls

    assert calls("cpu", CUDA) == ["pin", ("cuda", True)]
    assert calls("cuda", CUDA) == [("cuda", True)]
    assert calls("cpu", CPU) == [("cpu", True)]
    assert to_device(torch.ones(2), CPU).tolist() == [1.0, 1.0]
