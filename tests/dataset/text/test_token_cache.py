"""The file of tokens of a text: the tokens of its documents, made once, and made anew where it does not fit."""

import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.text import token_cache, token_file
from dataset.text.documents import Documents, HashShare
from dataset.text.sources import LocalFile
from dataset.text.token_cache import open_tokens
from dataset.text.tokenizer import TextTokenizer, make_tokenizer
from tests.dataset.text.test_documents import write
from tests.text_runs import stories, write_text
from utils.errors import UserError

TEXTS = [*stories(60), "a", "word" + " word" * 500]


class Counting(TextTokenizer):
    """Counts the texts that it tokenises."""

    texts = 0

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.texts += len(texts)
        return super().encode_batch(texts)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("bpe") / "files")


@pytest.fixture
def tokenizer(bpe: Path) -> Counting:
    made = make_tokenizer("gpt2", bpe / "vocab.json", bpe / "merges.txt", 300, sample=stories(30))
    return Counting(made.pairs, made.name, made.cap, made.kept)


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    paths = write(tmp_path / "text" / "a.txt", TEXTS[:40]), write(tmp_path / "text" / "b.txt", TEXTS[40:])
    return Documents(tuple(map(LocalFile, paths)))


@pytest.mark.parametrize("part", [None, HashShare(0.3, True), HashShare(0.3, False)])
@pytest.mark.parametrize("at_once", [1, 1000, 1 << 20])
def test_tokens_are_those_of_the_documents(
    tmp_path: Path,
    documents: Documents,
    tokenizer: Counting,
    monkeypatch: pytest.MonkeyPatch,
    part: HashShare | None,
    at_once: int,
):
    monkeypatch.setattr(token_cache, "_CHARACTERS_AT_ONCE", at_once)
    chosen = replace(documents, part=part)
    file = open_tokens(chosen, tokenizer, tmp_path / "tokens")
    expected = [tokenizer.encode(text) for text in chosen]
    assert [tokens.tolist() for tokens in file.tokens(np.arange(len(file)))] == expected
    assert 10 < len(expected) <= len(TEXTS)


def test_each_text_is_tokenised_once(tmp_path: Path, documents: Documents, tokenizer: Counting):
    said: list[str] = []
    with pytest.raises(UserError, match=r"is missing, although another process"):
        open_tokens(documents, tokenizer, tmp_path / "tokens", make=False)
    first = open_tokens(documents, tokenizer, tmp_path / "tokens", say=said.append)
    assert said == [f"tokenising 0.0 MB of text, once for all runs: {first.path}"]
    assert first.path.parent == tmp_path / "tokens"
    assert first.path.name.startswith("a-")
    for make in (True, False):
        again = open_tokens(documents, tokenizer, tmp_path / "tokens", make=make, say=said.append)
        assert again.path == first.path
    assert tokenizer.texts == len(TEXTS)
    assert len(said) == 1


def test_other_text_has_a_file_of_its_own(tmp_path: Path, documents: Documents, tokenizer: Counting, bpe: Path):
    def path(documents: Documents, tokenizer: TextTokenizer = tokenizer) -> Path:
        return open_tokens(documents, tokenizer, tmp_path / "tokens").path

    found = {
        path(documents),
        path(replace(documents, part=HashShare(0.1, True))),
        path(replace(documents, part=HashShare(0.1, False))),
        path(replace(documents, files=documents.files[:1])),
        path(replace(documents, files=documents.files[::-1])),
        path(documents, make_tokenizer("gpt2", bpe / "vocab.json", bpe / "merges.txt")),
    }
    names = [tmp_path / "text" / name for name in "ab"]
    files = [path.with_suffix(".txt") for path in names]
    os.utime(files[1], ns=(0, documents.files[1].modified + 1))
    touched = Documents(tuple(map(LocalFile, files)))
    found.add(path(touched))
    with files[1].open("a") as file:
        file.write("more")
    os.utime(files[1], ns=(0, documents.files[1].modified))
    found.add(path(Documents(tuple(map(LocalFile, files)))))
    assert len(found) == 8
    assert {file.name for file in (tmp_path / "tokens").iterdir()} == {path.name for path in found}


def test_a_damaged_file_is_made_anew(tmp_path: Path, documents: Documents, tokenizer: Counting):
    said: list[str] = []
    path = open_tokens(documents, tokenizer, tmp_path / "tokens").path
    whole = path.read_bytes()
    for content in (whole[:-8], b"", whole.replace(b'"version": 1', b'"version": 0')):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is damaged|has format 0"):
            open_tokens(documents, tokenizer, tmp_path / "tokens", make=False)
        assert len(open_tokens(documents, tokenizer, tmp_path / "tokens", say=said.append)) == len(TEXTS)
        assert path.read_bytes() == whole
        assert said[-2].endswith("It is made anew.")
    assert len(list(path.parent.iterdir())) == 1


def test_processes_that_make_it_at_the_same_time(tmp_path: Path, documents: Documents, tokenizer: Counting):
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(open_tokens, documents, tokenizer, tmp_path / "tokens") for _ in range(3)]
        files = [future.result() for future in futures]
    expected = [tokenizer.encode(text) for text in TEXTS]
    for file in files:
        assert [tokens.tolist() for tokens in file.tokens(np.arange(len(file)))] == expected
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_where_nothing_can_be_written(
    tmp_path: Path, documents: Documents, tokenizer: Counting, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be .*token_cache"):
        open_tokens(documents, tokenizer, tmp_path / "file" / "tokens")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(token_file.os, "fsync", full)
    with pytest.raises(UserError, match=r"tokens cannot be written .*No space left.*token_cache=.*streaming=true"):
        open_tokens(documents, tokenizer, tmp_path / "tokens")
    assert not list((tmp_path / "tokens").iterdir())


def test_text_that_cannot_be_read_is_named(tmp_path: Path, documents: Documents, tokenizer: Counting):
    (tmp_path / "text" / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"b.txt: byte 3 is not UTF-8"):
        open_tokens(documents, tokenizer, tmp_path / "tokens")
    assert not list((tmp_path / "tokens").iterdir())


@pytest.mark.parametrize("name", ["caf\xe9 & more.txt", "x" * 240 + ".txt", "..txt", "-.txt"])
def test_any_name_of_a_text_will_do(tmp_path: Path, tokenizer: Counting, name: str):
    file = LocalFile(write(tmp_path / name, TEXTS[:3]))
    path = open_tokens(Documents((file,)), tokenizer, tmp_path / "tokens").path
    assert path.parent == tmp_path / "tokens"
    assert path.name.isascii()
    assert len(path.name) < 80


def test_time_of_the_last_change(tmp_path: Path):
    path = write(tmp_path / "a.txt", TEXTS[:1])
    os.utime(path, ns=(5, 1_234_567_890_123_000_000))
    assert LocalFile(path).modified == 1_234_567_890_123_000_000
