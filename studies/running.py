"""Runs the runs of a study, several at once, each through pretrain.py in a process and a folder of its own."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from studies.plan import PlannedRun
from studies.reading import failure_of, read_row
from studies.records import Records
from utils.errors import DamagedFileError, UserError
from utils.exit_status import LOST, STOPPED

ROOT = Path(__file__).resolve().parents[1]
_PAUSE = 0.2  # seconds between two looks at the processes
_IN_USE = "is in use by another run"  # what pretrain.py says about a folder that is locked
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl on Linux
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # looked up before any process is forked
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What became of the runs that were to be run.

    Attributes:
        done: names of the runs that have ended, those of earlier starts included.
        failed: name -> (exit status, why) of runs that failed.
        elsewhere: names of the runs that another process works on.
        stopped: whether a signal asked to stop.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, tuple[int, str]] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def status(self) -> int:
        """The exit status: 75 after a signal; if runs failed, 2 if wrong settings are the only reason, else 1."""
        statuses = {status for status, _ in self.failed.values()}
        if self.stopped or statuses == {STOPPED}:
            return STOPPED
        return 0 if not statuses else 2 if 1 not in statuses else 1


@dataclass
class _Job:
    run: PlannedRun
    process: subprocess.Popen[bytes]
    slot: int
    started: float


def command(run: PlannedRun, folder: Path) -> list[str]:
    """The command line of a run, which goes on if there is something to go on from."""
    own = [f"checkpoint_path={folder}", "load_checkpoint=latest"]
    return [sys.executable, str(ROOT / "pretrain.py"), *run.overrides, *own]


def run_all(runs: Sequence[PlannedRun], records: Records, jobs: int, devices: int, say: Say) -> Outcome:
    """Run what has not ended yet, at most `jobs` runs at once.

    A run that fails does not keep the others from running. Signals that ask to end (TERM, INT, USR1) are passed on to
    the runs, which save and end; no other run is started then.

    Args:
        runs: the runs, in their order.
        records: where it is noted what has ended.
        jobs: runs at once.
        devices: GPUs to spread these over; 0 or 1: leave the choice to pretrain.py.
        say: prints a line.
    """
    outcome, asked = Outcome(), list[int]()
    waiting, running = deque(runs), list[_Job]()
    total, passed_on = len(runs), dict[int, int]()  # process -> how many of the signals it has got
    with _noted_signals(asked):
        while waiting or running:
            while waiting and len(running) < jobs and not asked:
                run = waiting.popleft()
                if has_ended(run, records, say):
                    outcome.done.append(run.name)
                    continue
                records.begin(run)
                slot = min(set(range(jobs)) - {job.slot for job in running})
                running.append(_start(run, records, slot, jobs, devices))
                say(f"[{total - len(waiting)}/{total}] {run.name}: started")
            if asked and not running:
                break
            time.sleep(_PAUSE)
            for job in running:
                for number in asked[passed_on.get(job.process.pid, 0) :]:
                    job.process.send_signal(number)
                passed_on[job.process.pid] = len(asked)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                _finish(job, records, outcome, say)
    return replace(outcome, stopped=bool(asked))


def has_ended(run: PlannedRun, records: Records, say: Say, mend: bool = True) -> bool:
    """Whether nothing is left to do for a run, which is noted if it was started by something else than its study.

    Args:
        run, records: the run, and where it is noted.
        say: prints what is damaged.
        mend: move away a run folder that is damaged, so that the run can be repeated.
    """
    try:
        if records.row(run) is not None:
            return True
    except DamagedFileError as error:
        say(f"{run.name}: {error} It is written again.")
    folder = records.run_folder(run)
    try:
        row = read_row(run, folder)
    except DamagedFileError as error:
        if not mend:
            say(f"{run.name}: {error}")
            return False
        aside = next(path for n in range(1, 10_000) if not (path := Path(f"{folder}.damaged-{n}")).exists())
        folder.rename(aside)
        say(f"{run.name}: {error} It is at {aside} now, and the run is repeated.")
        return False
    if row is None:
        return False
    records.finish(run, row)
    return True


def _start(run: PlannedRun, records: Records, slot: int, jobs: int, devices: int) -> _Job:
    environment = dict(os.environ)
    if devices > 1 and jobs > 1:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot % devices)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    with records.output(run).open("ab") as output:
        process = subprocess.Popen(
            command(run, records.run_folder(run)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=_end_with_parent if _prctl is not None else None,
        )
    return _Job(run, process, slot, time.monotonic())


def _end_with_parent() -> None:
    """Have the system ask this process to end when the study is killed: the run then saves and ends."""
    assert _prctl is not None
    _prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)


def _finish(job: _Job, records: Records, outcome: Outcome, say: Say) -> None:
    """Note how the process of a run has ended."""
    run, status = job.run, job.process.returncode
    if status == 0:
        try:
            row = read_row(run, records.run_folder(run))
        except UserError as error:
            outcome.failed[run.name] = (2, str(error))
        else:
            if row is not None:
                records.finish(run, row)
                outcome.done.append(run.name)
                say(f"{run.name}: exact accuracy {row.exact_accuracy:.4f} after {time.monotonic() - job.started:.0f} s")
                return
            outcome.failed[run.name] = (1, f"it ended without an evaluation; see {records.output(run)}")
    elif status in (STOPPED, LOST):
        say(f"{run.name}: stopped, with a checkpoint from which it goes on")
        outcome.failed[run.name] = (STOPPED, "stopped by a signal; the same command goes on with it")
        return
    else:
        why = failure_of(records.output(run), status)
        if _IN_USE in why:
            outcome.elsewhere.append(run.name)
            say(f"{run.name}: another process works on it")
            return
        outcome.failed[run.name] = (status if status == 2 else 1, why)
    say(f"{run.name}: failed: {outcome.failed[run.name][1]}")


@contextmanager
def _noted_signals(asked: list[int]) -> Iterator[None]:
    """Within the block, signals that ask to end are noted in `asked`."""

    def note(number: int, frame: object) -> None:
        asked.append(number)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
