"""Starting the programs of a report, each in a process group of its own, and stopping them.

A lock that a program inherits tells a later report that the program still runs, if the report that started it was
killed.
"""

import fcntl
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 30.0  # seconds for a killed process group to disappear


@dataclass(frozen=True)
class Program:
    """A command line of Python.

    Attributes:
        name: a file of the repository such as `pretrain.py`, or `-m` and a module.
        arguments: its arguments.
        one_rank: start it as the only rank of a process group, as torchrun does.
    """

    name: str
    arguments: tuple[str, ...]
    one_rank: bool = False

    def command(self) -> list[str]:
        """The command line for a new interpreter."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"] if self.one_rank else []
        return [sys.executable, *launcher, *self.name.split(), *self.arguments]


class Running(Protocol):
    """A program that has been started."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs."""
        ...


# (program, file for its output, the lock that it inherits)
Start = Callable[[Program, Path, "Lock"], Running]


def start_interpreter(program: Program, log: Path, lock: "Lock") -> Running:
    """Start a program in a new interpreter."""
    with log.open("ab") as output:
        return subprocess.Popen(
            program.command(),
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            pass_fds=(lock.descriptor,),
        )


def start_fork(program: Program, log: Path, _lock: "Lock") -> Running:
    """Start a program in a fork of this process, which saves the time for importing what this process has imported.

    Not for CUDA, which does not survive a fork once this process has used it.
    """
    process = get_context("fork").Process(target=_run_here, args=(program, log))
    process.start()
    return _Fork(process)


class _Fork:
    def __init__(self, process: BaseProcess):
        assert process.pid is not None
        self.process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self.process.exitcode


def _run_here(program: Program, log: Path) -> None:
    """Become `program`: the rest of this process is what `python PROGRAM ARGUMENTS` would do."""
    os.setpgid(0, 0)
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(output.fileno(), stream.fileno())
    os.chdir(ROOT)
    os.environ.update(_environment())
    if program.one_rank:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update(rank)
    sys.argv[:] = [program.name.removeprefix("-m "), *program.arguments]
    if program.name.startswith("-m "):
        runpy.run_module(program.name.removeprefix("-m "), run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(ROOT / program.name), run_name="__main__")


def _environment() -> dict[str, str]:
    # W&B needs a network, and buffered output would be lost when a program is stopped
    return {**os.environ, "WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


def stop(running: Running, grace: float = 3.0) -> None:
    """End a program and its children: SIGTERM to its process group, and SIGKILL after `grace` seconds."""
    _signal_group(running, signal.SIGTERM)
    end = time.monotonic() + grace
    while running.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    _signal_group(running, signal.SIGKILL)
    while running.poll() is None:
        time.sleep(0.02)


def _signal_group(running: Running, number: int) -> None:
    """Send a signal to the group of a program, which may have ended and left children."""
    with suppress(ProcessLookupError):
        try:
            os.killpg(running.pid, number)
        except ProcessLookupError:
            if running.poll() is None:  # a fork that has not made its group yet
                os.kill(running.pid, number)


class Lock:
    """A lock on the folder of a report, held until the report and the program that it has started have ended.

    As a context it is given back at the end of the block.

    Args:
        path: the file to lock.

    Raises:
        UserError: another report runs in this folder.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._path = path.open("a+"), path
        try:
            self._wait()
        except UserError:
            self._file.close()
            raise
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def descriptor(self) -> int:
        """The file descriptor that a program must inherit."""
        return self._file.fileno()

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while not self._take():
            others = self._holders()
            reporter = self._reporter()
            if reporter in others:
                raise UserError(
                    f"{self._path.parent}: process {reporter} is making a report there. Wait for it, or give another "
                    "--work."
                )
            for process in others:  # the report was killed, and its program goes on without it
                _end(process)
            if time.monotonic() > end:
                raise UserError(f"{self._path}: a program of an earlier report still holds it. End that program.")
            time.sleep(0.05)

    def _take(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _reporter(self) -> int:
        """The process of the report that took the lock last."""
        self._file.seek(0)
        return int(self._file.read().strip() or 0)

    def _holders(self) -> set[int]:
        """The other processes that have the file open; none are found where there is no /proc."""
        found = set()
        for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):  # it has ended, or belongs to another user
                if descriptor.readlink() == self._path.resolve():
                    found.add(int(descriptor.parts[2]))
        return found - {os.getpid()}


def _end(process: int) -> None:
    """Kill a process, and its group if it leads one."""
    with suppress(ProcessLookupError):
        if os.getpgid(process) == process:
            os.killpg(process, signal.SIGKILL)
        else:
            os.kill(process, signal.SIGKILL)
