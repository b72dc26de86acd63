"""Documents as tokens, window by window: in the order of the files, or in a random order of all of them.

A window is some thousand documents that are packed into rows together. Where a window begins, and which document is
meant, are tuples of numbers, from which the tokens can be had again later: what a saved position consists of.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from dataset.text.documents import Documents, Place
from dataset.text.tokenizer import TextTokenizer

Numbers = tuple[int, ...]

_ORDER = 1  # what a random stream is for; see dataset.text.batches


class Windows(Protocol):
    """An endless supply: every epoch has all documents once."""

    first: Numbers  # where every epoch begins

    def window(self, epoch: int, start: Numbers, size: int) -> tuple[list[Numbers], list[np.ndarray], Numbers]:
        """The documents of a window, their tokens (int32), and where the next one begins.

        Fewer than `size` documents: the epoch ends with them.
        """
        ...

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        """The tokens of documents of earlier windows."""
        ...


class InOrder:
    """In the order of the files. Reads and keeps no more than a window; `Numbers` are file and bytes."""

    first: Numbers = (0, 0)

    def __init__(self, documents: Documents, tokenizer: TextTokenizer):
        self.documents, self.tokenizer = documents, tokenizer
        self._open: tuple[Numbers, Iterator[tuple[Place, str]]] | None = None  # where the last window ended

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def window(self, epoch: int, start: Numbers, size: int) -> tuple[list[Numbers], list[np.ndarray], Numbers]:
        known, self._open = self._open, None  # after an error it does not go on
        scan = known[1] if known is not None and known[0] == start else self.documents.scan(*start)
        found = list(islice(scan, size))
        end = (found[-1][0].file, found[-1][0].end) if found else start
        self._open = end, scan
        return [place for place, _ in found], self.tokenizer.encode_batch([text for _, text in found]), end

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        return self.tokenizer.encode_batch(self.documents.read([Place(*place) for place in documents]))


class Shuffled:
    """In another random order each epoch. `Numbers` are the place in the order, or the number of the document.

    Begins by reading all files once, to find the documents. With `keep`, a document is tokenised once and its tokens
    stay in memory, as 16 bit numbers where the vocabulary allows.
    """

    first: Numbers = (0,)

    def __init__(self, documents: Documents, tokenizer: TextTokenizer, seed: int, keep: bool):
        self.documents, self.tokenizer, self.seed = documents, tokenizer, seed
        self.places = documents.places()
        self._kept: dict[int, np.ndarray] | None = {} if keep else None
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
        self._order: tuple[int, np.ndarray] | None = None  # of which epoch, and the order

    def window(self, epoch: int, start: Numbers, size: int) -> tuple[list[Numbers], list[np.ndarray], Numbers]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, _ORDER, epoch))
            self._order = epoch, rng.permutation(len(self.places))
        chosen = self._order[1][start[0] : start[0] + size]
        documents: list[Numbers] = [(document,) for document in chosen.tolist()]
        return documents, self.tokens(documents), (start[0] + len(chosen),)

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        numbers = [document for (document,) in documents]
        kept = self._kept
        if kept is None:
            return self._tokenised(numbers)
        missing = [number for number in numbers if number not in kept]
        for number, tokens in zip(missing, self._tokenised(missing), strict=True):
            kept[number] = tokens.astype(self._dtype)
        return [kept[number].astype(np.int32) for number in numbers]

    def _tokenised(self, numbers: list[int]) -> list[np.ndarray]:
        places = [Place(*place) for place in self.places[numbers].tolist()]
        return self.tokenizer.encode_batch(self.documents.read(places))
