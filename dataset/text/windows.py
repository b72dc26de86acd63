"""Tokenised documents, window by window: in the order of the files, or in a random order of all documents.

A window is a few thousand documents that are packed into rows together. Tuples of numbers identify the start of a
window and each document, so that saved positions can store them and the tokens can be recomputed later.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from dataset.text.documents import Documents, Place
from dataset.text.tokenizer import TextTokenizer
from utils.random_streams import TextStream

Numbers = tuple[int, ...]


class Windows(Protocol):
    """An endless supply of windows; every epoch contains each document once."""

    first: Numbers  # the start of every epoch

    def window(self, epoch: int, start: Numbers, size: int) -> tuple[list[Numbers], list[np.ndarray], Numbers]:
        """The documents of a window, their tokens (int32 [tokens] each), and the start of the next window.

        If there are fewer than `size` documents, the epoch ends with them.
        """
        ...

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        """The tokens of documents from earlier windows."""
        ...


class InOrder:
    """Windows in the order of the files, read one at a time.

    A start is (file, byte), a document is (file, first byte, end byte).
    """

    first: Numbers = (0, 0)

    def __init__(self, documents: Documents, tokenizer: TextTokenizer):
        self.documents, self.tokenizer = documents, tokenizer
        self._open: tuple[Numbers, Iterator[tuple[Place, str]]] | None = None  # end of the last window, scan from there

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def window(self, epoch: int, start: Numbers, size: int) -> tuple[list[Numbers], list[np.ndarray], Numbers]:
        known, self._open = self._open, None  # a scan that fails cannot be continued
        scan = known[1] if known is not None and known[0] == start else self.documents.scan(*start)
        window = list(islice(scan, size))
        end = (window[-1][0].file, window[-1][0].end) if window else start
        self._open = end, scan
        return [place for place, _ in window], self.tokenizer.encode_batch([text for _, text in window]), end

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        return self.tokenizer.encode_batch(self.documents.read([Place(*place) for place in documents]))


class Shuffled:
    """Windows in a new random order each epoch. A start is the position in that order, a document is its index.

    The constructor reads all files once, to find the documents. With `keep`, each document is tokenised once and its
    tokens stay in memory, as 16-bit integers if the vocabulary allows.
    """

    first: Numbers = (0,)

    def __init__(self, documents: Documents, tokenizer: TextTokenizer, seed: int, keep: bool):
        self.documents, self.tokenizer, self.seed = documents, tokenizer, seed
        self.places = documents.places()
        self._kept: dict[int, np.ndarray] | None = {} if keep else None
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
        self._order: tuple[int, np.ndarray] | None = None  # (epoch, its order)

    def window(self, epoch: int, start: Numbers, size: int) -> tuple[list[Numbers], list[np.ndarray], Numbers]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, TextStream.ORDER, epoch))
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
