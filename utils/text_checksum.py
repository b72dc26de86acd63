"""Checksums inside of the small text files of a run, by which a damaged file is told from a whole one.

YAML has it in a comment in the first line, JSON under a key. It is a CRC-32 of the lines that follow, or of the other
keys. Files of earlier versions and of others have none, and are accepted.
"""

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import DamagedFileError

KEY = "crc32"
_LINE = re.compile(rf"# {KEY} ([0-9a-f]{{8}}) of the lines below\n")


def with_checksum_line(text: str) -> str:
    """`text` with its checksum in a comment line before it."""
    return f"# {KEY} {_crc(text)} of the lines below\n{text}"


def check_line(text: str, path: Path) -> None:
    """Compare the text of a file with the checksum in its first line, if there is one.

    Raises:
        DamagedFileError: it has another checksum.
    """
    match = _LINE.match(text)
    if match is None and KEY not in text.split("\n", 1)[0]:
        return
    if match is None or match[1] != _crc(text[match.end() :]):
        raise DamagedFileError(
            f"{path} does not have the checksum in its first line, so it is damaged or was edited. Take another copy "
            "of it, or remove its first line if it is meant to be as it is."
        )


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, which must be plain values of JSON, and their checksum."""
    return {**values, KEY: _crc(_canonical(values))}


def check_values(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`values` of a JSON file without their checksum, after comparing it, if there is one.

    Raises:
        DamagedFileError: they have another checksum.
    """
    rest = {key: value for key, value in values.items() if key != KEY}
    if KEY in values and values[KEY] != _crc(_canonical(rest)):
        raise DamagedFileError(
            f"{path} does not have the checksum under its key {KEY}, so it is damaged or was edited. Take another copy "
            "of it, or remove this key if it is meant to be as it is."
        )
    return rest


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
