"""Batches of text: documents packed into rows, in an order that can be resumed from a small saved position.

A row has `seq_len` positions and holds one or several documents. A document with tokens t1 ... tn takes n + 1
positions, with inputs EOS t1 ... tn and labels t1 ... tn EOS, so the model also learns how documents begin and end. A
document is cut only if it is longer than a row, into full rows and a remainder. No token is lost: the last label of a
piece is the first input of the next piece. Batches are dictionaries of int32 arrays [rows, seq_len]:

    inputs     tokens; EOS in padding
    labels     the next token of the same document; IGNORE_LABEL_ID in padding
    documents  index of the document within its row, from 0; NO_DOCUMENT in padding

Rows are packed from windows of documents (`dataset.text.windows`). The pieces of badly filled rows are carried over to
the next window, except at the end of an epoch. All ranks pack the same windows, for which they need only the lengths of
the documents, and fetch the tokens of their own rows of the global batch. So the number of processes does not change
the training data.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset.text.documents import Documents
from dataset.text.packing import pack
from dataset.text.token_file import TokenFile
from dataset.text.tokenizer import TextTokenizer
from dataset.text.windows import InOrder, Numbers, Shuffled, Windows
from utils.constants import IGNORE_LABEL_ID, NO_DOCUMENT
from utils.errors import UserError
from utils.random_streams import TextStream

Batch = dict[str, np.ndarray]
Position = dict[str, Any]

WINDOW = 2048  # documents per window
_BADLY_FILLED = 0.9  # filled fraction of a row below which its pieces may be carried over to the next window
_WAITING = 16  # at most 1 / _WAITING of the pieces of a window are carried over


class Piece(NamedTuple):
    """A document, or one part of a document that is longer than a row."""

    document: Numbers
    number: int  # index of the part
    length: int  # positions


Row = list[Piece]


class TextBatches:
    """An endless iterator over (batch, position after it), epoch after epoch.

    A checkpoint has to save the position after the last batch that was trained on (a prefetching loader may be further
    ahead). A position consists of plain numbers, takes a few KB, is the same on all ranks, and depends on neither the
    batch size nor the number of ranks.
    """

    def __init__(
        self,
        documents: Documents,
        tokenizer: TextTokenizer,
        *,
        tokens: TokenFile | None = None,
        seq_len: int,
        global_batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        window: int = WINDOW,
    ):
        """Start at the beginning of the first epoch.

        Args:
            documents: the documents to train on. With streaming they are read in order and shuffled within windows;
                otherwise each epoch shuffles all of them.
            tokenizer: the tokenizer.
            tokens: the tokens of all documents (`dataset.text.token_cache`); None with streaming, which makes them
                window by window.
            seq_len: positions per row.
            global_batch_size: rows per batch, over all ranks.
            seed: seed of the order.
            rank: rank of this process.
            world_size: number of processes.
            window: number of documents that are packed together.

        Raises:
            UserError: an argument is invalid, or there are no documents.
        """
        assert documents.streaming == (tokens is None), "streaming makes its tokens itself, and only streaming does"
        _check_sizes(seq_len=seq_len, global_batch_size=global_batch_size, window=window)
        self.rows = _rows_of_rank(global_batch_size, rank, world_size)
        self.seq_len, self.global_batch_size, self.seed, self.window = seq_len, global_batch_size, seed, window
        self.eos_id = tokenizer.eos_id
        self.windows: Windows
        if tokens is None:
            self.windows = InOrder(documents, tokenizer)
        elif len(tokens):
            self.windows = Shuffled(tokens, seed)
        else:
            raise UserError(_no_documents(documents))
        self.documents = documents
        self.settings = {
            "seed": seed,
            "seq_len": seq_len,
            "window": window,
            "streaming": documents.streaming,
            "documents": _digest(documents),
            "tokenizer": tokenizer.digest,
        }
        self._given = 0  # rows yielded since the beginning, over all ranks
        self._begin_window(0, 0, self.windows.first, [])

    def __iter__(self) -> "TextBatches":
        return self

    def __next__(self) -> tuple[Batch, Position]:
        """This rank's rows of the next global batch, and the position after it."""
        # fetched window by window, because the next window replaces the tokens of this one
        parts = [self._fetch(rows[_part(self.rows, taken, len(rows))]) for taken, rows in self._take()]
        return _joined(parts), self.state_dict()

    def skip(self) -> None:
        """Move on by one batch, without fetching its tokens."""
        for _ in self._take():
            pass

    def _take(self) -> Iterator[tuple[int, list[Row]]]:
        """The rows of the next global batch, window by window, each time with the number of those before them."""
        taken = 0
        while taken < self.global_batch_size:
            if self._packed is None:
                self._packed, self._waiting = self._pack_window()
            rows = self._packed[self._row : self._row + self.global_batch_size - taken]
            yield taken, rows
            taken += len(rows)
            self._row += len(rows)
            if taken < self.global_batch_size:
                self._advance()
        self._given += taken

    def state_dict(self) -> Position:
        """The position after the last batch.

        Its keys are `epoch`, `window` (its index in the epoch), `start` (where the window starts), `carried` (pieces
        carried over to it), `row` (rows of the window that have been yielded), `rows` (rows yielded since the
        beginning) and `settings`.
        """
        return {
            "epoch": self._epoch,
            "window": self._window,
            "start": list(self._start),
            "carried": [[*piece.document, piece.number] for piece in self._carried],
            "row": self._row,
            "rows": self._given,
            "settings": self.settings,
        }

    def load_state_dict(self, position: Position) -> None:
        """Continue after the batch that came with `position`. Only the window is packed anew.

        Raises:
            UserError: the position belongs to other data or settings.
        """
        before = position["settings"]
        changed = [key for key in self.settings if self.settings[key] != before.get(key)]
        if changed:
            raise UserError(
                f"the checkpoint's position in the data does not fit: changed are {', '.join(changed)} "
                f"(before: {', '.join(f'{key} {before.get(key)}' for key in changed)}). Resume with the same text, "
                "tokenizer and settings, or start a new run from the weights."
            )
        documents: list[Numbers] = [tuple(carried[:-1]) for carried in position["carried"]]
        numbers = [carried[-1] for carried in position["carried"]]
        cut = map(self._cut, documents, self.windows.lengths(documents))
        carried = [pieces[number] for pieces, number in zip(cut, numbers, strict=True)]
        self._begin_window(position["epoch"], position["window"], tuple(position["start"]), carried)
        self._row, self._given = position["row"], position["rows"]

    def _begin_window(self, epoch: int, window: int, start: Numbers, carried: list[Piece]) -> None:
        self._epoch, self._window, self._start, self._carried = epoch, window, start, carried
        self._row = 0
        self._packed: list[Row] | None = None  # rows of this window, once packed
        self._waiting: list[Piece] = []  # pieces carried over to the next window

    def _pack_window(self) -> tuple[list[Row], list[Piece]]:
        """The rows of this window and the pieces for the next one; also stores where the next window starts."""
        carried = [piece.document for piece in self._carried]
        window = self.windows.window(self._epoch, self._start, self.window, carried)
        documents, lengths, self._next_start = window
        self._is_last = len(documents) < self.window
        cut = [piece for pieces in map(self._cut, documents, lengths) for piece in pieces]
        rng = np.random.default_rng((self.seed, TextStream.PACKING, self._epoch, self._window))
        return _pack([*self._carried, *cut], self.seq_len, rng, 0 if self._is_last else self.window // _WAITING)

    def _advance(self) -> None:
        """Move on to the next window."""
        if not self._is_last:
            self._begin_window(self._epoch, self._window + 1, self._next_start, self._waiting)
        elif self._packed or self._window:
            self._begin_window(self._epoch + 1, 0, self.windows.first, [])
        else:
            raise UserError(_no_documents(self.documents))

    def _cut(self, document: Numbers, length: int) -> list[Piece]:
        return _cut(document, length, self.seq_len)

    def _fetch(self, rows: Sequence[Row]) -> Batch:
        return _fetch(rows, self.windows, self.seq_len, self.eos_id)


def eval_batches(
    documents: Documents,
    tokenizer: TextTokenizer,
    *,
    seq_len: int,
    global_batch_size: int,
    max_batches: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> list[Batch]:
    """This rank's rows of the first `max_batches` batches of `documents` (None: all), the same in every run.

    The last batch is filled with rows of padding.

    Raises:
        UserError: an argument is invalid, or there are no documents.
    """
    _check_sizes(seq_len=seq_len, global_batch_size=global_batch_size)
    if max_batches is not None:
        _check_sizes(max_batches=max_batches)
    mine = _rows_of_rank(global_batch_size, rank, world_size)
    windows = InOrder(documents, tokenizer)
    most = None if max_batches is None else max_batches * global_batch_size
    parts: list[Batch] = []
    waiting: list[Piece] = []
    start, last, number, count = windows.first, False, 0, 0  # count: rows so far, over all ranks
    while not last and (most is None or count < most):
        window, lengths, start = windows.window(0, start, WINDOW, [piece.document for piece in waiting])
        last = len(window) < WINDOW
        for document, length in zip(window, lengths, strict=True):
            waiting += _cut(document, length, seq_len)
        # shuffled because packing puts long documents first, and max_batches may take only some of the batches
        rng = np.random.default_rng((0, TextStream.EVALUATION, number))
        rows, waiting = _pack(waiting, seq_len, rng, 0 if last else WINDOW // _WAITING)
        rows = rows if most is None else rows[: most - count]
        own = [row for index, row in enumerate(rows, count) if mine.start <= index % global_batch_size < mine.stop]
        parts.append(_fetch(own, windows, seq_len, tokenizer.eos_id))
        count += len(rows)
        number += 1
    if not count:
        raise UserError(_no_documents(documents))
    local = mine.stop - mine.start
    ends = range(local, -(-count // global_batch_size) * local + 1, local)
    padding: list[Row] = [[]] * (ends[-1] - sum(len(part["inputs"]) for part in parts))
    whole = _joined([*parts, _fetch(padding, windows, seq_len, tokenizer.eos_id)])
    return [{name: values[end - local : end] for name, values in whole.items()} for end in ends]


def _cut(document: Numbers, length: int, seq_len: int) -> list[Piece]:
    """A document of `length` tokens as pieces of up to `seq_len` positions."""
    starts = range(0, length + 1, seq_len)
    return [Piece(document, number, min(seq_len, length + 1 - start)) for number, start in enumerate(starts)]


def _pack(
    pieces: Sequence[Piece], seq_len: int, rng: np.random.Generator, most_waiting: int
) -> tuple[list[Row], list[Piece]]:
    """Rows in random order, and up to `most_waiting` pieces from the rows that are filled worst, which are left out."""
    pieces = [pieces[index] for index in rng.permutation(len(pieces))]
    lengths = [piece.length for piece in pieces]
    rows = pack(lengths, seq_len)
    filled = [sum(lengths[index] for index in row) for row in rows]
    waiting: list[int] = []
    kept = list(range(len(rows)))
    for row in sorted(kept, key=filled.__getitem__):
        if filled[row] >= _BADLY_FILLED * seq_len or len(waiting) + len(rows[row]) > most_waiting:
            break
        waiting += rows[row]
        kept.remove(row)
    # restore the shuffled order within rows, because packing puts the longest pieces first
    shuffled = [[pieces[index] for index in sorted(rows[row])] for row in rng.permutation(kept)]
    return shuffled, [pieces[index] for index in sorted(waiting)]


def _fetch(rows: Sequence[Row], windows: Windows, seq_len: int, eos_id: int) -> Batch:
    """The batch of `rows`, with the tokens of their pieces."""
    shape = (len(rows), seq_len)
    inputs = np.full(shape, eos_id, np.int32)
    labels = np.full(shape, IGNORE_LABEL_ID, np.int32)
    documents = np.full(shape, NO_DOCUMENT, np.int32)
    tokens = iter(windows.tokens([piece.document for row in rows for piece in row]))
    for row, pieces in enumerate(rows):
        end = 0
        for number, piece in enumerate(pieces):
            start, end = end, end + piece.length
            before = piece.number * seq_len  # positions of the document in earlier pieces
            whole = next(tokens)
            # position p of a document has token p as its label and token p - 1 as its input; EOS is in place of both
            # the token before the first, which `inputs` is filled with, and the one behind the last
            known = whole[max(0, before - 1) : before + piece.length - 1]
            inputs[row, end - len(known) : end] = known
            known = whole[before : before + piece.length]
            labels[row, start : start + len(known)] = known
            labels[row, start + len(known) : end] = eos_id
            documents[row, start:end] = number
    return {"inputs": inputs, "labels": labels, "documents": documents}


def _joined(parts: Sequence[Batch]) -> Batch:
    """The rows of all parts."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _part(rows: slice, before: int, count: int) -> slice:
    """Which of `count` rows, with `before` rows in front of them, are among `rows`."""
    return slice(max(0, rows.start - before), min(count, max(0, rows.stop - before)))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} {size}: must be at least 1.")


def _rows_of_rank(global_batch_size: int, rank: int, world_size: int) -> slice:
    if global_batch_size % world_size:
        raise UserError(
            f"global_batch_size {global_batch_size} is not divisible by {world_size} processes: use for example "
            f"global_batch_size={-(-global_batch_size // world_size) * world_size}."
        )
    local = global_batch_size // world_size
    return slice(rank * local, (rank + 1) * local)


def _no_documents(documents: Documents) -> str:
    return (
        f"there are no documents ({documents.describe()}). Give more text, with lines of <|endoftext|> between its "
        "documents, another share held_out, or files of its own to hold out (validation)."
    )


def _digest(documents: Documents) -> str:
    """A digest of the names and sizes of the files and the part used, whatever folder they are in."""
    files = [[Path(file.name).name, file.size] for file in documents.files]
    return hashlib.sha256(json.dumps([files, repr(documents.part)]).encode()).hexdigest()
