"""Start a program and watch what its processes take: the time, the processor's time and the memory."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")  # a second
_INTERVAL = 0.1  # seconds between two looks


@dataclass
class Process:
    """What one process took.

    Attributes:
        processor: seconds of the processor, in all.
        own: peak of the resident memory that the process has made, in GB.
        files: peak of the pages of files that it has mapped, in GB; the system may drop them.
        at: event -> seconds of the processor until then.
    """

    processor: float = 0.0
    own: float = 0.0
    files: float = 0.0
    at: dict[str, float] = field(default_factory=dict)

    def look(self, pid: int) -> None:
        """Take the time of the process, and its memory if it is a new peak."""
        try:
            status, stat = Path(f"/proc/{pid}/status").read_text(), Path(f"/proc/{pid}/stat").read_text()
        except OSError:  # it has just ended
            return
        sizes = {
            name: int(size) * 1024 / 1e9
            for name, size in re.findall(r"^(RssAnon|RssFile|RssShmem):\s+(\d+) kB", status, re.MULTILINE)
        }
        self.own = max(self.own, sizes.get("RssAnon", 0.0) + sizes.get("RssShmem", 0.0))
        self.files = max(self.files, sizes.get("RssFile", 0.0))
        user, system = stat.rpartition(")")[2].split()[11:13]  # after the name, which may contain anything
        self.processor = (int(user) + int(system)) / _TICKS

    def reach(self, events: Iterable[str]) -> None:
        """Keep the processor's time of the last look as that of these events."""
        self.at |= dict.fromkeys(events, self.processor)


@dataclass
class Watched:
    """What a program took.

    Attributes:
        seconds: from its start to its end.
        seen: event -> seconds from the start.
        processes: of one program, or of the ranks that torchrun has started, in their order.
        output: what it printed.
        killed: whether it was ended from outside.
    """

    seconds: float
    seen: dict[str, float]
    processes: list[Process]
    output: str
    killed: bool


def watch(
    command: list[str],
    log: Path,
    events: Mapping[str, Callable[[], bool]] | None = None,
    launched: bool = False,
    kill: Callable[[], bool] = lambda: False,
) -> Watched:
    """Run a program to its end, in the folder of the repository.

    Args:
        command: the command line.
        log: file for what it prints.
        events: name -> whether it has happened.
        launched: whether the command is a launcher, whose children are watched.
        kill: when to kill the program with all its processes.

    Raises:
        SystemExit: the program failed; with the end of its output.
    """
    began, seen, found, killed = time.monotonic(), dict[str, float](), dict[int, Process](), False
    with log.open("w") as file:
        program = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        while program.poll() is None:
            now = time.monotonic() - began
            happened = [name for name, has in (events or {}).items() if name not in seen and has()]
            seen |= dict.fromkeys(happened, now)
            for pid in _children(program.pid) if launched else [program.pid]:
                process = found.setdefault(pid, Process())
                process.look(pid)
                process.reach(happened)
            if kill():
                os.killpg(program.pid, signal.SIGKILL)
                killed = True
                break
            time.sleep(_INTERVAL)
    finally:
        if program.poll() is None and not killed:
            os.killpg(program.pid, signal.SIGKILL)
        status = program.wait()
    output = log.read_text()
    if status and not killed:
        raise SystemExit(output[-4000:])
    return Watched(time.monotonic() - began, seen, [found[pid] for pid in sorted(found)], output, killed)


def torchrun(processes: int) -> list[str]:
    """The words of torchrun on this machine, before those of the program."""
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def _children(parent: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []
