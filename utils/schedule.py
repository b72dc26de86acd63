"""When a training run evaluates, saves and ends; and reading the metrics of a step without making the device wait."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch

from utils.divergence import LossWatch
from utils.optimizers import learning_rate
from utils.perf import StepTimer
from utils.settings import TrainingConfig

MAX_INITIAL_SHARE = 0.05  # of the initial weights in their average at the end of a run, above which the run says so


class ComputedSteps(Set[int]):
    """The steps `step_of(n)`, at least 1, of all n in `numbers`, computed when asked for, however many they are.

    `step_of` must not decrease with n.
    """

    def __init__(self, numbers: range, step_of: Callable[[int], int]):
        self._numbers, self._step_of = numbers[bisect_left(numbers, 1, key=step_of) :], step_of

    def __contains__(self, step: object) -> bool:
        if not isinstance(step, int):
            return False
        index = bisect_left(self._numbers, step, key=self._step_of)
        return index < len(self._numbers) and self._step_of(self._numbers[index]) == step

    def __iter__(self) -> Iterator[int]:
        return (step for step, _ in groupby(map(self._step_of, self._numbers)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class Schedule:
    """The steps of a run, counted from 1.

    Attributes:
        total_steps: steps of the learning-rate schedule.
        eval_steps: steps after which to evaluate, besides the last step.
        last_step: the step after which the run ends, at most total_steps.
        save_every_eval, save_every_steps: when to save, besides the last step.
    """

    total_steps: int
    eval_steps: Set[int]
    last_step: int
    save_every_eval: bool
    save_every_steps: int | None

    def after(self, step: int) -> range:
        """The steps that remain after `step`."""
        return range(step + 1, self.last_step + 1)

    def evaluates(self, step: int) -> bool:
        """Whether to evaluate after `step`."""
        return step in self.eval_steps or step == self.last_step

    def saves(self, step: int) -> bool:
        """Whether to write a checkpoint after `step`."""
        every = self.save_every_steps
        return (
            step == self.last_step
            or (self.evaluates(step) and self.save_every_eval)
            or (every is not None and step % every == 0)
        )


def make_schedule(config: TrainingConfig, total_steps: int, eval_steps: Set[int]) -> Schedule:
    """The schedule of a run whose data last for `total_steps`, with evaluations after `eval_steps`."""
    last_step = min(total_steps, config.max_steps or total_steps)
    return Schedule(total_steps, eval_steps, last_step, config.checkpoint_every_eval, config.checkpoint_every_steps)


def say_if_short(config: TrainingConfig, last_step: int, warmup_steps: int, say: Callable[[str], None]) -> None:
    """Say so, with numbers, if a run is too short for its warm-up or for its moving average.

    Args:
        config: the configuration of the run.
        last_step: the step after which the run ends.
        warmup_steps: steps over which the learning rate rises.
        say: prints a line.
    """
    if last_step < warmup_steps:
        highest = learning_rate(config.lr, last_step, last_step, warmup_steps, config.lr_min_ratio)
        say(
            f"note: the warm-up takes {warmup_steps:,} steps, but the run ends after {last_step:,}: its highest "
            f"learning rate is {highest:.3g} instead of lr={config.lr:g}. Shorten the warm-up or train longer."
        )
    initial = config.ema_rate**last_step  # what is left of the weights with which the average began
    if config.ema and initial > MAX_INITIAL_SHARE:
        say(
            f"note: with ema_rate={config.ema_rate:g}, the averaged weights still hold {initial:.1%} of the initial "
            f"weights after {last_step:,} steps. Use a lower ema_rate, ema=false, or train longer."
        )


class Listener(Protocol):
    """What all ranks ask for, in the metrics of a step (`utils.run_control.RunControl`)."""

    def hears(self, metrics: dict[str, float]) -> bool: ...


class Measured(Protocol):
    """The metrics of a step that the device may still be computing (`models.training.StepMetrics`)."""

    def read(self) -> dict[str, float]: ...


class StepReader:
    """Reads the metrics of a step once the next step is running, so that the device never waits for the host.

    Args:
        amounts, flops: amounts and operations per step (see `StepTimer`).
        device: where the steps run; on the CPU a step is read at once, since there is nothing to wait for.
        limit: the largest token loss (see `LossWatch`).
        control: takes what the ranks ask for out of the metrics, and says whether all launched steps are to be read.
    """

    def __init__(
        self,
        amounts: dict[str, float],
        flops: float,
        device: torch.device,
        limit: float | None = None,
        control: Listener | None = None,
    ):
        self._control = control
        self._timer, self._lag = StepTimer(amounts, flops, device), int(device.type != "cpu")
        self._unread: list[tuple[int, Measured]] = []
        self._watch = LossWatch(limit)

    def data_ready(self) -> None:
        """Record that the batch of the next step has arrived."""
        self._timer.data_ready()

    def restart(self) -> None:
        """Begin the next step now, so that the time since the last one does not count."""
        self._timer.restart()

    def add(self, step: int, measured: Measured) -> None:
        """Add a step that has been launched."""
        self._timer.launched()
        self._unread.append((step, measured))

    def ready(self, all_steps: bool) -> Iterator[tuple[int, dict[str, float], dict[str, float]]]:
        """(step, metrics, perf) of each step that can be read without waiting, or of all launched steps.

        Raises:
            Diverged: the loss of a step is not finite, or has exploded.
        """
        while len(self._unread) > (0 if all_steps else self._lag):
            step, measured = self._unread.pop(0)
            metrics, perf = measured.read(), self._timer.step_done()
            if self._control is not None and self._control.hears(metrics):
                all_steps = True  # to save after the step that has been launched last
            self._watch.check(step, metrics)
            yield step, metrics, perf
