"""What the system knows of a process."""

import os
from pathlib import Path


def started(pid: int) -> str:
    """When a process began, in the units of its system; empty if there is no such process.

    Together with its number this names a process for good: a number may be that of another one later.
    """
    fields = _stat(pid)
    if fields:
        return fields[19]
    try:
        os.kill(pid, 0)
    except PermissionError:
        return "running"
    except (OSError, OverflowError):
        return ""
    return "running"


def is_suspended(pid: int) -> bool:
    """Whether a signal (STOP) has suspended a process; False where that is not known."""
    return _stat(pid)[:1] == ["T"]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty on other systems, or if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
