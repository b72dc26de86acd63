"""Files of tokens: the tokens of many documents one behind the other, read through a memory map.

    header   512 bytes: a line of JSON (the fields of `_Header`), filled up with spaces
    tokens   uint16, or int32 if the vocabulary does not fit
    ends     int64 [documents], from the next multiple of 8 bytes on: number of tokens up to the end of each document

All numbers are little-endian. The processes of a machine share the pages of the file that are in memory.
"""

import json
import mmap
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import check_regular_file

VERSION = 1
_HEADER_BYTES = 512
_ABANDONED = 3600  # seconds after which a partial file that does not grow is the rest of a process that was killed
_MEND = "Remove it, or choose another folder with token_cache."


class DamagedTokens(UserError):
    """The file is not a whole file of tokens, or holds the tokens of something else."""


@dataclass(frozen=True)
class _Header:
    format: str
    version: int
    made_from: str
    dtype: str
    documents: int
    tokens: int

    @property
    def ends_at(self) -> int:
        """Byte at which the ends begin."""
        return -(-(_HEADER_BYTES + self.tokens * np.dtype(self.dtype).itemsize) // 8) * 8

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.ends_at + 8 * self.documents

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode().ljust(_HEADER_BYTES - 1) + b"\n"


class TokenFile:
    """The tokens of documents, which are numbered from 0. May be sent to another process, which opens the file again.

    Attributes:
        path: the file.
        made_from: the digest of what the tokens were made from.
    """

    def __init__(self, path: Path, made_from: str):
        """Open and check the file. Its tokens are not read.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedTokens: its header, its size or its ends are wrong, or it was not made from `made_from`.
            UserError: it cannot be read.
        """
        self.path, self.made_from = path, made_from
        try:
            check_regular_file(path, _MEND)
            with path.open("rb") as file:
                header = _read_header(path, file.read(_HEADER_BYTES), made_from)
                size = os.fstat(file.fileno()).st_size
                if size != header.size:
                    raise DamagedTokens(f"{path} is damaged: it has {size:,} bytes, expected {header.size:,}.")
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}). {_MEND}") from error
        self.size = header.size
        self._tokens = np.frombuffer(content, header.dtype, header.tokens, _HEADER_BYTES)
        self._ends = np.frombuffer(content, "<i8", header.documents, header.ends_at)
        last = int(self._ends[-1]) if header.documents else 0
        if last != header.tokens or (np.diff(self._ends, prepend=0) < 0).any():
            raise DamagedTokens(f"{path} is damaged: its documents do not fit its tokens.")

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFile, (self.path, self.made_from)

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._ends)

    def __str__(self) -> str:
        return f"{len(self._tokens):,} of {len(self):,} documents in {self.path} ({self.size / 1e6:,.1f} MB)"

    def lengths(self, documents: np.ndarray) -> np.ndarray:
        """Number of tokens of each document, int64 [documents]."""
        return self._ends[documents] - self._starts(documents)

    def tokens(self, documents: np.ndarray) -> list[np.ndarray]:
        """The tokens of each document, uint16 or int32 [tokens]: views of the file."""
        starts, ends = self._starts(documents).tolist(), self._ends[documents].tolist()
        return [self._tokens[start:end] for start, end in zip(starts, ends, strict=True)]

    def _starts(self, documents: np.ndarray) -> np.ndarray:
        return np.where(documents > 0, self._ends[documents - 1], 0)


def write_token_file(path: Path, made_from: str, vocab_size: int, chunks: Iterable[Sequence[np.ndarray]]) -> None:
    """Write a file of tokens under another name and rename it once it is whole, in place of a file that is there.

    Memory holds one chunk, and 8 bytes for each document.

    Args:
        path: the file, in a folder that exists.
        made_from: a digest of what the tokens are made from, which a reader must give.
        vocab_size: number of ids; decides about the type.
        chunks: the tokens of the documents in order, some documents at a time.

    Raises:
        OSError: the file cannot be written.
    """
    _remove_abandoned(path)
    dtype = "<u2" if vocab_size <= 1 << 16 else "<i4"
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    lengths = [np.zeros(0, np.int64)]
    try:
        with partial.open("xb") as file:
            file.write(bytes(_HEADER_BYTES))
            for documents in chunks:
                lengths.append(np.fromiter(map(len, documents), np.int64, len(documents)))
                if documents:
                    file.write(np.concatenate(documents).astype(dtype).data)
            ends = np.cumsum(np.concatenate(lengths), dtype="<i8")
            header = _Header("tokens", VERSION, made_from, dtype, len(ends), int(ends[-1]) if len(ends) else 0)
            file.write(bytes(header.ends_at - file.tell()))
            file.write(ends.data)
            file.seek(0)
            file.write(header.encode())
            file.flush()
            os.fsync(file.fileno())  # a crash of the machine must not leave the new name with parts missing
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_header(path: Path, line: bytes, made_from: str) -> _Header:
    try:
        header = _Header(**json.loads(line))
        right = header.format == "tokens" and header.dtype in ("<u2", "<i4")
        right = right and all(type(n) is int and n >= 0 for n in (header.documents, header.tokens))
    except (TypeError, ValueError, RecursionError):
        right = False
    if not right:
        raise DamagedTokens(f"{path} is damaged: it has no header of a file of tokens.")
    if header.version != VERSION:
        raise DamagedTokens(f"{path} has format {header.version}, this program reads {VERSION}.")
    if header.made_from != made_from:
        raise DamagedTokens(f"{path} holds the tokens of other text or of another tokenizer.")
    return header


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that were killed have left of this file."""
    for partial in path.parent.glob(f"{path.name}.*.partial"):
        try:
            if time.time() - partial.stat().st_mtime > _ABANDONED:
                partial.unlink()
        except FileNotFoundError:  # another process has finished or removed it
            pass
