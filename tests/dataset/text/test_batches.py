"""Batches of text against documents cut by hand: nothing lost, labels right, the same for any ranks and on a resume."""

import hashlib
import json
import pickle
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.text import batches as text_batches
from dataset.text.batches import Batch, Position, TextBatches, eval_batches
from dataset.text.documents import MARK, Documents, open_documents
from dataset.text.sources import LocalFile
from dataset.text.token_cache import open_tokens
from dataset.text.tokenizer import TextTokenizer, make_tokenizer
from dataset.text.windows import Numbers, Shuffled
from tests.dataset.text.test_documents import CountedFile, write
from tests.dataset.text.test_tokenizer import GPT2, SAMPLE, needs_sample
from tests.text_runs import stories, write_text
from utils.constants import IGNORE_LABEL_ID, NO_DOCUMENT
from utils.errors import UserError
from utils.random_streams import TextStream

SEQ_LEN = 48
# short and long documents, among them some that just fill a row, and two that are equal
TEXTS = [
    *stories(70),
    "a",
    "b" + " b" * 22,
    "b" + " b" * 23,
    "word" + " word" * 60,
    *["the same one"] * 2,
    "x" * 47,
    "y" * 48,
    "z" * 200,
]

Rows = list[tuple[Batch, Position]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = write_text(tmp_path_factory.mktemp("bpe") / "files")
    return make_tokenizer("gpt2", folder / "vocab.json", folder / "merges.txt", 300, sample=stories(30))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write(folder / "a.txt", TEXTS[:50])
    write(folder / "b.txt", TEXTS[50:])
    return folder


@pytest.fixture
def many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many pieces may wait for the next window that some do in windows of a few documents."""
    monkeypatch.setattr(text_batches, "_WAITING", 3)


def documents(folder: Path, streaming: bool) -> Documents:
    return Documents((LocalFile(folder / "a.txt"), LocalFile(folder / "b.txt")), streaming=streaming)


def batches_of(documents: Documents, tokenizer: TextTokenizer, cache: Path, **options: Any) -> TextBatches:
    """Batches; without streaming, their tokens come from a file in `cache`."""
    tokens = None if documents.streaming else open_tokens(documents, tokenizer, cache)
    return TextBatches(documents, tokenizer, tokens=tokens, **options)


def small(folder: Path, tokenizer: TextTokenizer, streaming: bool, **changes: Any) -> TextBatches:
    options: dict[str, Any] = {"seq_len": SEQ_LEN, "global_batch_size": 1, "seed": 7, "window": 16}
    return batches_of(documents(folder, streaming), tokenizer, folder / "tokens", **{**options, **changes})


def cut_by_hand(tokenizer: TextTokenizer, texts: Sequence[str], seq_len: int) -> Counter[tuple[tuple[int, ...], ...]]:
    """How often each piece, (inputs, labels), must be there."""
    pieces: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for text in texts:
        tokens = [tokenizer.eos_id, *tokenizer.encode(text), tokenizer.eos_id]
        inputs, labels = tokens[:-1], tokens[1:]
        for start in range(0, len(inputs), seq_len):
            pieces[tuple(inputs[start : start + seq_len]), tuple(labels[start : start + seq_len])] += 1
    return pieces


def pieces_of(batch: Batch, eos_id: int) -> list[tuple[tuple[int, ...], ...]]:
    """The pieces in the rows of a batch; checks that they stand one behind the other and padding behind them."""
    found = []
    for inputs, labels, numbers in zip(batch["inputs"], batch["labels"], batch["documents"], strict=True):
        end = 0
        while end < len(numbers) and numbers[end] != NO_DOCUMENT:
            start, end = end, end + int((numbers == numbers[end]).sum())
            number = 0 if start == 0 else numbers[start - 1] + 1
            assert (numbers[start:end] == number).all()
            found.append((tuple(inputs[start:end].tolist()), tuple(labels[start:end].tolist())))
        assert (inputs[end:] == eos_id).all()
        assert (labels[end:] == IGNORE_LABEL_ID).all()
        assert (numbers[end:] == NO_DOCUMENT).all()
    return found


def epochs_of(batches: TextBatches, count: int) -> list[list[Batch]]:
    """The rows of the first epochs, one by one."""
    found: list[list[Batch]] = [[] for _ in range(count)]
    for batch, position in batches:
        if position["epoch"] >= count:
            return found
        found[position["epoch"]].append(batch)
    raise AssertionError("the batches ended")


def same(one: tuple[Batch, Position], other: tuple[Batch, Position]) -> bool:
    return one[1] == other[1] and all(
        np.array_equal(one[0][key], other[0][key]) and one[0][key].dtype == other[0][key].dtype == np.int32
        for key in one[0].keys() | other[0].keys()
    )


def real_share(batches: Sequence[Batch]) -> float:
    return float(np.mean([(batch["labels"] != IGNORE_LABEL_ID).mean() for batch in batches]))


# -- what is in the rows


@pytest.mark.usefixtures("many_wait")
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("window", [1, 16, 79, 2048])
@pytest.mark.parametrize("seq_len", [SEQ_LEN, 7, 300])
def test_an_epoch_has_every_document_once(
    folder: Path, tokenizer: TextTokenizer, streaming: bool, window: int, seq_len: int
):
    expected = cut_by_hand(tokenizer, TEXTS, seq_len)
    for rows in epochs_of(small(folder, tokenizer, streaming, window=window, seq_len=seq_len), 3):
        assert Counter(piece for row in rows for piece in pieces_of(row, tokenizer.eos_id)) == expected
        assert all(row[key].shape == (1, seq_len) and row[key].dtype == np.int32 for row in rows for key in row)


@pytest.mark.parametrize("streaming", [False, True])
def test_epochs_and_seeds_have_orders_of_their_own(folder: Path, tokenizer: TextTokenizer, streaming: bool):
    orders = set()
    for seed in (1, 2):
        for rows in epochs_of(small(folder, tokenizer, streaming, seed=seed), 3):
            orders.add(tuple(row["inputs"].tobytes() for row in rows))
    assert len(orders) == 6
    partners = {frozenset(order) for order in orders}
    assert len(partners) == 6  # not the same rows in another order


@pytest.mark.usefixtures("many_wait")
def test_streaming_keeps_to_its_windows(folder: Path, tokenizer: TextTokenizer):
    window = 16
    cut = [set(cut_by_hand(tokenizer, [text], SEQ_LEN)) for text in TEXTS]
    batches = small(folder, tokenizer, streaming=True, window=window)
    for batch, position in batches:
        if position["epoch"]:
            break
        seen_so_far = set[Any]().union(*cut[: (position["window"] + 1) * window])
        assert set(pieces_of(batch, tokenizer.eos_id)) <= seen_so_far


@pytest.mark.thorough
@needs_sample
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_tinystories_are_nearly_full(streaming: bool, tmp_path: Path):
    train, held_out = open_documents(SAMPLE, streaming=streaming)
    tokenizer = make_tokenizer("gpt-neo-10k", GPT2 / "vocab.json", GPT2 / "merges.txt", sample=islice(train, 1000))
    epochs = epochs_of(batches_of(train, tokenizer, tmp_path, seq_len=512, global_batch_size=1, seed=0), 2)
    for rows in epochs:
        assert real_share(rows) > 0.98
    texts = list(train)
    expected = cut_by_hand(tokenizer, texts, 512)
    assert Counter(piece for row in epochs[1] for piece in pieces_of(row, tokenizer.eos_id)) == expected
    batches = eval_batches(held_out, tokenizer, seq_len=512, global_batch_size=4)
    found = Counter(piece for batch in batches for piece in pieces_of(batch, tokenizer.eos_id))
    assert found == cut_by_hand(tokenizer, list(held_out), 512)
    assert not found.keys() & expected.keys()
    assert real_share(batches[:-1]) > 0.95


# -- the order of the rows


@pytest.mark.usefixtures("many_wait")
@pytest.mark.parametrize("streaming", [False, True])
def test_ranks_and_batch_size_do_not_change_the_rows(folder: Path, tokenizer: TextTokenizer, streaming: bool):
    singles = list(islice(small(folder, tokenizer, streaming), 240))
    for size, world in ((4, 1), (4, 2), (12, 3), (80, 4)):
        ranks = [
            small(folder, tokenizer, streaming, global_batch_size=size, rank=rank, world_size=world)
            for rank in range(world)
        ]
        for number in range(240 // size):
            parts = [next(batches) for batches in ranks]
            rows = singles[number * size : (number + 1) * size]
            assert all(len(part[key]) == size // world for part, _ in parts for key in part)
            for key in ("inputs", "labels", "documents"):
                whole = np.concatenate([part[key] for part, _ in parts])
                assert np.array_equal(whole, np.concatenate([row[key] for row, _ in rows]))
            assert all(position == rows[-1][1] for _, position in parts)


@pytest.mark.usefixtures("many_wait")
@pytest.mark.parametrize(("streaming", "window"), [(False, 16), (False, 3), (True, 16), (True, 3)])
def test_any_position_can_be_resumed(folder: Path, tokenizer: TextTokenizer, streaming: bool, window: int):
    def fresh(**changes: Any) -> TextBatches:
        return small(folder, tokenizer, streaming, window=window, **changes)

    batches = fresh(global_batch_size=3)
    start = batches.state_dict()
    known = list(islice(batches, 90))
    assert known[-1][1]["epoch"] >= 2
    assert any(position["carried"] for _, position in known)
    assert batches.state_dict() == known[-1][1]
    for number, position in enumerate([start, *(position for _, position in known[:-6])]):
        resumed = fresh(global_batch_size=3)
        resumed.load_state_dict(json.loads(json.dumps(position)))
        assert resumed.state_dict() == position
        assert all(map(same, islice(resumed, 6), known[number : number + 6]))
    # by another number of rows at a time, and by an object that has been elsewhere
    resumed.load_state_dict(known[9][1])
    wider = fresh(global_batch_size=6)
    wider.load_state_dict(known[9][1])
    batch, position = next(wider)
    pair = [next(resumed), next(resumed)]
    assert position == pair[1][1] == known[11][1]
    assert np.array_equal(batch["inputs"], np.concatenate([part["inputs"] for part, _ in pair]))


@pytest.mark.usefixtures("many_wait")
def test_positions_are_small_and_count_rows(folder: Path, tokenizer: TextTokenizer):
    for streaming in (False, True):
        for number, (_, position) in enumerate(islice(small(folder, tokenizer, streaming, global_batch_size=5), 60)):
            assert position["rows"] == 5 * (number + 1)
            assert len(json.dumps(position)) < 1000


@pytest.mark.usefixtures("many_wait")
@pytest.mark.parametrize("streaming", [False, True])
def test_batches_can_be_sent_to_another_process(folder: Path, tokenizer: TextTokenizer, streaming: bool):
    batches = small(folder, tokenizer, streaming)
    for taken in (0, 3, 40):
        list(islice(batches, taken))
        sent = pickle.loads(pickle.dumps(batches))
        assert all(map(same, islice(sent, 90), list(islice(batches, 90))))


class Counting(TextTokenizer):
    """Counts the texts that it tokenises."""

    texts = 0

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.texts += len(texts)
        return super().encode_batch(texts)


@pytest.mark.usefixtures("many_wait")
def test_streaming_tokenises_no_more_than_needed(folder: Path, tokenizer: TextTokenizer):
    counting = Counting(tokenizer.pairs, tokenizer.name, tokenizer.cap, tokenizer.kept)
    batches = small(folder, counting, streaming=True)
    next(batches)
    assert counting.texts == 16
    positions = [position for _, position in islice(batches, 250)]
    assert positions[-1]["epoch"] >= 2
    begun = positions[-1]["epoch"] + 1
    assert (begun - 1) * len(TEXTS) < counting.texts <= begun * len(TEXTS)  # carried documents are not done again
    carrying = [position for position in positions if position["carried"]]
    assert len(carrying) > 3
    for position in carrying[-3:]:
        counting.texts = 0
        resumed = small(folder, counting, streaming=True)
        resumed.load_state_dict(position)
        assert counting.texts == len({tuple(carried[:-1]) for carried in position["carried"]})
        next(resumed)
        assert counting.texts <= 16 + 16 + len(position["carried"])  # at the end of a window the next one's too


@pytest.mark.usefixtures("many_wait")
def test_a_rank_reads_the_tokens_of_its_own_rows(
    folder: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
):
    batches = small(folder, tokenizer, streaming=False, global_batch_size=12, rank=1, world_size=3)
    read: list[Numbers] = []
    tokens = batches.windows.tokens

    def recorded(documents: Sequence[Numbers]) -> list[np.ndarray]:
        read.extend(documents)
        return tokens(documents)

    monkeypatch.setattr(batches.windows, "tokens", recorded)
    for number in range(60):
        read.clear()
        if number % 3 == 0:
            batches.skip()
            assert not read
        else:
            batch, _ = next(batches)
            assert len(batch["documents"]) == 4
            assert len(read) == (batch["documents"].max(1) + 1).sum()  # a document for each piece
    assert batches.state_dict()["epoch"] >= 2


class Direct(Shuffled):
    """Tokenises the documents themselves in place of reading their tokens from a file."""

    def __init__(self, documents: Documents, tokenizer: TextTokenizer, cache: Path, seed: int):
        super().__init__(open_tokens(documents, tokenizer, cache), seed)
        self.texts, self.tokenizer = list(documents), tokenizer

    def lengths(self, documents: Sequence[Numbers]) -> list[int]:
        return list(map(len, self.tokens(documents)))

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        return self.tokenizer.encode_batch([self.texts[document] for (document,) in documents])

    def window(
        self, epoch: int, start: Numbers, size: int, carried: Sequence[Numbers]
    ) -> tuple[list[Numbers], list[int], Numbers]:
        order = np.random.default_rng((self.seed, TextStream.ORDER, epoch)).permutation(len(self.texts))
        chosen: list[Numbers] = [(document,) for document in order[start[0] : start[0] + size].tolist()]
        return chosen, self.lengths(chosen), (start[0] + len(chosen),)


@pytest.mark.usefixtures("many_wait")
def test_batches_from_a_file_are_those_tokenised_directly(
    folder: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
):
    from_file, direct = (small(folder, tokenizer, streaming=False, global_batch_size=2) for _ in range(2))
    monkeypatch.setattr(direct, "windows", Direct(documents(folder, False), tokenizer, folder / "tokens", seed=7))
    for number in range(100):
        if number % 5 == 4:
            from_file.skip()
            next(direct)
        else:
            assert same(next(from_file), next(direct))


@needs_sample
@pytest.mark.parametrize(
    ("streaming", "recorded"),
    [
        (False, "2e948102d9f482cec558a9e75ed1a6fb86b9cf77f9d23051cd8362ef0a0c36a2"),
        (True, "f65add827a75c6a8be6f13a30151766f3adad2b5f43aa78ec6f00fdf5e3cd1ed"),
    ],
)
def test_batches_are_those_recorded(tmp_path: Path, streaming: bool, recorded: str):
    """The digests were recorded when every rank still tokenised the whole global batch."""
    tokenizer = make_tokenizer("gpt2", GPT2 / "vocab.json", GPT2 / "merges.txt")
    train, _ = open_documents(SAMPLE / "tinystories_train_first2316.txt", streaming=streaming)
    digest = hashlib.sha256()
    for rank in range(2):
        options = {"seq_len": 256, "global_batch_size": 512, "seed": 3, "rank": rank, "world_size": 2, "window": 600}
        for batch, position in islice(batches_of(train, tokenizer, tmp_path, **options), 5):
            for name in ("inputs", "labels", "documents"):
                digest.update(batch[name].tobytes())
            digest.update(json.dumps(position, sort_keys=True).encode())
    assert digest.hexdigest() == recorded


def test_streaming_reads_only_what_it_needs(tokenizer: TextTokenizer):
    file = CountedFile()
    batches = TextBatches(Documents((file,), streaming=True), tokenizer, seq_len=64, global_batch_size=8, window=64)
    assert file.bytes_read == 0
    _, position = next(batches)
    assert file.bytes_read == 1 << 20
    list(islice(batches, 500))
    assert file.bytes_read == 1 << 20
    resumed = TextBatches(Documents((file,), streaming=True), tokenizer, seq_len=64, global_batch_size=8, window=64)
    position = {**position, "start": [0, 37 * 10**9]}
    resumed.load_state_dict(position)
    next(resumed)
    assert file.bytes_read <= (2 << 20) + 64 * len(position["carried"])


# -- evaluation


def test_evaluation_sees_the_same_rows_every_time(folder: Path, tokenizer: TextTokenizer):
    def batches(size: int, **options: Any) -> list[Batch]:
        return eval_batches(documents(folder, False), tokenizer, seq_len=SEQ_LEN, global_batch_size=size, **options)

    every = batches(8)
    assert Counter(p for b in every for p in pieces_of(b, tokenizer.eos_id)) == cut_by_hand(tokenizer, TEXTS, SEQ_LEN)
    assert all(batch[key].shape == (8, SEQ_LEN) and batch[key].dtype == np.int32 for batch in every for key in batch)
    rows = np.concatenate([batch["labels"] for batch in every])
    padded = (rows == IGNORE_LABEL_ID).all(1)
    assert padded.any()
    assert padded.argmax() == (~padded).sum()  # at the end only
    assert padded.sum() < 8
    for few in (1, 3, len(every), len(every) + 5):
        prefix = batches(8, max_batches=few)
        assert len(prefix) == min(few, len(every))
        assert all(
            np.array_equal(one[key], other[key]) for one, other in zip(prefix, every, strict=False) for key in one
        )
    two = [batches(8, rank=rank, world_size=2) for rank in (0, 1)]
    for key in ("inputs", "labels", "documents"):
        wholes = [np.concatenate([a[key], b[key]]) for a, b in zip(*two, strict=True)]
        assert np.array_equal(np.concatenate(wholes), np.concatenate([batch[key] for batch in every]))
    single = np.concatenate([batch["inputs"] for batch in batches(1)])
    assert np.array_equal(single, np.concatenate([batch["inputs"] for batch in every])[: len(single)])
    lengths = [(batch["documents"].max(1) + 1).tolist() for batch in every[:-1]]
    assert len({count for some in lengths for count in some}) > 1  # long and short documents are mixed


# -- little text, bad input


@pytest.mark.parametrize("streaming", [False, True])
def test_text_for_less_than_a_batch_comes_again_and_again(tmp_path: Path, tokenizer: TextTokenizer, streaming: bool):
    file = LocalFile(write(tmp_path / "a.txt", ["one", "two words", "three words here"]))
    little = Documents((file,), None, streaming)
    batches = batches_of(little, tokenizer, tmp_path / "tokens", seq_len=SEQ_LEN, global_batch_size=8)
    batch, position = next(batches)
    expected = cut_by_hand(tokenizer, ["one", "two words", "three words here"], SEQ_LEN)
    assert Counter(pieces_of(batch, tokenizer.eos_id)) == Counter(dict.fromkeys(expected, 8))
    assert (position["epoch"], position["rows"]) == (7, 8)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("content", ["", f"\n{MARK}\n \n{MARK}"])
def test_no_documents_at_all(tmp_path: Path, tokenizer: TextTokenizer, streaming: bool, content: str):
    (tmp_path / "a.txt").write_text(content)
    nothing = Documents((LocalFile(tmp_path / "a.txt"),), None, streaming)
    with pytest.raises(UserError, match=r"there are no documents \(all documents of a.txt\)"):
        next(batches_of(nothing, tokenizer, tmp_path / "tokens", seq_len=8, global_batch_size=2))
    with pytest.raises(UserError, match="there are no documents"):
        eval_batches(nothing, tokenizer, seq_len=8, global_batch_size=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_len": 0}, "seq_len 0: must be at least 1"),
        ({"global_batch_size": 0}, "global_batch_size 0"),
        ({"window": 0}, "window 0"),
        ({"global_batch_size": 7, "world_size": 2}, "global_batch_size=8"),
    ],
)
def test_bad_arguments(folder: Path, tokenizer: TextTokenizer, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        small(folder, tokenizer, **{"streaming": False, **changes})


def test_bad_arguments_of_evaluation(folder: Path, tokenizer: TextTokenizer):
    for options, message in (({"max_batches": 0}, "max_batches 0"), ({"world_size": 3}, "not divisible by 3")):
        with pytest.raises(UserError, match=message):
            eval_batches(documents(folder, False), tokenizer, seq_len=8, global_batch_size=4, **options)


def test_a_position_of_other_data_is_refused(folder: Path, tmp_path: Path, tokenizer: TextTokenizer):
    position = next(small(folder, tokenizer, streaming=True))[1]
    other = TextTokenizer(tokenizer.pairs, "gpt2")
    longer = write(tmp_path / "a.txt", [*TEXTS[:50], "more"]).parent
    write(tmp_path / "b.txt", TEXTS[50:])
    for batches, changed in (
        (small(folder, tokenizer, streaming=False), "streaming"),
        (small(folder, tokenizer, streaming=True, seed=8), "seed"),
        (small(folder, tokenizer, streaming=True, seq_len=8, window=4), "seq_len, window"),
        (small(folder, other, streaming=True), "tokenizer"),
        (small(longer, tokenizer, streaming=True), "documents"),
    ):
        with pytest.raises(UserError, match=rf"changed are {changed} \(before"):
            batches.load_state_dict(position)
    moved = tmp_path / "moved"
    write(moved / "a.txt", TEXTS[:50])
    write(moved / "b.txt", TEXTS[50:])
    small(moved, tokenizer, streaming=True).load_state_dict(position)
