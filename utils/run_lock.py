"""One run, one folder: a lock that a run holds as long as it lives."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import OTHER_FOLDER, writing_to
from utils.processes import is_suspended, started

FILE = "run.lock"
_NOT_SUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_SILENT = 60.0  # seconds without a sign of life after which a holder counts as dead, where the system has no locks
_PATIENCE = 4.0  # seconds to wait for a holder that has just lost its launcher to notice it
_STOPPING = 600.0  # seconds to wait for a holder that has been told to stop, and saves
_RESTARTED = 180.0  # seconds to wait if the same launcher started the holder, perhaps on a node that is now gone


class RunLock:
    """The lock of a run folder: a lock of the system on `run.lock`, which also names the process that holds it.

    The system frees the lock when the process dies, on NFS too. On a file system without locks the file itself is the
    lock, and its holder counts as dead once it has not been touched for a minute; the run says so.

    Attributes:
        waited: whether another run held the lock at first.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        """Take the lock; the folder is made if it does not exist.

        Raises:
            UserError: another run holds it, or the folder cannot be written.
        """
        self.path, self.waited, self._say = folder / FILE, False, say
        self._made = not folder.exists()
        self._me, self._touched = _this_process(), 0.0
        with writing_to(folder, OTHER_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
            self._file, before = self._acquire()
            self._write(self._me)
        if before:
            say(f"note: {self.path}: the run of {_name(before)} has died; this run takes its place")

    def touch(self) -> None:
        """A sign of life, for file systems without locks, if the last one is some seconds old."""
        if time.monotonic() - self._touched > _SILENT / 6:
            self._touched = time.monotonic()
            with suppress(OSError):  # the next one may succeed
                os.utime(self._file)

    def stopping(self) -> None:
        """Tell a run that waits for the folder that this one is about to end."""
        self._write(self._me | {"stopping": True})

    def release(self) -> None:
        """Give the lock back, and remove the folder if the lock made it and nothing else is in it."""
        if self._file < 0:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1
        if self._made and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()

    def _acquire(self) -> tuple[int, dict[str, Any]]:
        """(descriptor of the locked file, the holder that has died and left it, or nothing)."""
        began, told = time.monotonic(), False
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            holder = _read(file)
            if self._try(file, holder):
                if _is_file(file, self.path):
                    return file, holder if holder.get("id") != self._me["id"] else {}
                os.close(file)  # its holder has removed it in between
                continue
            os.close(file)
            self.waited = True
            if time.monotonic() - began > _patience(holder, self._me):
                raise self._held(holder)
            if not told and holder.get("stopping"):
                self._say(f"{self.path.parent} is in use by {_name(holder)}, which is about to end: waiting for it")
                told = True
            time.sleep(0.2)

    def _try(self, file: int, holder: dict[str, Any]) -> bool:
        try:
            # of this kind and not flock: NFS knows it, and it is not inherited by processes that load data
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in _NOT_SUPPORTED:
                raise
            self._say(
                f"note: the file system of {self.path} has no locks ({error.strerror}), so two runs in this folder "
                "are noticed only if they start at least a few seconds apart"
            )
            return not holder or not _seems_alive(holder, file)
        return True

    def _write(self, content: dict[str, Any]) -> None:
        os.pwrite(self._file, json.dumps(content).ljust(512).encode(), 0)

    def _held(self, holder: dict[str, Any]) -> UserError:
        pid, here = holder.get("pid", 0), holder.get("host") == self._me["host"]
        end = f"kill {pid}" if here else f"kill {pid} on {holder.get('host')}"
        stopped = " It is suspended: kill -CONT wakes it, and kill -9 ends it." if here and is_suspended(pid) else ""
        return UserError(
            f"{self.path.parent} is in use by another run: {_name(holder)}.{stopped} Two runs in one folder would mix. "
            f"Wait for it to end, end it ({end}; it saves first), or choose another run_name or checkpoint_path."
        )


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "launch": os.environ.get("TORCHELASTIC_RUN_ID"),
        "id": f"{socket.gethostname()}/{os.getpid()}/{started(os.getpid())}",
    }


def _name(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "a process that has not said its name yet"
    return f"process {holder['pid']} on {holder.get('host')}, since {holder.get('since')}"


def _read(file: int) -> dict[str, Any]:
    try:
        content = json.loads(os.pread(file, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_file(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _patience(holder: dict[str, Any], me: dict[str, Any]) -> float:
    if holder.get("stopping"):
        return _STOPPING
    same_launch = me["launch"] not in (None, "none") and holder.get("launch") == me["launch"]
    return _RESTARTED if same_launch else _PATIENCE


def _seems_alive(holder: dict[str, Any], file: int) -> bool:
    """Whether a holder lives, as far as one can tell without locks."""
    if holder.get("host") == socket.gethostname():
        pid = holder.get("pid", 0)
        return holder.get("id") == f"{holder['host']}/{pid}/{started(pid)}" and pid != os.getpid()
    return time.time() - os.fstat(file).st_mtime < _SILENT
