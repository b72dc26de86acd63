"""The tokenizer against the library's own, a naive BPE, and a naive undoing of merges; real stories where they are."""

import json
import pickle
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.implementations import ByteLevelBPETokenizer

from dataset.text.byte_pairs import END_OF_TEXT, byte_alphabet
from dataset.text.documents import Documents
from dataset.text.sources import find_files
from dataset.text.tokenizer import FILE, Cap, Coverage, TextTokenizer, make_tokenizer
from tests.paths import SHARED
from tests.text_runs import stories, write_text
from utils.errors import UserError

GPT2 = SHARED / "data" / "gpt2-bpe"
SAMPLE = SHARED / "data" / "tinystories-sample"
needs_sample = pytest.mark.skipif(not (GPT2.exists() and SAMPLE.exists()), reason="needs GPT-2's BPE and TinyStories")

ODD = [
    "",
    " ",
    "\n\n \t\r\n",
    "don't WON'T I'll",
    "na\xefve caf\xe9 \u2013 \u201cquoted\u201d \u2026 100 %",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f600",
    "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587",
    "\ud55c\uad6d\uc5b4 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \u0e44\u0e17\u0e22",
    "\x00\x01\x7f\x85\xa0\u200b\u2028\ufeff\ufffd\U0010ffff",
    f"a {END_OF_TEXT} in the text <unk>",
    "e\u0301 \xe9 \ufb01 \xbd \xb2",
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("bpe") / "files")


@pytest.fixture(scope="module")
def sample() -> list[str]:
    return list(Documents(tuple(find_files([SAMPLE], streaming=False, cache_folder=None))))


def of(folder: Path, max_vocab: int | None = None, cap: Cap = "frequency", sample: Any = None) -> TextTokenizer:
    return make_tokenizer("gpt2", folder / "vocab.json", folder / "merges.txt", max_vocab, cap, sample)


def merges_of(folder: Path) -> list[tuple[str, ...]]:
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(" ")) for line in lines[1:] if line]


def library(folder: Path) -> ByteLevelBPETokenizer:
    return ByteLevelBPETokenizer.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))


def naive_bpe(folder: Path, text: str) -> list[int]:
    """ASCII text only: words with the space before them, then the first merge of the list that applies, everywhere."""
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    ranks = {merge: rank for rank, merge in enumerate(merges_of(folder))}
    letters, ids = byte_alphabet(), []
    for word in re.findall(
        r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", text, re.ASCII
    ):
        parts = [letters[byte] for byte in word.encode()]
        while known := [ranks[pair] for pair in pairwise(parts) if pair in ranks]:
            pair = list(ranks)[min(known)]
            merged: list[str] = []
            for part in parts:
                if merged and (merged[-1], part) == pair:
                    merged[-1] += part
                else:
                    merged.append(part)
            parts = merged
        ids += [vocabulary[part] for part in parts]
    return ids


def undo(token: str, kept: set[str], made_from: dict[str, tuple[str, ...]]) -> list[str]:
    """`token`, or what it was merged from, recursively, in kept tokens."""
    if token in kept:
        return [token]
    return [piece for part in made_from[token] for piece in undo(part, kept, made_from)]


def naive_frequency_cap(folder: Path, texts: list[str], size: int) -> set[str]:
    """The tokens to keep, by strings."""
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    counts = Counter(token for encoding in library(folder).encode_batch(texts) for token in encoding.tokens)
    kept = [*byte_alphabet(), END_OF_TEXT]
    others = [token for token in sorted(vocabulary, key=vocabulary.__getitem__) if token not in kept]
    return {*kept, *sorted(others, key=lambda token: -counts[token])[: size - len(kept)]}


def test_a_small_vocabulary_splits_as_a_naive_bpe(small: Path):
    tokenizer = of(small)
    for text in [*stories(20, seed=5), "unseen words, 12 of them;  don't   merge\n\n", "catcatcat  c a t"]:
        assert tokenizer.encode(text) == naive_bpe(small, text)


@pytest.mark.parametrize("size", [257, 258, 270, 300, 319])
def test_the_frequency_cap_undoes_merges_of_what_it_drops(small: Path, size: int):
    texts = stories(30, seed=1)
    tokenizer = of(small, size, sample=texts)
    vocabulary = json.loads((small / "vocab.json").read_text(encoding="utf-8"))
    kept = naive_frequency_cap(small, texts, size)
    new_ids = {token: id for id, token in enumerate(sorted(kept, key=vocabulary.__getitem__))}
    made_from = {left + right: (left, right) for left, right in merges_of(small)}
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.unk_id) == (size, new_ids[END_OF_TEXT], None)
    whole = library(small)
    for text in [*stories(20, seed=2), "other words"]:
        tokens = whole.encode(text).tokens
        assert tokenizer.encode(text) == [new_ids[piece] for token in tokens for piece in undo(token, kept, made_from)]


@pytest.mark.parametrize("size", [None, 257, 300])
def test_any_text_comes_back_exactly(small: Path, size: int | None):
    tokenizer = of(small, size, sample=stories(30, seed=1))
    for text, ids in zip(ODD, tokenizer.encode_batch(ODD), strict=True):
        assert tokenizer.decode(ids) == text
        assert ids.dtype == np.int32
        assert not ((ids < 0) | (ids >= tokenizer.vocab_size) | (ids == tokenizer.eos_id)).any()
        assert ids.tolist() == tokenizer.encode(text)
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.decode([tokenizer.eos_id]) == END_OF_TEXT
    half_a_character = tokenizer.encode("\xe9")[:1]
    assert tokenizer.decode(half_a_character) == "\ufffd"


def test_what_is_saved_is_loaded(small: Path, tmp_path: Path):
    cases: list[tuple[int | None, Cap]] = [(None, "frequency"), (300, "frequency"), (300, "lowest_ids")]
    texts = [*ODD, *stories(5)]
    digests = set()
    for number, (size, cap) in enumerate(cases):
        tokenizer = of(small, size, cap, stories(30, seed=1))
        for copy in (1, 2):
            tokenizer.save(tmp_path / f"{number}" / f"{copy}")
            loaded = TextTokenizer.load(tmp_path / f"{number}" / f"{copy}")
            for other in (loaded, pickle.loads(pickle.dumps(tokenizer))):
                for name in ("name", "cap", "kept", "vocab_size", "eos_id", "unk_id", "digest", "pairs"):
                    assert getattr(other, name) == getattr(tokenizer, name)
                for mine, theirs in zip(tokenizer.encode_batch(texts), other.encode_batch(texts), strict=True):
                    assert mine.tolist() == theirs.tolist()
                    assert tokenizer.decode(mine) == other.decode(mine)
            tokenizer = loaded
        assert (tmp_path / f"{number}/1" / FILE).read_bytes() == (tmp_path / f"{number}/2" / FILE).read_bytes()
        assert [path.name for path in (tmp_path / f"{number}/1").iterdir()] == [FILE]
        digests.add(tokenizer.digest)
    assert len(digests) == 3


@needs_sample
def test_known_ids():
    tokenizer = of(GPT2)
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.unk_id) == (50257, 50256, None)
    assert tokenizer.encode("Once upon a time") == [7454, 2402, 257, 640]
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode("\n\n") == [628]


@needs_sample
def test_the_full_vocabulary_is_the_librarys(sample: list[str]):
    texts = [*ODD, *sample[::4]]
    theirs = [encoding.ids for encoding in library(GPT2).encode_batch(texts)]
    assert [ids.tolist() for ids in of(GPT2).encode_batch(texts)] == theirs


@pytest.mark.thorough
@needs_sample
def test_every_story_comes_back_exactly_from_10k_ids(sample: list[str]):
    tokenizer = make_tokenizer("gpt-neo-10k", GPT2 / "vocab.json", GPT2 / "merges.txt", sample=sample)
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.unk_id) == (10_000, 9_999, None)
    assert len(sample) == 1727 + 2316
    encoded = tokenizer.encode_batch(sample)
    assert [tokenizer.decode(ids) for ids in encoded] == sample
    tokens = sum(map(len, encoded))
    assert tokenizer.coverage(sample) == Coverage(tokens=tokens, undone=0, lost=0, pieces=tokens)


@pytest.mark.thorough
@needs_sample
def test_a_cap_from_few_stories_loses_nothing_in_the_others(sample: list[str]):
    tokenizer = of(GPT2, 3_000, sample=islice(sample, 200))
    encoded = tokenizer.encode_batch(sample)
    assert [tokenizer.decode(ids) for ids in encoded] == sample
    coverage = tokenizer.coverage(sample)
    assert (coverage.lost, coverage.pieces) == (0, sum(map(len, encoded)))
    assert 0.02 < coverage.undone / coverage.tokens < 0.08

    kept = naive_frequency_cap(GPT2, sample[:200], 3_000)
    made_from = {left + right: (left, right) for left, right in merges_of(GPT2)}
    letters = {letter: byte for byte, letter in enumerate(byte_alphabet())}
    whole = library(GPT2)
    for text, ids in zip(sample[1000:1100], encoded[1000:1100], strict=True):
        pieces = [p for token in whole.encode(text).tokens for p in undo(token, kept, made_from)]
        assert [tokenizer._bytes[id] for id in ids] == [bytes(map(letters.__getitem__, piece)) for piece in pieces]


@pytest.mark.thorough
@needs_sample
def test_the_lowest_ids_lose_a_tenth_of_tinystories(sample: list[str]):
    size = 10_000
    tokenizer = of(GPT2, size, cap="lowest_ids")
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.unk_id) == (size, size - 2, size - 1)
    stories_of_first_file = [text for text in sample if text][1727:]
    whole, lost, total = library(GPT2), 0, 0
    for text, ids in zip(stories_of_first_file, tokenizer.encode_batch(stories_of_first_file), strict=True):
        full = whole.encode(text).ids
        assert ids.tolist() == [id if id < size - 2 else size - 1 for id in full]
        lost += sum(id >= size - 2 for id in full)
        total += len(full)
    coverage = tokenizer.coverage(stories_of_first_file)
    assert coverage == Coverage(tokens=total, undone=0, lost=lost, pieces=total)
    assert lost / total == pytest.approx(0.097, abs=0.002)  # what is known of TinyStories as a whole
    assert tokenizer.decode([size - 1, size - 2]) == f"<unk>{END_OF_TEXT}"


# -- the hub


def test_the_hubs_files_are_taken_by_name(small: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def download(repo: str, file: str, repo_type: str) -> str:
        asked.append((repo, file, repo_type))
        return str(small / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    for name, repo in {
        "gpt2": "openai-community/gpt2",
        "gpt-neo": "EleutherAI/gpt-neo-125M",
        "EleutherAI/gpt-neo-125M": "EleutherAI/gpt-neo-125M",
    }.items():
        asked.clear()
        assert make_tokenizer(name).encode("The end.") == of(small).encode("The end.")
        assert asked == [(repo, "vocab.json", "model"), (repo, "merges.txt", "model")]


def test_without_a_network_local_files_are_suggested(monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: Any, **kwargs: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(UserError, match=r"gpt-neo-125M.*no connection.*vocab_file=.*merges_file="):
        make_tokenizer("gpt-neo-10k")


# -- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "gpt-neo-10"}, "gpt-neo-10k, gpt-neo, gpt2.*Did you mean 'gpt-neo-10k'"),
        ({"cap": "lowest"}, "frequency, lowest_ids"),
        ({"merges_file": None}, "give both"),
        ({"max_vocab": 256}, "257..320"),
        ({"max_vocab": 0}, "257..320"),
        ({"max_vocab": 2, "cap": "lowest_ids"}, "3..320"),
        ({"max_vocab": 321}, "257..320"),
        ({"max_vocab": 300}, "needs a sample"),
        ({"max_vocab": 300, "sample": []}, "is empty"),
        ({"max_vocab": 300, "sample": [""]}, "is empty"),
        ({"name": "gpt-neo-10k"}, "max_vocab 10000"),
        ({"vocab_file": "none.json"}, "none.json cannot be read"),
    ],
)
def test_bad_arguments(small: Path, changes: dict[str, Any], message: str):
    arguments = {"name": "gpt2", "vocab_file": small / "vocab.json", "merges_file": small / "merges.txt"}
    with pytest.raises(UserError, match=message):
        make_tokenizer(**{**arguments, **changes})


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("vocab.json", lambda text: text[:-1], "is no JSON"),
        ("vocab.json", lambda text: "[" * 100_000, "is no JSON"),
        ("vocab.json", lambda text: "[1]", "ids 0, 1, 2"),
        ("vocab.json", lambda text: '{"a": [0]}', "ids 0, 1, 2"),
        ("vocab.json", replaced(":7,", ":8,"), "ids 0, 1, 2"),
        ("vocab.json", replaced(END_OF_TEXT, "<end>"), "lacks 1 of"),
        ("vocab.json", replaced('"x":', '"xqq":'), "lacks 1 of"),
        ("merges.txt", lambda text: text + "q z\n", "'q' 'z': its result"),
        ("merges.txt", lambda text: "#version\nca t\n" + text, "merge 1, 'ca' 't': 'ca' comes from no merge"),
        ("merges.txt", lambda text: text + "q\n", "is no merge"),
        ("merges.txt", lambda text: text + "q z x\n", "is no merge"),
    ],
)
def test_bad_files(small: Path, tmp_path: Path, file: str, change: Callable[[str], str], message: str):
    for name in ("vocab.json", "merges.txt"):
        text = (small / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(change(text) if name == file else text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        of(tmp_path)


def test_bad_texts_and_ids(small: Path):
    tokenizer = of(small)
    with pytest.raises(UserError, match="surrogate"):
        tokenizer.encode_batch(["fine", "half \ud83d"])
    for id in (-1, 320):
        with pytest.raises(UserError, match=r"0\.\.319"):
            tokenizer.decode([5, id])


def test_a_bad_saved_file(small: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is missing"):
        TextTokenizer.load(tmp_path)
    of(small).save(tmp_path)
    whole = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    del whole["crc32"]  # as in files of earlier versions, so that the content itself is looked at
    bad: list[tuple[Any, str]] = [
        ({**whole, "version": 99}, "format 99"),
        ({**whole, "kept": [0, 10_000]}, "damaged"),
        ({**whole, "tokens": whole["tokens"][:100]}, "lacks"),
        ({**whole, "tokens": [*whole["tokens"], 1]}, "damaged"),
        ({**whole, "tokens": [*whole["tokens"], ["a"]]}, "damaged"),
        ({**whole, "kept": ["a", 1]}, "damaged"),
        ({**whole, "kept": [*whole["kept"], 0.5]}, "damaged"),
        ({**whole, "merges": 1}, "damaged"),
        ({**whole, "cap": 1}, "damaged"),
        ({**whole, "name": [1]}, "damaged"),
        ({"version": 1}, "damaged"),
        ([1, 2], "damaged"),
    ]
    for content, message in bad:
        (tmp_path / FILE).write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            TextTokenizer.load(tmp_path)
    for content in ("{", "[" * 100_000):
        (tmp_path / FILE).write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="damaged"):
            TextTokenizer.load(tmp_path)
