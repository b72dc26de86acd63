"""One process at a time builds a data set, whatever machine it runs on."""

import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOT_SUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_PAUSE = 0.2  # seconds between two looks at a lock that another process holds
_DAY = 86400  # seconds after which an unfinished folder of another machine is the rest of a build that was killed


@contextmanager
def build_lock(output_dir: Path) -> Iterator[None]:
    """Within the block no other process builds `output_dir`; if one does, wait for it, and say so.

    It is a lock of the system, which also frees it when the process dies, on a file that is removed at the end. On a
    file system without locks there is none; then two builds both do the work, and the first to finish counts.
    """
    path = output_dir.parent / f".{output_dir.name}.lock"
    said = False
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                break
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                break
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                os.close(file)
                raise
            if not said:
                print(f"another process is building {output_dir}: waiting for it", flush=True)
                said = True
            time.sleep(_PAUSE)
        os.close(file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def unfinished(output_dir: Path) -> Path:
    """The name of the folder in which this process builds `output_dir`."""
    return output_dir.parent / f".{output_dir.name}.building-{socket.gethostname()}-{os.getpid()}"


def remove_unfinished(output_dir: Path) -> None:
    """Remove what builds of `output_dir` that were killed have left. Only for the holder of its lock."""
    for folder in output_dir.parent.glob(f".{output_dir.name}.building-*"):
        here = folder.name.startswith(unfinished(output_dir).name.rpartition("-")[0] + "-")
        if here or time.time() - folder.stat().st_mtime > _DAY:  # locks of another machine may be invisible here
            shutil.rmtree(folder, ignore_errors=True)


def _is_at(file: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`, which its last holder may have removed."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
