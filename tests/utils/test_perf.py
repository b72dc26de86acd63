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
    assert timer.step_done()["perf/examples_per_second"] == 8.0
