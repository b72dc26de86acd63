"""Writing a file so that its name always stands for a complete file: the one from before, or the new one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, to be written in the block; it takes the place of `path` at the end of it.

    The content is on the disk before the name is, so not even a loss of power leaves half a file under the name. If the
    block raises, what was at `path` stays as it was.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        temporary.touch()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 that is complete or not there at all.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, indented for readers, that is complete or not there at all.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=1) + "\n")


def _sync_folder(folder: Path) -> None:
    """Have the system write down the names in `folder`; some network file systems cannot be asked to."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
