"""Which names may become names of files: names come from data and settings of others, and must not lead elsewhere."""

import os

from utils.errors import UserError

_LONGEST = 200  # bytes; file systems allow 255, and suffixes are added to the name


def safe_name(name: str, what: str) -> str:
    """`name`, if a file of this name lies in the folder in which it is created.

    Args:
        name: the name to check.
        what: where the name comes from, for the message.

    Raises:
        UserError: the name is empty, `.` or `..`, too long, or has slashes or characters that cannot be printed.
    """
    if name in ("", os.curdir, os.pardir) or "/" in name or "\\" in name or not _writable(name):
        raise UserError(
            f"{what}: {name!r} becomes the name of a file, so it must not be empty, '.' or '..', nor have slashes, "
            f"unprintable characters or more than {_LONGEST} bytes. Choose another name."
        )
    return name


def safe_path(path: str, what: str) -> str:
    """`path`, if it is one or several safe names with single slashes between them, such as `group/name`.

    Args:
        path: the path to check, which is to lie below some folder.
        what: where the path comes from, for the message.

    Raises:
        UserError: the path starts or ends with a slash, or one of its parts is not a `safe_name`.
    """
    try:
        for name in path.split("/"):
            safe_name(name, what)
    except UserError:
        raise UserError(
            f"{what}: {path!r} becomes a folder, so it must be a name, or names with single slashes between them such "
            f"as group/name. None of them may be empty, '.' or '..', nor have backslashes, unprintable characters or "
            f"more than {_LONGEST} bytes. Choose another name."
        ) from None
    return path


def _writable(name: str) -> bool:
    return name.isprintable() and len(name.encode("utf-8", errors="replace")) <= _LONGEST
