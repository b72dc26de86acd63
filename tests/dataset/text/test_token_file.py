"""Files of tokens: what was written is read, and what is not whole, or not what was asked for, is refused."""

import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dataset.text.token_file import DamagedTokens, TokenFile, write_token_file
from utils.errors import UserError

DOCUMENTS = [[1, 2, 3], [], [9], [0, 65535, 7, 7], [], [5] * 1001]


def arrays(documents: list[list[int]]) -> list[np.ndarray]:
    return [np.array(document, np.int32) for document in documents]


def written(path: Path, documents: list[list[int]] = DOCUMENTS, vocab_size: int = 1 << 16, at_once: int = 2) -> Path:
    chunks = [arrays(documents[start : start + at_once]) for start in range(0, len(documents), at_once)]
    write_token_file(path, "digest", vocab_size, chunks)
    return path


@pytest.mark.parametrize("vocab_size", [1 << 16, (1 << 16) + 1])
@pytest.mark.parametrize("documents", [DOCUMENTS, [], [[]], [[3]], DOCUMENTS * 3])
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_what_was_written_is_read(tmp_path: Path, documents: list[list[int]], vocab_size: int, at_once: int):
    opened = TokenFile(written(tmp_path / "a.tokens", documents, vocab_size, at_once), "digest")
    for file in (opened, pickle.loads(pickle.dumps(opened))):
        numbers = np.arange(len(documents))[::-1]
        assert len(file) == len(documents)
        assert file.lengths(numbers).tolist() == [len(document) for document in documents[::-1]]
        tokens = file.tokens(numbers)
        assert [part.tolist() for part in tokens] == documents[::-1]
        assert all(part.dtype == (np.uint16 if vocab_size == 1 << 16 else np.int32) for part in tokens)
    assert opened.size == (tmp_path / "a.tokens").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["a.tokens"]
    assert f"{sum(map(len, documents)):,} of {len(documents)} documents in {tmp_path / 'a.tokens'}" in str(opened)


def test_large_ids_need_larger_numbers(tmp_path: Path):
    file = TokenFile(written(tmp_path / "a.tokens", [[65536, 1]], 70_000), "digest")
    assert file.tokens(np.array([0]))[0].tolist() == [65536, 1]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path):
    def breaking() -> Iterator[list[np.ndarray]]:
        yield arrays(DOCUMENTS)
        assert len(list(tmp_path.glob("a.tokens.*.partial"))) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_token_file(tmp_path / "a.tokens", "digest", 100, breaking())
    assert not list(tmp_path.iterdir())
    before = written(tmp_path / "a.tokens").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_token_file(tmp_path / "a.tokens", "digest", 100, breaking())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.tokens": before}


def test_two_writers_do_not_meet(tmp_path: Path):
    def meanwhile() -> Iterator[list[np.ndarray]]:
        yield arrays(DOCUMENTS[:3])
        written(tmp_path / "a.tokens", [[4]])
        nonlocal opened
        opened = TokenFile(tmp_path / "a.tokens", "digest")
        yield arrays(DOCUMENTS[3:])

    opened: TokenFile | None = None
    write_token_file(tmp_path / "a.tokens", "digest", 1 << 16, meanwhile())
    assert opened is not None
    assert opened.tokens(np.array([0]))[0].tolist() == [4]  # who has the first file open goes on reading it
    file = TokenFile(tmp_path / "a.tokens", "digest")
    assert [part.tolist() for part in file.tokens(np.arange(6))] == DOCUMENTS


def test_partial_files_of_killed_writers_are_removed(tmp_path: Path):
    old, fresh, other = (tmp_path / f"{name}.partial" for name in ("a.tokens.1", "a.tokens.2", "b.tokens.1"))
    for path in (old, fresh, other):
        path.write_bytes(b"half")
    long_ago = time.time() - 2 * 3600
    for path in (old, other):
        os.utime(path, (long_ago, long_ago))
    written(tmp_path / "a.tokens")
    assert {path.name for path in tmp_path.iterdir()} == {"a.tokens", fresh.name, other.name}


def test_damaged_files_are_refused(tmp_path: Path):
    path = tmp_path / "a.tokens"
    whole = written(path).read_bytes()
    header = json.loads(whole[:512])
    damaged = {
        "nothing": (b"", "no header"),
        "half a header": (whole[:100], "no header"),
        "other content": (b"Once upon a time" * 100, "no header"),
        "zeros": (bytes(len(whole)), "no header"),
        "deep": (b"[" * 4000, "no header"),
        "a byte less": (whole[:-1], f"it has {len(whole) - 1:,} bytes, expected {len(whole):,}"),
        "a byte more": (whole + b"\0", "bytes, expected"),
        "header alone": (whole[:512], "it has 512 bytes"),
        "ends": (whole[:-8] + bytes(8), "do not fit"),
        "ends in the middle": (whole[:-24] + b"\xff" * 8 + whole[-16:], "do not fit"),
    }
    for changes, message in (
        ({"version": 2}, "has format 2, this program reads 1"),
        ({"made_from": "other"}, "other text or of another tokenizer"),
        ({"dtype": "<f4"}, "no header"),
        ({"tokens": -1}, "no header"),
        ({"documents": 2.0}, "no header"),
        ({"format": "cookies"}, "no header"),
        ({"more": 1}, "no header"),
        ({"tokens": header["tokens"] - 4}, "bytes, expected"),
        ({"tokens": header["tokens"] - 1}, "do not fit|bytes, expected"),
    ):
        line = json.dumps({**header, **changes}).encode().ljust(511) + b"\n"
        damaged[str(changes)] = line + whole[512:], message
    for content, message in damaged.values():
        path.write_bytes(content)
        with pytest.raises(DamagedTokens, match=message):
            TokenFile(path, "digest")
    path.write_bytes(whole)
    TokenFile(path, "digest")


def test_what_is_no_regular_file_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        TokenFile(tmp_path / "a.tokens", "digest")
    with pytest.raises(UserError, match=r"is a folder.*token_cache"):
        TokenFile(tmp_path, "digest")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a pipe"):
        TokenFile(tmp_path / "pipe", "digest")
    with pytest.raises(UserError, match=r"cannot be read \(Not a directory\)"):
        TokenFile(written(tmp_path / "a.tokens") / "b.tokens", "digest")
