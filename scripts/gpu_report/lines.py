"""Files of JSON lines to which a process that may be killed at any moment appends.

A line counts once it ends with a newline; what a killed process has left of a line is dropped.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Append one line and wait until it is on the disk."""
    _append(path, [json.dumps(values)])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; none if there is no file."""
    return [json.loads(line) for line in _whole_lines(path)]


def copy_new_lines(source: Path, target: Path) -> int:
    """Append the lines of each `source`/*.jsonl that `target` lacks to the file of the same name; how many there were.

    Lines of `target` stay as they are, so folders with the results of several machines can be merged in any order.
    """
    count = 0
    for file in sorted(source.glob("*.jsonl")):
        known = set(_whole_lines(target / file.name))
        new = [line for line in _whole_lines(file) if line not in known]
        if new:
            _append(target / file.name, new)
        count += len(new)
    return count


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    *whole, _half = path.read_text(errors="replace").split("\n")
    return [line for line in whole if line]


def _append(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
