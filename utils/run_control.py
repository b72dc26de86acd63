"""When a training run saves besides its schedule, and what ends it: signals, its launcher, a rank that is frozen.

All ranks must save and end after the same step. Each adds what it asks for to the metrics of its step, which are summed
over all ranks anyway and are read at the same place of the loop on every rank. So they agree without waiting once more.
"""

import base64
import hashlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import torch

from utils.background_writer import BackgroundWriter
from utils.distributed import Ranks, process_group
from utils.exit_status import STOPPED
from utils.pulse import Pulse
from utils.rank_store import RankStore
from utils.retention import Retention
from utils.run_folder import RunPlan
from utils.run_lock import RunLock
from utils.schedule import Schedule
from utils.settings import TrainingConfig
from utils.stop_signals import StopSignals

STOP, SAVE = "control/stop", "control/save"  # what is asked for, among the metrics of a step


class RunControl:
    """The block of a training run: its process group, its signals, the signs of life of its ranks, its folder's lock.

    A run that was asked to end leaves its loop when `stops` says so; the end of the block then ends the program with
    status `STOPPED`.

    Args:
        config: the configuration of the run.
        ranks: the rank of this process.
        device: the device of this process.

    Raises:
        UserError: on entry, if some of the ranks do not start.
    """

    def __init__(self, config: TrainingConfig, ranks: Ranks, device: torch.device):
        self.ranks = ranks
        self._config, self._device = config, device
        self._launched = "TORCHELASTIC_RUN_ID" in os.environ
        self._signals = StopSignals(self._launched, self._announce)
        self._blocks = ExitStack()
        self._writer = BackgroundWriter()
        self._store: RankStore | None = None
        self._lock: RunLock | None = None
        self._schedule: Schedule | None = None
        self._retention: Retention | None = None
        self._step = 0  # the step that has been launched last
        self._save = self._stop = False  # what the ranks have agreed on
        self._owes_evaluation = False
        self._stopped: int | None = None  # the step after which the run has been ended
        self._last_save = time.monotonic()

    def __enter__(self) -> "RunControl":
        with ExitStack() as blocks:
            blocks.enter_context(self._signals)
            self._store = blocks.enter_context(process_group(self.ranks, self._device))
            if self._store is not None and self.ranks.world_size > 1:
                silence = self._config.frozen_rank_seconds
                blocks.enter_context(Pulse(self._store.connect(), self.ranks, silence, lambda: self._step))
            self._blocks = blocks.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._blocks.__exit__(kind, error, trace)
        finally:
            if self._lock is not None:
                self._lock.release()
        if self._stopped is not None and error is None:
            self.ranks.say(
                f"stopped after step {self._stopped} ({self._signals.received or 'a signal to another rank'}), with a "
                "checkpoint; load_checkpoint=latest goes on from there"
            )
            sys.exit(STOPPED)

    # -- the run folder ------------------------------------------------------------------------------------------------

    def lock(self, folder: Path) -> bool:
        """Lock the run folder, on rank 0. Returns whether it had to wait for another run.

        Raises:
            UserError: another run holds it.
        """
        self._lock = RunLock(folder, self.ranks.say)
        return self._lock.waited

    def earlier_plan(self) -> RunPlan | None:
        """The plan of the processes that the same launcher has started before these for the same run, or None."""
        if self._store is None or not self._launched or not self._store.server.check([self._plan_key]):
            return None
        return pickle.loads(base64.b64decode(self._store.server.get(self._plan_key)))

    def remember(self, plan: RunPlan) -> None:
        """Keep the plan for the processes that the launcher may start after these."""
        if self._store is not None and self._launched:
            self._store.server.set(self._plan_key, base64.b64encode(pickle.dumps(plan)).decode())

    @property
    def _plan_key(self) -> str:
        """The key of the plan of this run, which may be one of several jobs under the same launcher."""
        return "plan/" + hashlib.sha256(self._config.model_dump_json().encode()).hexdigest()

    # -- in the loop ---------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, schedule: Schedule, plan: RunPlan) -> Iterator[None]:
        """The loop of the run: here a signal lets the step finish, and time counts towards the next checkpoint."""
        self._schedule = schedule
        self._retention = Retention(
            self._config, plan.folder, lambda step: schedule.evaluates(step) or step == plan.ended
        )
        self._last_save = time.monotonic()
        self._signals.enter_loop()
        with self._writer:
            yield

    def asks(self, step: int) -> dict[str, float]:
        """What this rank asks for after `step`, to be summed over all ranks along with the metrics of the step.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        self._writer.check()
        self._step = step
        minutes = self._config.checkpoint_every_minutes
        due = minutes is not None and time.monotonic() - self._last_save > 60 * minutes
        if self._lock is not None:
            self._lock.touch()
        return {STOP: float(self._signals.received is not None), SAVE: float(due and self.ranks.is_main)}

    def hears(self, metrics: dict[str, float]) -> bool:
        """Take what all ranks ask for out of the metrics of a step. Returns whether the run is to save now."""
        self._stop |= metrics.pop(STOP, 0) > 0
        self._save |= metrics.pop(SAVE, 0) > 0
        return self.saves

    @property
    def saves(self) -> bool:
        """Whether to write a checkpoint now, whatever the schedule says."""
        return self._save or self._stop

    def wait_for_writer(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            UserError: it could not be written.
        """
        self._writer.wait()

    def write(self, write_checkpoint: Callable[[], None]) -> None:
        """Write a checkpoint while the run goes on, then delete those that are no longer wanted. On rank 0."""

        def write() -> None:
            write_checkpoint()
            if self._retention is not None:
                self._retention.apply()

        self._writer.start(write)

    def saved(self) -> None:
        """Count the time to the next checkpoint from now on."""
        self._save, self._last_save = False, time.monotonic()

    def asked_to_end(self) -> bool:
        """Whether this rank knows of a signal. An evaluation asks after each batch, and then agrees with all ranks."""
        return self._signals.received is not None

    def evaluation_interrupted(self) -> None:
        """End the run after this step, whose evaluation was broken off. Called on all ranks."""
        self._stop = self._owes_evaluation = True

    def stops(self, step: int) -> bool:
        """Whether the run ends after `step` because it was asked to. The last step ends it anyway, once evaluated."""
        assert self._schedule is not None
        if self._stop and (step < self._schedule.last_step or self._owes_evaluation):
            self._stopped = step
        return self._stopped is not None

    def _announce(self, what: str) -> None:
        if self._lock is not None:
            self._lock.stopping()
        self.ranks.say(f"\n{what}: the run ends after this step, with a checkpoint; a second signal ends it at once")
