"""Speed and memory of a training run."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch


class StepTimer:
    """Times the steps of a loop, excluding what happens between them (evaluation, checkpoints).

    A GPU works behind the host, so there the end of a step is an event in the device's own queue: the time of a step is
    that between two such events, however early or late the host asks for it.

    Args:
        amounts: amounts per step, by name: {"examples": 768} gives perf/examples_per_second.
        flops: floating-point operations of a step on all devices (models.flops), for perf/tflops; 0 if unknown.
        device: device whose peak memory is reported (CUDA only).
    """

    def __init__(self, amounts: dict[str, float], flops: float, device: torch.device):
        self._amounts, self._flops, self._device = amounts, flops, device
        self._now, self._between = _clock(device)
        self._launched: deque[tuple[Any, float]] = deque()  # end of each step, and how long it waited for its data
        self.restart()

    def restart(self) -> None:
        """Begin the next step now, so that the time since the last one does not count."""
        self._began, self._asked = self._now(), time.perf_counter()
        self._waited = 0.0

    def data_ready(self) -> None:
        """Record that the batch of the step has arrived."""
        self._waited = time.perf_counter() - self._asked

    def launched(self) -> None:
        """Record that the step has been launched; a GPU may still be computing it."""
        self._launched.append((self._now(), self._waited))
        self._asked, self._waited = time.perf_counter(), 0.0

    def step_done(self) -> dict[str, float]:
        """The perf/* values of the oldest step that has been launched, once its results have been read."""
        end, waited = self._launched.popleft()
        seconds = self._between(self._began, end)
        self._began, self._asked = end, time.perf_counter()
        perf = {f"perf/{name}_per_second": amount / seconds for name, amount in self._amounts.items()}
        perf |= {"perf/step_ms": 1000 * seconds, "perf/data_wait_ms": 1000 * waited}
        if self._flops:
            perf["perf/tflops"] = self._flops / seconds / 1e12
        if self._device.type == "cuda":
            perf["perf/peak_memory_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
        return perf


def _clock(device: torch.device) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """(a function that notes the moment when the device has done all that was launched, seconds between two notes)."""
    if device.type == "cuda":
        event = torch.cuda.Event
    elif device.type == "mps":
        event = torch.mps.event.Event
    else:
        return time.perf_counter, lambda first, second: second - first

    def note() -> Any:
        noted = event(enable_timing=True)
        noted.record()
        return noted

    return note, lambda first, second: first.elapsed_time(second) / 1000
