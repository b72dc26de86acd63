"""Speed and memory of a training run."""

import time

import torch


class StepTimer:
    """Times the steps of a loop, excluding what happens between them (evaluation, checkpoints).

    Args:
        amounts: amounts per step, by name: {"examples": 768} gives perf/examples_per_second.
        flops: floating-point operations of a step on all devices (models.flops), for perf/tflops; 0 if unknown.
        device: device whose peak memory is reported (CUDA only).
    """

    def __init__(self, amounts: dict[str, float], flops: float, device: torch.device):
        self._amounts, self._flops, self._device = amounts, flops, device
        self._began = self._data_ready = time.perf_counter()

    def data_ready(self) -> None:
        """Record that the batch of the step has arrived."""
        self._data_ready = time.perf_counter()

    def step_done(self) -> dict[str, float]:
        """End the current step, begin the next one, and return the perf/* values of the step that ended."""
        now = time.perf_counter()
        seconds, waited = now - self._began, max(0.0, self._data_ready - self._began)
        self._began = now
        perf = {f"perf/{name}_per_second": amount / seconds for name, amount in self._amounts.items()}
        perf |= {"perf/step_ms": 1000 * seconds, "perf/data_wait_ms": 1000 * waited}
        if self._flops:
            perf["perf/tflops"] = self._flops / seconds / 1e12
        if self._device.type == "cuda":
            perf["perf/peak_memory_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
        return perf

    def restart(self) -> None:
        """Begin the next step now, so that the time since the last one does not count."""
        self._began = time.perf_counter()
