"""Documents with their tokens, window by window: in the order of the files, or in a random order of all documents.

A window is a few thousand documents that are packed into rows together. Packing needs the lengths of all of them; their
tokens are fetched for those rows that the process trains on. Tuples of numbers identify the start of a window and each
document, so that saved positions can store them and the tokens can be found later.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from dataset.text.documents import Documents, Place
from dataset.text.token_file import TokenFile
from dataset.text.tokenizer import TextTokenizer
from utils.random_streams import TextStream

Numbers = tuple[int, ...]


class Windows(Protocol):
    """An endless supply of windows; every epoch contains each document once."""

    first: Numbers  # the start of every epoch

    def window(
        self, epoch: int, start: Numbers, size: int, carried: Sequence[Numbers]
    ) -> tuple[list[Numbers], list[int], Numbers]:
        """The documents of a window, their numbers of tokens, and the start of the next window.

        If there are fewer than `size` documents, the epoch ends with them.

        Args:
            epoch: the epoch, from 0.
            start: where the window starts.
            size: number of documents.
            carried: documents of earlier windows that are packed with this one.
        """
        ...

    def lengths(self, documents: Sequence[Numbers]) -> list[int]:
        """The numbers of tokens of documents of any window."""
        ...

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        """The tokens of documents of any window, an array of integers [tokens] each."""
        ...


class InOrder:
    """Windows in the order of the files, read and tokenised one at a time.

    A start is (file, byte), a document is (file, first byte, end byte). The tokens of the window and of the documents
    carried over to it stay in memory; others are tokenised again when they are asked for.
    """

    first: Numbers = (0, 0)

    def __init__(self, documents: Documents, tokenizer: TextTokenizer):
        self.documents, self.tokenizer = documents, tokenizer
        self._open: tuple[Numbers, Iterator[tuple[Place, str]]] | None = None  # end of the last window, scan from there
        self._tokens: dict[Numbers, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def window(
        self, epoch: int, start: Numbers, size: int, carried: Sequence[Numbers]
    ) -> tuple[list[Numbers], list[int], Numbers]:
        known, self._open = self._open, None  # a scan that fails cannot be continued
        scan = known[1] if known is not None and known[0] == start else self.documents.scan(*start)
        window = list(islice(scan, size))
        end = (window[-1][0].file, window[-1][0].end) if window else start
        self._open = end, scan
        documents: list[Numbers] = [place for place, _ in window]
        tokens = self.tokenizer.encode_batch([text for _, text in window])
        # copied, because the tokens of a window are parts of one array, which would stay in memory
        before = {document: ids.copy() for document, ids in zip(carried, self.tokens(carried), strict=True)}
        self._tokens = {**before, **dict(zip(documents, tokens, strict=True))}
        return documents, list(map(len, tokens)), end

    def lengths(self, documents: Sequence[Numbers]) -> list[int]:
        return list(map(len, self.tokens(documents)))

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        missing = [document for document in dict.fromkeys(documents) if document not in self._tokens]
        texts = self.documents.read([Place(*document) for document in missing])
        self._tokens.update(zip(missing, self.tokenizer.encode_batch(texts), strict=True))
        return [self._tokens[document] for document in documents]


class Shuffled:
    """Windows in a new random order each epoch, with tokens from a file.

    A start is the position in that order, a document is its index.
    """

    first: Numbers = (0,)

    def __init__(self, file: TokenFile, seed: int):
        self.file, self.seed = file, seed
        self._order: tuple[int, np.ndarray] | None = None  # (epoch, its order)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_order": None}

    def window(
        self, epoch: int, start: Numbers, size: int, carried: Sequence[Numbers]
    ) -> tuple[list[Numbers], list[int], Numbers]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, TextStream.ORDER, epoch))
            self._order = epoch, rng.permutation(len(self.file))
        chosen = self._order[1][start[0] : start[0] + size]
        documents: list[Numbers] = [(document,) for document in chosen.tolist()]
        return documents, self.file.lengths(chosen).tolist(), (start[0] + len(chosen),)

    def lengths(self, documents: Sequence[Numbers]) -> list[int]:
        return self.file.lengths(_indices(documents)).tolist()

    def tokens(self, documents: Sequence[Numbers]) -> list[np.ndarray]:
        return self.file.tokens(_indices(documents))


def _indices(documents: Sequence[Numbers]) -> np.ndarray:
    return np.array([document for (document,) in documents], np.int64)
