"""Signals that ask a run to end: noticed at once, whatever the main thread is waiting for."""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from utils.exit_status import LOST, STOPPED

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGXCPU") if hasattr(signal, name))
# A launcher passes on a signal that the terminal or the batch system has also sent to the ranks themselves.
_SAME = 3.0  # seconds within which further signals belong to the first
_ORPHANED = 120.0  # seconds that a run without a launcher has for its last step and its checkpoint
_PERIOD = 1.0  # seconds between two looks at the launcher
_FIRST = Path("/proc/1/comm")  # the name of the first process


class Interrupted(Exception):
    """An evaluation was broken off on all ranks, because the run was asked to end."""


class StopSignals:
    """Watches for SIGTERM, SIGINT, SIGUSR1 and SIGXCPU within a block, and for the end of the launcher.

    The first signal sets `received`; the run then ends after its step. Before the loop of a run there is nothing to
    save, so the program ends there at once. A second signal ends the process at once, wherever it is.

    Attributes:
        received: what asks the run to end, such as `SIGTERM`, or None.

    Args:
        launched: whether a launcher has started this process, so that the process ends when the launcher does.
        on_stop: called once, from another thread, when the run is asked to end.
    """

    def __init__(self, launched: bool, on_stop: Callable[[str], None]):
        self.received: str | None = None
        self._on_stop, self._in_loop, self._since = on_stop, False, 0.0
        self._launcher = os.getppid() if launched else None
        if launched and _adopted():
            _end("the launcher of this process has ended before the run began", LOST)
        self._before: dict[int, object] = {}
        self._over = threading.Event()

    def enter_loop(self) -> None:
        """From now on a signal lets the step finish."""
        self._in_loop = True

    def __enter__(self) -> "StopSignals":
        self._pid = os.getpid()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        if threading.current_thread() is threading.main_thread():
            # Python runs handlers between two operations of the main thread, which may wait in a collective for as
            # long as another rank is silent. The system itself writes the number of the signal to the pipe.
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            os.register_at_fork(after_in_child=self._leave_child_alone)
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)  # pyright: ignore[reportArgumentType]  # as it was
            signal.set_wakeup_fd(self._wakeup)
        self._over.set()
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _leave_child_alone(self) -> None:
        """In a process that loads data: its signals are no messages to this one."""
        if not self._over.is_set():
            signal.set_wakeup_fd(-1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a process that loads data: it ends with this one
        if not self._in_loop:
            print(
                f"\n{signal.Signals(number).name} before the first step: nothing to save", file=sys.stderr, flush=True
            )
            raise SystemExit(STOPPED)

    def _watch(self) -> None:
        while not self._over.is_set():
            if select.select([self._reader], [], [], _PERIOD)[0]:
                for number in os.read(self._reader, 64):
                    if number in SIGNALS:
                        self._receive(signal.Signals(number).name)
            if self._launcher is not None and os.getppid() != self._launcher:
                self._launcher_has_ended()

    def _receive(self, what: str) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = what, now
            self._on_stop(what)
        elif now - self._since > _SAME:
            _end(f"a second signal ({what}): ending at once; the last checkpoint is whole", STOPPED)

    def _launcher_has_ended(self) -> None:
        if self.received is None:
            self._receive("the end of the launcher")
        if not self._in_loop or time.monotonic() - self._since > _ORPHANED:
            _end("the launcher of this process has ended", LOST)


def _adopted() -> bool:
    """Whether the first process of the system has taken the place of a launcher that has ended.

    In a container a launcher may be that process itself.
    """
    if os.getppid() != 1:
        return False
    try:
        return not _FIRST.read_text().startswith(("python", "torchrun", "pt_"))
    except OSError:  # not on Linux, where launchd or the like is the first process
        return True


def outlive_stop_signals(worker: int) -> None:
    """Have a process that loads data ignore the signals, which a batch system sends to all processes of a run.

    It ends with the process that it works for, which needs its data to finish the step.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end(message: str, status: int) -> NoReturn:
    """End the process from whatever thread, without waiting for the others."""
    try:
        print(f"\n{message}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)
