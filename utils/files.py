"""Reading and writing files of others: what is no regular file, cannot be read or is damaged becomes a `UserError`."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

OTHER_FOLDER = "Choose another checkpoint_path, or make it writable and free some space."  # for a run folder
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular_file(path: Path, mend: str) -> None:
    """Check that `path` is a regular file, before it is opened: opening a pipe waits forever.

    Args:
        path: the file; links are followed.
        mend: what to do about it, a sentence for the message.

    Raises:
        UserError: it is a folder, a pipe, a socket or a device.
        OSError: there is no such file, or its folder cannot be read.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise UserError(f"{path} is {_KINDS.get(kind, 'something else')}, expected a regular file. {mend}")


def read_bytes(path: Path, mend: str) -> bytes:
    """The content of a file; see `check_regular_file` for `mend`.

    Raises:
        UserError: the file is missing, is no regular file, or cannot be read.
    """
    try:
        check_regular_file(path, mend)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {mend}") from None


def read_text(path: Path, mend: str) -> str:
    """The content of a text file in UTF-8; see `check_regular_file` for `mend`.

    Raises:
        UserError: the file cannot be read (see `read_bytes`), or is not UTF-8.
    """
    try:
        return read_bytes(path, mend).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read (not UTF-8). {mend}") from None


def sync_files(folder: Path) -> None:
    """Have the system write all files below `folder` to the disk, so that not even a loss of power leaves half of them.

    Raises:
        OSError: a file cannot be written.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextmanager
def writing_to(folder: Path, mend: str) -> Iterator[None]:
    """Turn an error of the system while files are written to `folder` into a `UserError`.

    Args:
        folder: the folder, for the message.
        mend: what to do about it, a sentence for the message.

    Raises:
        UserError: with the file and the reason that the system gives.
    """
    try:
        yield
    except OSError as error:
        # shutil.copytree collects the errors of all files: (from, to, reason)
        parts = error.args[0] if error.args and isinstance(error.args[0], list) else []
        reason = parts[0][2] if parts else error
        raise UserError(f"{folder} cannot be written ({reason}). {mend}") from error
