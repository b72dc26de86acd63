"""Checksums of the files of a data set, by which the loader notices a file that was damaged after it was built."""

import json
import zlib
from pathlib import Path

from utils.errors import UserError
from utils.files import check_regular_file
from utils.text_files import read_json, visible

FILE = "checksums.json"
_CHUNK = 1 << 24  # bytes read at once


def write_checksums(root: Path) -> None:
    """Write `{root}/checksums.json`: path relative to `root` -> CRC-32 of the file, for all files below `root`."""
    files = sorted(path for path in visible(root.rglob("*")) if path.is_file() and path.name != FILE)
    sums = {path.relative_to(root).as_posix(): _checksum(path) for path in files}
    (root / FILE).write_text(json.dumps(sums, indent=1) + "\n")


def check_checksums(root: Path, split: str) -> None:
    """Compare the files of one split, and those that all splits share, with the checksums of the build.

    Data sets of the published builders, and of earlier versions, have none and are accepted.

    Raises:
        UserError: a file is not as it was built, or the checksums themselves are damaged.
    """
    path = root / FILE
    if not path.exists():
        return
    mend = f"Build the data set again, or remove {path} if the files are meant to be as they are."
    sums = read_json(path, mend)
    if not isinstance(sums, dict) or not all(isinstance(value, str) for value in sums.values()):
        raise UserError(f"{path}: expected an object of file -> checksum. {mend}")
    # a file that is missing is named by whatever reads it
    for file in visible(
        [*root.glob("identifiers.json"), *(root / split).glob("*.json"), *(root / split).glob("*.npy")]
    ):
        check_regular_file(file, mend)
        expected = sums.get(file.relative_to(root).as_posix())
        if expected is None:
            raise UserError(f"{path} has no checksum of {file}, so one of the two is not as it was built. {mend}")
        if _checksum(file) != expected:
            raise UserError(
                f"{file} is not as it was built: its checksum is not that in {path.name}, so it is damaged or was "
                f"edited. {mend}"
            )


def _checksum(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"
