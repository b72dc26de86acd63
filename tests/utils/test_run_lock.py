"""One run, one folder: who holds the lock, who waits, and what a process leaves behind that has died."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.structure import ROOT
from utils import run_lock
from utils.errors import UserError
from utils.run_lock import FILE, RunLock

HOLD = """
import sys, time
from pathlib import Path
from utils.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
for line in sys.stdin:
    lock.stopping() if line == "stopping\\n" else lock.release()
    print("done", flush=True)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_a_second_run_is_refused_with_the_process_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_lock, "_PATIENCE", 0.0)
    with holder(tmp_path / "run") as first:
        with pytest.raises(UserError, match=f"process {first.pid} on {socket.gethostname()}.*would mix"):
            RunLock(tmp_path / "run")
        os.kill(first.pid, signal.SIGSTOP)
        time.sleep(0.05)
        if sys.platform == "linux":
            with pytest.raises(UserError, match="suspended"):
                RunLock(tmp_path / "run")
        first.kill()
        first.wait()
        said: list[str] = []
        lock = RunLock(tmp_path / "run", said.append)  # killed, so it has left its file
        assert [f"the run of process {first.pid} on" in line for line in said] == [True]
        lock.release()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_waits_for_one_that_is_about_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_lock, "_PATIENCE", 0.0)
    with holder(tmp_path) as first:
        tell(first, "stopping")
        said: list[str] = []

        def say(line: str) -> None:
            said.append(line)
            tell(first, "release")

        lock = RunLock(tmp_path, say)
        assert lock.waited
        assert len(said) == 1
        assert "about to end" in said[0]
        lock.release()
    (tmp_path / "new").mkdir()
    lock = RunLock(tmp_path / "new")
    assert not lock.waited
    lock.release()


def test_a_folder_made_for_the_lock_goes_with_it(tmp_path: Path):
    lock = RunLock(tmp_path / "a" / "run")
    lock.release()
    lock.release()
    assert not (tmp_path / "a" / "run").exists()
    lock = RunLock(tmp_path / "a" / "run")
    (tmp_path / "a" / "run" / "file").touch()
    lock.release()
    assert [path.name for path in (tmp_path / "a" / "run").iterdir()] == ["file"]


def test_without_locks_of_the_system_a_holder_lives_as_long_as_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock, "_PATIENCE", 0.0)
    monkeypatch.setattr(run_lock.fcntl, "lockf", refuse)
    said: list[str] = []
    with holder(tmp_path) as first:
        with pytest.raises(UserError, match=f"process {first.pid} on"):
            RunLock(tmp_path, said.append)
        assert "has no locks" in said[0]
        first.kill()
        first.wait()
        RunLock(tmp_path, said.append).release()
        assert f"the run of process {first.pid} on" in said[-1]
    elsewhere = {"host": "elsewhere", "pid": 1, "since": "then", "id": "elsewhere/1/2"}
    (tmp_path / FILE).write_text(json.dumps(elsewhere))
    with pytest.raises(UserError, match="process 1 on elsewhere"):
        RunLock(tmp_path, said.append)
    os.utime(tmp_path / FILE, (time.time() - 100, time.time() - 100))
    lock = RunLock(tmp_path, said.append)
    lock.touch()
    assert time.time() - (tmp_path / FILE).stat().st_mtime < 10
    lock.release()
