"""Batches of puzzles as pure functions of (seed, step, rank), so there is no loader state to save.

`TrainBatches` and `EvalBatches` are map-style data sets whose items are whole batches of numpy arrays (`device_feed`
moves them to a device):

    inputs              int32 [batch, seq_len]
    labels              int32 [batch, seq_len], IGNORE_LABEL_ID where there is no label
    puzzle_identifiers  int32 [batch], rows of the puzzle embedding

With several processes, rank r gets rows [r * local, (r + 1) * local) of the global batch, so the number of processes
does not change the training data.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset.augmentation import Augmentation
from dataset.checksums import check_checksums
from dataset.shards import (
    BLANK_IDENTIFIER,
    PuzzleDatasetMetadata,
    Shard,
    load_identifiers,
    load_metadata,
    load_shard,
)
from utils.constants import IGNORE_LABEL_ID
from utils.counter_random import seed_of
from utils.errors import UserError
from utils.random_streams import Stream

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """One split of one data set, and the rows of its puzzle identifiers in the embedding table."""

    root: Path
    metadata: PuzzleDatasetMetadata
    shards: tuple[Shard, ...]
    table_ids: np.ndarray  # int32 [num_puzzle_identifiers]: the data set's own id -> row of the table


class PuzzleSplit:
    """A split of one or several data sets with the same vocabulary and sequence length.

    The puzzles of all data sets share one embedding table. Row 0 is the blank identifier of all data sets; the other
    identifiers follow, one data set after another, so a single data set keeps its own numbering.

    Raises:
        UserError: a data set is missing or damaged, or the data sets do not fit together.
    """

    def __init__(
        self, roots: Sequence[str | Path], split: str, like: "PuzzleSplit | None" = None, check_tokens: bool = True
    ):
        """Open `split` of `roots`.

        Args:
            roots: data set folders.
            split: "train" or "test".
            like: a split whose table ids to reuse instead of assigning new ones; matched by folder, else by name.
            check_tokens: read all files, compare them with the checksums of the build, and check that all tokens are in
                the vocabulary; one process has to do this.
        """
        if not roots:
            raise UserError("data_paths is empty: give at least one data set folder, for example data_paths=[data/x].")
        folders = [Path(root).resolve() for root in roots]
        twice = [str(root) for root, folder in zip(roots, folders, strict=True) if folders.count(folder) > 1]
        if twice:
            raise UserError(f"data_paths names one folder more than once: {', '.join(twice)}. Give each folder once.")
        self.split = split
        self.sources: list[Source] = []
        self.num_puzzle_identifiers = 1 if like is None else like.num_puzzle_identifiers
        for root in map(Path, roots):
            metadata = load_metadata(root, split)
            if check_tokens:
                load_identifiers(root)  # a damaged file would be noticed only by the next evaluation
                check_checksums(root, split)
            if like is None:
                table_ids = _next_ids(self.num_puzzle_identifiers, metadata)
                self.num_puzzle_identifiers += len(table_ids) - 1
            else:
                table_ids = like._ids_for(root, metadata)
            shards = tuple(load_shard(root, split, name, metadata, check_tokens) for name in metadata.sets)
            self.sources.append(Source(root, metadata, shards, table_ids))
        first = (like or self).sources[0]
        for source in self.sources:
            for key in ("seq_len", "vocab_size"):
                mine, theirs = getattr(source.metadata, key), getattr(first.metadata, key)
                if mine != theirs:
                    raise UserError(
                        f"{source.root} has {key} {mine}, {first.root} has {theirs}: "
                        "data sets that are used together must agree."
                    )
        self.metadata = first.metadata

    @property
    def examples_per_epoch(self) -> float:
        """Mean number of examples in an epoch, which takes one puzzle from every group.

        Raises:
            UserError: a dataset.json gives other numbers than its shards.
        """
        return sum(_examples_per_epoch(source, self.split) for source in self.sources)

    def _ids_for(self, root: Path, metadata: PuzzleDatasetMetadata) -> np.ndarray:
        for source in self.sources:
            if source.root.resolve() == root.resolve():
                if len(source.table_ids) != metadata.num_puzzle_identifiers:
                    raise UserError(
                        f"{root}: the two splits disagree on num_puzzle_identifiers, {len(source.table_ids)} and "
                        f"{metadata.num_puzzle_identifiers}. Build the data set again."
                    )
                return source.table_ids
        known = {BLANK_IDENTIFIER: 0}
        for source in self.sources:
            for name, table_id in zip(load_identifiers(source.root) or [], source.table_ids, strict=False):
                known.setdefault(name, int(table_id))
        names = load_identifiers(root) or [BLANK_IDENTIFIER] * metadata.num_puzzle_identifiers
        unknown = [name for name in names if name not in known]
        if unknown or len(names) != metadata.num_puzzle_identifiers:
            trained = ", ".join(str(source.root) for source in self.sources)
            raise UserError(
                f"{root}: {len(unknown)} of its {metadata.num_puzzle_identifiers} puzzles, such as "
                f"{unknown[:1] or names[:1]}, are not among those of {trained}, so they have no trained embedding. "
                "Train on them, or evaluate on a data set whose identifiers the training data has."
            )
        return np.array([known[name] for name in names], dtype=np.int32)


def _examples_per_epoch(source: Source, split: str) -> float:
    """The product of the two numbers in dataset.json, after a comparison with the shards."""
    metadata = source.metadata
    groups = sum(len(shard.group_indices) - 1 for shard in source.shards)
    puzzles = sum(len(shard.puzzle_identifiers) for shard in source.shards)
    mean = sum(len(shard.inputs) for shard in source.shards) / max(1, puzzles)
    # the recorded mean is used, so that its rounding in published files does not change the length of a run
    if metadata.total_groups != groups or not math.isclose(metadata.mean_puzzle_examples, mean, rel_tol=1e-6):
        raise UserError(
            f"{source.root / split / 'dataset.json'}: total_groups {metadata.total_groups} and mean_puzzle_examples "
            f"{metadata.mean_puzzle_examples:g}, but the shards hold {groups} groups with a mean of {mean:g} examples "
            "in a puzzle. Build the data set again."
        )
    return metadata.total_groups * metadata.mean_puzzle_examples


def _next_ids(first_free: int, metadata: PuzzleDatasetMetadata) -> np.ndarray:
    ids = np.arange(first_free - 1, first_free - 1 + metadata.num_puzzle_identifiers, dtype=np.int32)
    ids[0] = 0
    return ids


def _gather(shard: Shard, source: Source, examples: np.ndarray) -> Batch:
    labels = shard.labels[examples].astype(np.int32)
    if source.metadata.ignore_label_id is not None:
        labels[labels == source.metadata.ignore_label_id] = IGNORE_LABEL_ID
    puzzles = np.searchsorted(shard.puzzle_indices, examples, side="right") - 1
    return {
        "inputs": shard.inputs[examples].astype(np.int32),
        "labels": labels,
        "puzzle_identifiers": source.table_ids[shard.puzzle_identifiers[puzzles]],
    }


class TrainBatches:
    """Training batches by step, counted from 1.

    An epoch visits every group once in random order, takes one random puzzle from it, and yields the examples of that
    puzzle in random order. Epochs follow each other without a gap, and batch n is the n-th run of `global_batch_size`
    rows. (The published loader drops the examples of a puzzle that do not fit in a batch. Here they begin the next
    batch, so the rows of a step can be computed without going through all previous steps.)
    """

    def __init__(
        self,
        split: PuzzleSplit,
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        augmentation: Augmentation | None = None,
    ):
        self.split, self.seed, self.augmentation = split, seed, augmentation
        self.global_batch_size = global_batch_size
        local = global_batch_size // world_size
        self.rows = slice(rank * local, (rank + 1) * local)

        self.shards = [(shard, source) for source in split.sources for shard in source.shards]
        sizes = [np.diff(shard.puzzle_indices) for shard, _ in self.shards]
        self._sizes = np.concatenate(sizes).astype(np.int64)
        self._starts = np.concatenate(([0], np.cumsum(self._sizes)))
        self._shard_ends = np.cumsum([len(shard.inputs) for shard, _ in self.shards])
        # groups as ranges of puzzles, over all shards
        offsets = np.cumsum([0] + [len(size) for size in sizes])
        self._group_first = np.concatenate(
            [s.group_indices[:-1] + o for (s, _), o in zip(self.shards, offsets, strict=False)]
        )
        self._group_count = np.concatenate([np.diff(s.group_indices) for s, _ in self.shards])
        if len(self._group_count) == 0 or self._group_count.min() < 1 or self._sizes.min() < 1:
            raise UserError(
                f"{[str(s.root) for s in split.sources]}: split {split.split!r} has no groups, or a group or puzzle "
                "without examples. Build the data set again."
            )
        # If the puzzles of each group all have the same number of examples, all epochs have the same length.
        first = self._sizes[self._group_first]
        group_of_puzzle = np.repeat(np.arange(len(self._group_count)), self._group_count)
        same = np.array_equal(self._sizes, first[group_of_puzzle])
        self._epoch_length = int(first.sum()) if same else None
        self._epoch_ends: list[int] = []
        self._cached_epochs: dict[int, np.ndarray] = {}

    def __getitem__(self, step: int) -> Batch:
        """This rank's rows of the batch of `step` >= 1."""
        batch = self._load(self.examples(step))
        if self.augmentation is not None:
            inputs, labels = batch["inputs"], batch["labels"]
            prepared = self.augmentation.prepare(inputs, labels)
            prepared_tensor = None if prepared is None else torch.from_numpy(prepared)
            new = self.augmented(step, torch.from_numpy(inputs), torch.from_numpy(labels), prepared_tensor)
            batch["inputs"], batch["labels"] = (tokens.numpy() for tokens in new)
        return batch

    def examples(self, step: int) -> np.ndarray:
        """The examples in this rank's rows of the batch of `step`: int64 [rows], numbered across all shards."""
        return self._examples(step)[self.rows]

    def names(self, step: int) -> list[str]:
        """Which examples the global batch of `step` holds: file, row and puzzle, for messages.

        A slot takes its example only if it has halted before.
        """
        names = []
        for example in self._examples(step).tolist():
            index = int(np.searchsorted(self._shard_ends, example, side="right"))
            shard, source = self.shards[index]
            row = example - (int(self._shard_ends[index - 1]) if index else 0)
            puzzle = int(np.searchsorted(shard.puzzle_indices, row, side="right")) - 1
            identifier = int(shard.puzzle_identifiers[puzzle])
            names.append(f"{source.root}/{self.split.split}/{shard.name} row {row} (puzzle id {identifier})")
        return names

    def augmented(self, step: int, inputs: Tensor, labels: Tensor, prepared: Tensor | None) -> tuple[Tensor, Tensor]:
        """The augmented inputs and labels of this rank's rows of the batch of `step`, on the device of the arguments.

        Args:
            step: the step of the batch.
            inputs, labels: tokens [rows, seq_len] of `examples(step)`.
            prepared: the result of `Augmentation.prepare` for them.
        """
        if self.augmentation is None:
            return inputs, labels
        # indices in the global batch, so that the augmentation of a row does not depend on the number of ranks
        rows = torch.arange(self.rows.start, self.rows.stop, device=inputs.device)
        draws = self.augmentation.draw(seed_of(self.seed, Stream.AUGMENTATION, step), rows)
        return self.augmentation.apply(inputs, labels, prepared, draws)

    def _examples(self, step: int) -> np.ndarray:
        """Examples of the global batch of `step`, int64 [global_batch_size]."""
        position, missing = (step - 1) * self.global_batch_size, self.global_batch_size
        parts = []
        epoch, within = self._locate(position)
        while missing:
            part = self._epoch_rows(epoch)[within : within + missing]
            parts.append(part)
            missing -= len(part)
            epoch, within = epoch + 1, 0
        return np.concatenate(parts)

    def _locate(self, position: int) -> tuple[int, int]:
        if self._epoch_length is not None:
            return divmod(position, self._epoch_length)
        while not self._epoch_ends or self._epoch_ends[-1] <= position:
            puzzles = self._draw_puzzles(self._rng(len(self._epoch_ends)))
            before = self._epoch_ends[-1] if self._epoch_ends else 0
            self._epoch_ends.append(before + int(self._sizes[puzzles].sum()))
        epoch = int(np.searchsorted(self._epoch_ends, position, side="right"))
        return epoch, position - (self._epoch_ends[epoch - 1] if epoch else 0)

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, Stream.EPOCH, epoch))

    def _draw_puzzles(self, rng: np.random.Generator) -> np.ndarray:
        """One random puzzle from every group, in random order."""
        puzzles = self._group_first + rng.integers(0, self._group_count)
        return rng.permutation(puzzles)

    def _epoch_rows(self, epoch: int) -> np.ndarray:
        """Examples of `epoch` in their order; the two latest epochs are cached."""
        if epoch not in self._cached_epochs:
            self._cached_epochs = {e: rows for e, rows in self._cached_epochs.items() if e == epoch - 1}
            self._cached_epochs[epoch] = self._draw_epoch_rows(epoch)
        return self._cached_epochs[epoch]

    def _draw_epoch_rows(self, epoch: int) -> np.ndarray:
        rng = self._rng(epoch)
        puzzles = self._draw_puzzles(rng)
        sizes = self._sizes[puzzles]
        ends = np.cumsum(sizes)
        within = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
        rows = np.repeat(self._starts[puzzles], sizes) + within
        if sizes.max() == 1:
            return rows
        visit = np.repeat(np.arange(len(puzzles)), sizes)
        return rows[np.lexsort((rng.random(len(rows)), visit))]  # shuffled within each puzzle

    def _load(self, examples: np.ndarray) -> Batch:
        shard_of = np.searchsorted(self._shard_ends, examples, side="right")
        batch: Batch = {}
        for index in np.unique(shard_of):
            shard, source = self.shards[index]
            rows = np.flatnonzero(shard_of == index)
            before = self._shard_ends[index - 1] if index else 0
            part = _gather(shard, source, examples[rows] - before)
            for name, values in part.items():
                whole = batch.setdefault(name, np.empty((len(examples), *values.shape[1:]), values.dtype))
                whole[rows] = values
        return batch


class EvalBatches:
    """Every example of one set once, in order. The last batch may be shorter; there is no padding.

    For evaluators, batches also hold `own_identifiers` (int32 [batch], the puzzle ids of the data set itself) and
    `example_index` (int64 [batch], the index in the set).
    """

    def __init__(
        self,
        source: Source,
        shard: Shard,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        max_examples: int | None = None,
        seed: int = 0,
        examples: Sequence[int] | None = None,
    ):
        """Cut `shard` into batches.

        `max_examples` takes a random subset of that size, the same for the same seed; `examples`, indices in the set,
        takes these in their order.
        """
        self.source, self.shard = source, shard
        self.global_batch_size = global_batch_size
        local = -(-global_batch_size // world_size)
        self.rows = slice(rank * local, (rank + 1) * local)
        self.examples = np.arange(len(shard.inputs)) if examples is None else np.array(examples, np.int64)
        if max_examples is not None and max_examples < len(self.examples):
            rng = np.random.default_rng((seed, Stream.SUBSET))
            self.examples = np.sort(rng.choice(self.examples, max_examples, replace=False))

    def __len__(self) -> int:
        return -(-len(self.examples) // self.global_batch_size)

    def __getitem__(self, index: int) -> Batch:
        """This rank's rows of batch `index` >= 0; the last batch may have no rows for this rank."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.global_batch_size
        examples = self.examples[start : start + self.global_batch_size][self.rows]
        batch = _gather(self.shard, self.source, examples)
        puzzles = np.searchsorted(self.shard.puzzle_indices, examples, side="right") - 1
        batch["own_identifiers"] = self.shard.puzzle_identifiers[puzzles].astype(np.int32)
        batch["example_index"] = examples.astype(np.int64)
        return batch

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))
