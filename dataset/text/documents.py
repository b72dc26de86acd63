"""Documents of plain text, read in parts, and their split into training and held-out documents.

In a file, documents are separated by `<|endoftext|>` marks, as in TinyStories; a file without a mark is one document.
In a file of JSON lines (`.jsonl`), each line is a document: an object with the text under `text`, or under `story` as
`generate.py` writes it. Surrounding white space is stripped, and empty documents are skipped. Everything else is kept,
including line ends.

The held-out documents are the files given for that purpose, or else the files of the source with the word `valid` in
their names (`TinyStories-valid.txt`), or else a fraction of the documents. That fraction is chosen by a hash of the
text, so it is the same in every run, and equal documents are never split between training and evaluation.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataset.text.sources import Source, TextFile, find_files
from utils.errors import UserError

MARK = "<|endoftext|>"
LONGEST = 1 << 26  # bytes of a document; anything longer is not text with marks, and would have to be held in memory
_TEXT_KEYS = ("text", "story")  # of a JSON line, the first that is there
_CHUNK = 1 << 20  # bytes read at once


class Place(NamedTuple):
    """The position of a document."""

    file: int  # index of the file
    start: int  # first byte
    end: int  # the byte after the last


@dataclass(frozen=True)
class HashShare:
    """The documents whose hash is below the fraction `share`, or else all others."""

    share: float
    below: bool

    def holds(self, text: str) -> bool:
        """Whether the document `text` belongs to this share."""
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") < self.share * 2**64) == self.below


@dataclass(frozen=True)
class Documents:
    """Some or all documents of `files`, in their order.

    Attributes:
        files: the files.
        part: which of their documents; None for all.
        streaming: whether to read documents in order and only as needed.
    """

    files: tuple[TextFile, ...]
    part: HashShare | None = None
    streaming: bool = False

    def __iter__(self) -> Iterator[str]:
        """The texts of the documents. Memory use is bounded by the longest document."""
        return (text for _, text in self.scan())

    def scan(self, file: int = 0, start: int = 0) -> Iterator[tuple[Place, str]]:
        """The place and text of each document, starting at byte `start` of file number `file`.

        To continue after a document, start at its `end`.

        Raises:
            UserError: a file cannot be read or is not text.
        """
        for number in range(file, len(self.files)):
            for place, raw in self._cut(number, start if number == file else 0):
                text = self._text(place, raw)
                if text and (self.part is None or self.part.holds(text)):
                    yield place, text

    def read(self, places: Sequence[Place]) -> list[str]:
        """The texts at `places`, which come from `scan`."""
        return [self._text(p, self.files[p.file].read(p.start, p.end - p.start)) for p in places]

    def describe(self) -> str:
        """A short description for the log."""
        names = ", ".join(Path(file.name).name for file in self.files[:3]) + (", ..." if len(self.files) > 3 else "")
        if self.part is None:
            return f"all documents of {names}"
        share = self.part.share if self.part.below else 1 - self.part.share
        return f"{100 * share:g} % of the documents of {names}, chosen by a hash of the text"

    def _cut(self, number: int, start: int) -> Iterator[tuple[Place, bytes]]:
        """The parts of a file between marks, or its lines if they are JSON, starting at byte `start`."""
        file, position, rest = self.files[number], start, b""
        mark = b"\n" if _has_json_lines(file) else MARK.encode()
        while chunk := file.read(position, _CHUNK):
            position += len(chunk)
            *parts, rest = (rest + chunk).split(mark)
            for part in parts:
                yield Place(number, start, start + len(part)), part
                start += len(part) + len(mark)
            if len(rest) > LONGEST:
                if _has_json_lines(file):
                    raise UserError(f"{file.name}: the line at byte {start} is longer than {LONGEST >> 20} MiB.")
                raise UserError(
                    f"{file.name}: no {MARK} within {LONGEST >> 20} MiB from byte {start} on. Put lines with {MARK} "
                    "between its documents, or cut it into several files."
                )
        if rest:
            yield Place(number, start, position), rest

    def _text(self, place: Place, raw: bytes) -> str:
        try:
            # some editors write a byte order mark at the start of a file
            text = raw.decode("utf-8" if place.start else "utf-8-sig").strip()
        except UnicodeDecodeError as error:
            name = self.files[place.file].name
            raise UserError(
                f"{name}: byte {place.start + error.start} is not UTF-8 ({error.reason}). Give plain text in UTF-8."
            ) from None
        return _text_of_line(text, place, self.files[place.file]) if _has_json_lines(self.files[place.file]) else text


def _has_json_lines(file: TextFile) -> bool:
    return file.name.lower().endswith(".jsonl")


def _text_of_line(line: str, place: Place, file: TextFile) -> str:
    """The text of a document as a JSON line; empty for an empty line."""
    if not line:
        return ""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    found = [record[key] for key in _TEXT_KEYS if key in record] if isinstance(record, dict) else []
    if not found or not isinstance(found[0], str):
        raise UserError(
            f"{file.name}: the line at byte {place.start} is {line[:60]!r}. Each line of a .jsonl file must be an "
            'object with a text, {"text": "Once upon a time ..."} or {"story": ...}; give other text as .txt.'
        )
    return found[0].strip()


def open_documents(
    source: Source | Sequence[Source],
    validation: Source | Sequence[Source] | None = None,
    held_out: float = 0.02,
    streaming: bool = False,
    cache_folder: Path | str | None = None,
) -> tuple[Documents, Documents]:
    """The training and the held-out documents.

    Args:
        source: one or several files, folders, globs or Hugging Face data sets (`dataset.text.sources`).
        validation: the same, for held-out documents, which are never trained on, even if they are part of `source`.
        held_out: fraction of the documents to hold out if there are no held-out files.
        streaming: read in order and only as needed; Hugging Face data sets are not downloaded first.
        cache_folder: folder that caches a Hugging Face data set; None: data/hf/{name}.

    Raises:
        UserError: an argument is invalid, or a file does not exist.
    """
    if not 0 < held_out < 1:
        raise UserError(f"held_out {held_out}: the share of documents to hold out must lie between 0 and 1, as 0.02.")
    cache = None if cache_folder is None else Path(cache_folder)
    files = find_files(_as_list(source), streaming, cache)
    if validation is not None:
        kept_apart = find_files(_as_list(validation), streaming, cache)
    else:
        kept_apart = [file for file in files if re.search(r"(?<![a-z])valid(ation)?(?![a-z])", _stem(file))]
    if not kept_apart:
        parts = (Documents(tuple(files), HashShare(held_out, below), streaming) for below in (False, True))
        return next(parts), next(parts)
    keys = {file.key for file in kept_apart}
    training = tuple(file for file in files if file.key not in keys)
    if not training:
        names = ", ".join(file.name for file in kept_apart)
        raise UserError(f"all text is held out ({names}): give text to train on too.")
    return Documents(training, None, streaming), Documents(tuple(kept_apart), None, streaming)


def _as_list(source: Source | Sequence[Source]) -> list[Source]:
    return [source] if isinstance(source, str | Path) else list(source)


def _stem(file: TextFile) -> str:
    return Path(file.name).stem.lower()
