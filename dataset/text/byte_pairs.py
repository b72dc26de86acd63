"""Byte-level BPE vocabularies in GPT-2's format: `vocab.json` (token -> id) and `merges.txt` (one merge per line).

Tokens are written with one printable character per byte. BPE starts from single bytes and merges neighbours in the
order of `merges.txt`, so every token except the 256 bytes and the end of text results from merging two other tokens.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from utils.errors import UserError
from utils.files import read_text

END_OF_TEXT = "<|endoftext|>"
_OWN_FILE = "Give the path of the tokenizer's own file."


def byte_alphabet() -> list[str]:
    """The character for each byte: the byte itself if it is printable, otherwise the next code point from 256 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


@dataclass(frozen=True)
class BytePairs:
    """A checked vocabulary.

    Raises:
        UserError: tokens and merges do not form a byte-level BPE with an end of text; the message says why.
    """

    tokens: tuple[str, ...]  # by id
    merges: tuple[tuple[str, str], ...]  # in order

    def __post_init__(self):
        if len(self.ids) != len(self.tokens):
            raise UserError("the vocabulary has a token twice.")
        made = set(byte_alphabet())
        missing = [token for token in (*sorted(made), END_OF_TEXT) if token not in self.ids]
        if missing:
            raise UserError(
                f"the vocabulary lacks {len(missing)} of the 256 byte tokens and {END_OF_TEXT}, for example "
                f"{missing[0]!r}: it is no byte-level BPE as GPT-2's."
            )
        for number, (left, right) in enumerate(self.merges, start=1):
            unmade = [part for part in (left, right) if part not in made]
            if unmade or left + right not in self.ids:
                what = f"{unmade[0]!r} comes from no merge before it" if unmade else "its result is in no vocabulary"
                raise UserError(f"merge {number}, {left!r} {right!r}: {what}. Take the two files of one model.")
            made.add(left + right)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {token: id for id, token in enumerate(self.tokens)}

    @property
    def end_of_text(self) -> int:
        """The id of the end of text."""
        return self.ids[END_OF_TEXT]

    def token_bytes(self) -> list[bytes]:
        """The bytes of each token, by id."""
        byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
        made = {*byte_of, *(left + right for left, right in self.merges)}
        return [bytes(map(byte_of.__getitem__, token)) if token in made else token.encode() for token in self.tokens]

    def written_with(self, kept: Collection[int]) -> dict[int, tuple[int, ...]]:
        """id -> ids of `kept` that spell it, for each token that BPE can produce, and for the end of text.

        Args:
            kept: ids that may be used, in addition to the bytes and the end of text.
        """
        allowed = set(kept)
        written: dict[int, tuple[int, ...]] = {
            id: (id,) for id in (*map(self.ids.__getitem__, byte_alphabet()), self.end_of_text)
        }
        for left, right in self.merges:
            id = self.ids[left + right]
            if id not in written:
                written[id] = (id,) if id in allowed else written[self.ids[left]] + written[self.ids[right]]
        return written

    def tokenizer(self) -> Tokenizer:
        """A tokenizer of the tokenizers library. It does not recognise special tokens in the text of a document."""
        # large enough to cache most words of a corpus; the library's default of 10,000 is too small for English
        tokenizer = Tokenizer(BPE(vocab=self.ids, merges=list(self.merges), cache_capacity=100_000))
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
        return tokenizer


def read_byte_pairs(vocab_file: Path, merges_file: Path) -> BytePairs:
    """Read `vocab.json` and `merges.txt`.

    Raises:
        UserError: a file is missing or malformed.
    """
    try:
        vocabulary = json.loads(read_text(vocab_file, _OWN_FILE))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{vocab_file} is no JSON file: {error}. Take the vocab.json of a GPT-2 model.") from None
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    if not ids or not all(isinstance(id, int) for id in ids) or set(ids) != set(range(len(ids))):
        raise UserError(f"{vocab_file}: expected token -> id with the ids 0, 1, 2, ... each once, as in GPT-2's.")
    lines = read_text(merges_file, _OWN_FILE).split("\n")
    first = 1 if lines[0].startswith("#version") else 0  # a first line "# #" would be a merge, not a comment
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines[first:], start=first + 1):
        if line:
            left, _, right = line.removesuffix("\r").partition(" ")
            if not left or not right or " " in right:
                raise UserError(f"{merges_file} line {number}: {line!r} is no merge: two tokens with a space between.")
            merges.append((left, right))
    try:
        return BytePairs(tuple(sorted(vocabulary, key=vocabulary.__getitem__)), tuple(merges))
    except UserError as error:
        raise UserError(f"{vocab_file} and {merges_file}: {error}") from None
