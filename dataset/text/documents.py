"""Documents of plain text, read in parts, and their split into training and held-out ones.

In a file, documents stand between `<|endoftext|>` marks, as in the files of TinyStories; a file without a mark is one
document. Surrounding white space is not part of a document, and empty documents do not count. Line ends and all else
are left as they are.

Held out are the files that are given for it, or else the files of the source with the word `valid` in their names
(`TinyStories-valid.txt`), or else a share of the documents. That share is chosen by a hash of the text: it is the same
in every run, and of two equal documents never one is trained on and the other one held out.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dataset.text.sources import Source, TextFile, find_files
from utils.errors import UserError

MARK = "<|endoftext|>"
LONGEST = 1 << 26  # bytes of a document: more is no text with marks, and would have to be held in memory
_CHUNK = 1 << 20  # bytes read at once


class Place(NamedTuple):
    """Where a document is."""

    file: int
    start: int  # first byte
    end: int  # behind the last byte


@dataclass(frozen=True)
class HashShare:
    """The documents whose hash is below `share` (of 1), or all others."""

    share: float
    below: bool

    def holds(self, text: str) -> bool:
        """Whether `text` is one of them."""
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") < self.share * 2**64) == self.below


@dataclass(frozen=True)
class Documents:
    """Some or all documents of `files`, in their order.

    Attributes:
        files: where they are.
        part: which of their documents; None: all.
        streaming: whether they are to be read in order, and no more of them than needed.
    """

    files: tuple[TextFile, ...]
    part: HashShare | None = None
    streaming: bool = False

    def __iter__(self) -> Iterator[str]:
        """Their texts; memory is bound by the longest of them."""
        return (text for _, text in self.scan())

    def scan(self, file: int = 0, start: int = 0) -> Iterator[tuple[Place, str]]:
        """Place and text of each document from byte `start` of file number `file` on.

        To go on behind a document, start at its `end`.

        Raises:
            UserError: a file cannot be read or is no text.
        """
        for number in range(file, len(self.files)):
            for place, raw in self._cut(number, start if number == file else 0):
                text = self._text(place, raw)
                if text and (self.part is None or self.part.holds(text)):
                    yield place, text

    def read(self, places: Sequence[Place]) -> list[str]:
        """The texts at `places`, which `scan` gave."""
        return [self._text(p, self.files[p.file].read(p.start, p.end - p.start)) for p in places]

    def places(self) -> np.ndarray:
        """All places, int64 [documents, 3]; reads all files."""
        found = tqdm(self.scan(), desc="find documents", unit=" documents", delay=2, leave=False, disable=None)
        return np.array([place for place, _ in found], np.int64).reshape(-1, 3)

    def describe(self) -> str:
        """In a few words, for the log."""
        names = ", ".join(Path(file.name).name for file in self.files[:3]) + (", ..." if len(self.files) > 3 else "")
        if self.part is None:
            return f"all documents of {names}"
        share = self.part.share if self.part.below else 1 - self.part.share
        return f"{100 * share:g} % of the documents of {names}, chosen by a hash of the text"

    def _cut(self, number: int, start: int) -> Iterator[tuple[Place, bytes]]:
        """The parts of a file between marks, from `start` on."""
        file, mark, position, rest = self.files[number], MARK.encode(), start, b""
        while chunk := file.read(position, _CHUNK):
            position += len(chunk)
            *parts, rest = (rest + chunk).split(mark)
            for part in parts:
                yield Place(number, start, start + len(part)), part
                start += len(part) + len(mark)
            if len(rest) > LONGEST:
                raise UserError(
                    f"{file.name}: no {MARK} within {LONGEST >> 20} MiB from byte {start} on. Put lines with {MARK} "
                    "between its documents, or cut it into several files."
                )
        if rest:
            yield Place(number, start, position), rest

    def _text(self, place: Place, raw: bytes) -> str:
        try:
            # some editors begin a file with a byte order mark
            return raw.decode("utf-8" if place.start else "utf-8-sig").strip()
        except UnicodeDecodeError as error:
            name = self.files[place.file].name
            raise UserError(
                f"{name}: byte {place.start + error.start} is not UTF-8 ({error.reason}). Give plain text in UTF-8."
            ) from None


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
        validation: likewise, what is held out; never trained on, even if it is part of `source`.
        held_out: share of the documents that is held out if there are no files for it.
        streaming: read in order, and only what is needed; Hugging Face data sets are not downloaded first.
        cache_folder: where a Hugging Face data set is looked for first and downloaded to; None: data/hf/{name}.

    Raises:
        UserError: an argument is wrong, or a file is not there.
    """
    if not 0 < held_out < 1:
        raise UserError(f"held_out {held_out}: the share of documents to hold out must lie between 0 and 1, as 0.02.")
    cache = None if cache_folder is None else Path(cache_folder)
    files = find_files(_several(source), streaming, cache)
    if validation is not None:
        kept_apart = find_files(_several(validation), streaming, cache)
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


def _several(source: Source | Sequence[Source]) -> list[Source]:
    return [source] if isinstance(source, str | Path) else list(source)


def _stem(file: TextFile) -> str:
    return Path(file.name).stem.lower()
