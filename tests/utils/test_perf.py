"""The timer of a training loop, on a clock that the test moves."""

import pytest
import torch

from utils import perf
from utils.perf import StepTimer


def test_rates_waiting_and_pauses(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(perf.time, "perf_counter", lambda: now)
    timer = StepTimer({"examples": 8, "tokens": 4096}, flops=6e12, device=torch.device("cpu"))
    now += 0.5
    timer.data_ready()
    now += 1.5
    timer.launched()
    now += 0.25  # the metrics of the step are read
    assert timer.step_done() == {
        "perf/examples_per_second": 4.0,
        "perf/tokens_per_second": 2048.0,
        "perf/step_ms": 2000.0,
        "perf/data_wait_ms": 500.0,
        "perf/tflops": 3.0,
    }
    now += 60  # an evaluation
    timer.restart()
    timer.data_ready()
    now += 1
    timer.launched()
    assert timer.step_done()["perf/examples_per_second"] == 8.0


class Event:
    """An event of a device that finishes each step a second after the one before."""

    recorded = 0

    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self) -> None:
        Event.recorded += 1
        self.at = 1000.0 * Event.recorded

    def elapsed_time(self, later: "Event") -> float:
        return later.at - self.at


def test_steps_of_a_gpu_are_timed_by_the_gpu_however_late_they_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 5e8)
    timer = StepTimer({"examples": 8}, flops=0, device=torch.device("cuda", 0))
    for _ in range(3):  # all launched before the first is read
        timer.data_ready()
        timer.launched()
    for _ in range(3):
        perf = timer.step_done()
        assert (perf["perf/step_ms"], perf["perf/examples_per_second"]) == (1000.0, 8.0)
    assert perf["perf/peak_memory_gb"] == 0.5
