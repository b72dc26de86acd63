"""The one way in which text files of users are read: plain files in UTF-8, with or without a byte order mark."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError
from utils.files import check_regular_file

_MARK = b"\xef\xbb\xbf"  # the byte order mark in UTF-8, which some editors and spreadsheets write first
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_lines(path: Path, compose: bool = True, advice: str = "Give a text file.") -> Iterator[str]:
    r"""The lines of a text file, each with its line end, one at a time.

    Lines end with `\n`, `\r\n` or `\r`. Other characters that Unicode calls line separators, such as U+2028 and U+0085,
    are part of their line.

    Args:
        path: a regular file.
        compose: bring the text to the composed form of Unicode (NFC), so that an umlaut is the same character whatever
            system wrote it. Not for text that a model reads, which must stay as it was written.
        advice: what to do about a path that is no regular file, the end of an error message.

    Raises:
        UserError: the file is missing or no regular file, cannot be read, or is not in UTF-8; then the message names
            the byte.
    """
    try:
        if not path.exists():
            raise UserError(f"{path} does not exist (from {Path.cwd()}). Correct the path.")
        check_regular_file(path, advice)
        with path.open("rb") as file:
            for line in _decoded(file, path):
                yield unicodedata.normalize("NFC", line) if compose else line
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _decoded(file: BinaryIO, path: Path) -> Iterator[str]:
    start = 0
    for raw in file:
        skip = len(_MARK) if start == 0 and raw.startswith(_MARK) else 0
        try:
            text = raw[skip:].decode("utf-8")
        except UnicodeDecodeError as error:
            form = " It looks like UTF-16." if start == 0 and raw.startswith(_UTF16) else ""
            raise UserError(
                f"{path} is not in UTF-8: byte {start + skip + error.start} is 0x{raw[skip + error.start]:02x} "
                f"({error.reason}).{form} Save it as UTF-8."
            ) from None
        start += len(raw)
        body = text.removesuffix("\r\n")
        if "\r" not in body:
            if text:
                yield text
            continue
        *lines, last = body.split("\r")
        yield from (f"{line}\r" for line in lines)
        if last := last + text[len(body) :]:
            yield last


def read_text(path: Path, compose: bool = True, advice: str = "Give a text file.") -> str:
    r"""The whole text of a file, with every line end as `\n`; see `read_lines`."""
    return "".join(read_lines(path, compose, advice)).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, advice: str = "Correct the file.") -> Any:
    """The value of a JSON file.

    Stricter than the `json` module, which keeps the last of several equal keys and knows NaN and Infinity.

    Args:
        path: the file.
        advice: how to mend the file, the end of an error message.

    Raises:
        UserError: the file cannot be read (see `read_lines`), is empty or not JSON, or an object has a key twice.
    """
    text = read_text(path, advice=advice)
    if not text.strip():
        raise UserError(f"{path} is empty: JSON is expected. {advice}")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise UserError(f"{path}: not JSON (it is nested too deeply). {advice}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). {advice}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(twice)} is there twice in one object")
    return values


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def shown(value: object, limit: int = 60) -> str:
    """`value` as Python writes it, in ASCII and shortened to `limit` characters, for a message."""
    text = ascii(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths that do not begin with a dot, sorted: without hidden files and the `._x` files that macOS adds.

    Only the last part of each path is looked at.
    """
    return sorted(path for path in paths if not path.name.startswith("."))
