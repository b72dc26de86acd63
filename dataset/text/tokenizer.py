"""The byte-level BPE of GPT-2 and GPT-Neo, complete or capped to a small vocabulary that can still encode any text.

TinyStories needs a fifth of the 50,257 tokens, and a small model would spend most of its parameters on the others.
`cap="frequency"` keeps the `max_vocab` most frequent tokens of a sample, always including the 256 bytes and the end of
text. A token that is not kept is replaced by the two tokens that BPE merged it from, recursively, down to bytes if
necessary. So nothing is lost: `decode(encode(text)) == text`. `cap="lowest_ids"` is the cap of earlier systems, for
comparison: it keeps the tokens with the lowest ids, and all others become `<unk>`.

Ids are 0..vocab_size - 1 in the order of the full vocabulary, in which GPT-2 has the end of text last; `<unk>` follows.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dataset.hub import hub_file
from dataset.text.byte_pairs import BytePairs, byte_alphabet, read_byte_pairs
from utils.atomic_file import write_text
from utils.errors import UserError, did_you_mean
from utils.files import OTHER_FOLDER, read_text, writing_to
from utils.text_checksum import check_values, with_checksum

Cap = Literal["frequency", "lowest_ids"]
FILE = "text_tokenizer.json"
VERSION = 1
UNKNOWN = "<unk>"
# name -> (model on the hub, default of max_vocab)
NAMES: dict[str, tuple[str, int | None]] = {
    "gpt-neo-10k": ("EleutherAI/gpt-neo-125M", 10_000),
    "gpt-neo": ("EleutherAI/gpt-neo-125M", None),
    "gpt2": ("openai-community/gpt2", None),
}
_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class Coverage:
    """How a capped vocabulary encodes texts; counts are tokens of the full vocabulary unless noted."""

    tokens: int  # all tokens of the texts
    undone: int  # replaced by several kept tokens
    lost: int  # replaced by <unk>
    pieces: int  # tokens of the capped vocabulary in the encoded texts


class TextTokenizer:
    """Encodes text to ids and decodes ids to text.

    Attributes:
        name: name of the tokenizer that it was made from.
        cap: how the vocabulary was capped, or None.
        vocab_size: number of ids.
        eos_id: id of the end of text.
        unk_id: id of `<unk>`, with `cap="lowest_ids"`; otherwise None.
    """

    def __init__(self, pairs: BytePairs, name: str, cap: Cap | None = None, kept: Sequence[int] | None = None):
        """Use `make_tokenizer` or `load` instead of this constructor.

        Args:
            pairs: the full vocabulary.
            name: name of the tokenizer that it is made from, for the record.
            cap: how `kept` was chosen.
            kept: ids of the full vocabulary to keep, which must include the end of text; None: all.
        """
        self.pairs, self.name = pairs, name
        self.cap: Cap | None = cap
        self.kept = sorted(range(len(pairs.tokens)) if kept is None else kept)
        new_ids = {full: new for new, full in enumerate(self.kept)}
        texts = pairs.token_bytes()
        self._bytes = [texts[full] for full in self.kept]
        self.unk_id: int | None = None
        if cap == "lowest_ids":
            self.unk_id = len(self.kept)
            self._bytes.append(UNKNOWN.encode())
            written = {id: (new_ids.get(id, self.unk_id),) for id in range(len(pairs.tokens))}
        else:
            written = {id: tuple(map(new_ids.__getitem__, ids)) for id, ids in pairs.written_with(self.kept).items()}
        self.vocab_size = len(self._bytes)
        self.eos_id = new_ids[pairs.end_of_text]
        # The replacement of token t of the full vocabulary is _pieces[_starts[t] : _starts[t] + _counts[t]]
        pieces = [written.get(id, ()) for id in range(len(pairs.tokens))]
        self._counts = np.fromiter(map(len, pieces), np.int64, len(pieces))
        self._starts = np.cumsum(self._counts) - self._counts
        self._pieces = np.fromiter(chain.from_iterable(pieces), np.int32, int(self._counts.sum()))
        self._library = pairs.tokenizer()

    def __reduce__(self) -> tuple[Any, ...]:
        return TextTokenizer, (self.pairs, self.name, self.cap, self.kept)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. No special tokens are added, and none are recognised in the text.

        Raises:
            UserError: the text cannot be encoded as UTF-8.
        """
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32 [tokens].

        Raises:
            UserError: a text cannot be encoded as UTF-8.
        """
        full, lengths = self._full_ids(texts)
        counts = self._counts[full]
        ends = np.cumsum(counts)
        sources = np.repeat(self._starts[full] - (ends - counts), counts) + np.arange(counts.sum())
        text_ends = np.concatenate([[0], ends])[np.cumsum(lengths)]
        return np.split(self._pieces[sources], text_ends[:-1])[: len(texts)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. The end of text becomes `<|endoftext|>`, and incomplete characters become U+FFFD.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        parts: list[bytes] = []
        for id in ids:
            if not 0 <= id < self.vocab_size:
                raise UserError(f"token id {id} is outside of the vocabulary, 0..{self.vocab_size - 1}.")
            parts.append(self._bytes[id])
        return b"".join(parts).decode("utf-8", errors="replace")

    def coverage(self, texts: Iterable[str]) -> Coverage:
        """Count how the tokens of `texts` are encoded."""
        tokens = undone = lost = pieces = 0
        unknown = np.full(len(self._counts), False)
        if self.unk_id is not None:
            unknown = self._pieces[self._starts] == self.unk_id
        for chunk in _chunks(texts):
            full, _ = self._full_ids(chunk)
            tokens += len(full)
            undone += int((self._counts[full] > 1).sum())
            lost += int(unknown[full].sum())
            pieces += int(self._counts[full].sum())
        return Coverage(tokens, undone, lost, pieces)

    def save(self, folder: Path) -> None:
        """Write the file `FILE`, which `load` reads, into `folder`."""
        with writing_to(folder, OTHER_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / FILE, _compact(with_checksum(self._content)))

    @classmethod
    def load(cls, folder: Path) -> "TextTokenizer":
        """Load the tokenizer that `save` wrote into `folder`.

        Raises:
            UserError: the file is missing or malformed, or has another version.
        """
        path = folder / FILE
        if not path.is_file():
            raise UserError(f"{path} is missing: give the folder of a text run, which holds its tokenizer.")
        try:
            saved = check_values(json.loads(read_text(path, "Take another copy of it.")), path)
            if saved["version"] != VERSION:
                raise UserError(f"{path} has format {saved['version']}, this program reads {VERSION}.")
            if not isinstance(saved["name"], str) or saved["cap"] not in (None, *get_args(Cap)):
                raise ValueError(f"name {saved['name']!r}, cap {saved['cap']!r}")
            if not all(isinstance(token, str) for token in saved["tokens"]):
                raise ValueError("a token is no text")
            if not all(type(id) is int for id in saved["kept"]):
                raise ValueError("an id is no whole number")
            merges = tuple((left, right) for left, right in (merge.split(" ") for merge in saved["merges"]))
            return cls(BytePairs(tuple(saved["tokens"]), merges), saved["name"], saved["cap"], saved["kept"])
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}). Take another copy of it.") from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that affects the encoding of texts."""
        return hashlib.sha256(_compact(self._content).encode()).hexdigest()

    @property
    def _content(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "name": self.name,
            "cap": self.cap,
            "kept": self.kept,
            "tokens": self.pairs.tokens,
            "merges": [f"{left} {right}" for left, right in self.pairs.merges],
        }

    def _full_ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the full vocabulary, int32 [all tokens], and the number of tokens of each text, int64 [texts]."""
        try:
            encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            raise UserError(
                f"a text cannot be written in UTF-8, for example because of half a surrogate pair ({error})."
            ) from error
        ids = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum())), lengths


def make_tokenizer(
    name: str = "gpt-neo-10k",
    vocab_file: Path | str | None = None,
    merges_file: Path | str | None = None,
    max_vocab: int | None = None,
    cap: Cap = "frequency",
    sample: Iterable[str] | None = None,
) -> TextTokenizer:
    """A tokenizer from local files or from a model on the Hugging Face hub, capped to `max_vocab` ids.

    Args:
        name: gpt-neo-10k, gpt-neo, gpt2, or the name of a model on the hub, owner/model.
        vocab_file: a local vocab.json to use instead of the hub's.
        merges_file: the merges.txt that belongs to it.
        max_vocab: number of ids; None: 10,000 for gpt-neo-10k, otherwise all.
        cap: which ids to keep if max_vocab is smaller than the full vocabulary.
        sample: texts of the corpus in which to count tokens; read only for the frequency cap.

    Raises:
        UserError: an argument or a file is invalid, or the download fails.
    """
    if cap not in get_args(Cap):
        allowed = get_args(Cap)
        raise UserError(f"tokenizer cap {cap!r}: allowed are {', '.join(allowed)}.{did_you_mean(cap, allowed)}")
    if name not in NAMES and name.count("/") != 1:
        raise UserError(
            f"tokenizer {name!r}: allowed are {', '.join(NAMES)}, or the name of a model on the Hugging Face hub, "
            f"owner/model.{did_you_mean(name, NAMES)}"
        )
    if (vocab_file is None) != (merges_file is None):
        raise UserError(f"vocab_file={vocab_file}, merges_file={merges_file}: give both, or neither to take the hub's.")
    repo, named_vocab = NAMES.get(name, (name, None))
    if vocab_file is None or merges_file is None:
        local = "or give local files: vocab_file=.../vocab.json merges_file=.../merges.txt"
        vocab_file, merges_file = (hub_file(repo, file, local, "model") for file in ("vocab.json", "merges.txt"))
    pairs = read_byte_pairs(Path(vocab_file), Path(merges_file))

    whole = len(pairs.tokens)
    size = next(size for size in (max_vocab, named_vocab, whole) if size is not None)
    least = 257 if cap == "frequency" else 3
    if not least <= size <= whole:
        raise UserError(f"max_vocab {size}: allowed are {least}..{whole} with cap={cap}.")
    if size == whole:
        return TextTokenizer(pairs, name)
    if cap == "lowest_ids":
        # <unk> and the end of text are included in the size
        lowest = [id for id in range(size - 1) if id != pairs.end_of_text][: size - 2]
        return TextTokenizer(pairs, name, cap, [*lowest, pairs.end_of_text])
    if sample is None:
        raise UserError(f"max_vocab {size} of {whole}: the frequency cap needs a sample of texts to count tokens in.")
    return TextTokenizer(pairs, name, cap, _most_frequent(pairs, size, sample))


def _most_frequent(pairs: BytePairs, size: int, sample: Iterable[str]) -> list[int]:
    """The bytes, the end of text, and the most frequent ids in `sample`; ties go to the lower id."""
    tokenizer = TextTokenizer(pairs, "")
    counts = np.zeros(len(pairs.tokens), np.int64)
    for texts in _chunks(sample):
        full, _ = tokenizer._full_ids(texts)
        counts += np.bincount(full, minlength=len(counts))
    if not counts.any():
        raise UserError("the sample for the frequency cap of the tokenizer is empty: give it texts of the corpus.")
    must = {pairs.end_of_text, *map(pairs.ids.__getitem__, byte_alphabet())}
    others = sorted(pairs.written_with(()).keys() - must, key=lambda id: (-counts[id], id))
    if size > len(must) + len(others):
        raise UserError(f"max_vocab {size}: BPE can make only {len(must) + len(others)} of the {len(counts)} tokens.")
    return [*must, *others[: size - len(must)]]


def _compact(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of up to `_TEXTS_AT_ONCE` texts."""
    remaining = iter(texts)
    while chunk := list(islice(remaining, _TEXTS_AT_ONCE)):
        yield chunk
