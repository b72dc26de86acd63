"""A small data set whose examples can be told apart: the inputs of example i are the four digits of i."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.shards import PuzzleDatasetMetadata, write_identifiers, write_split

SEQ_LEN, VOCAB = 4, 10
_POWERS = 10 ** np.arange(SEQ_LEN - 1, -1, -1)

Groups = Sequence[Sequence[int]]  # for each group, the number of examples of each of its puzzles


def digits(numbers: Any) -> np.ndarray:
    """[n] -> [n, SEQ_LEN]."""
    return np.asarray(numbers)[:, None] // _POWERS % VOCAB


def numbers(rows: np.ndarray) -> list[int]:
    """The examples that `digits` wrote."""
    return (rows @ _POWERS).tolist()


def small_arrays(groups: Groups, first_id: int = 1) -> dict[str, np.ndarray]:
    """Arrays of a split; puzzle p has the identifier `first_id + p`, labels are the inputs read backwards."""
    sizes = [size for group in groups for size in group]
    inputs = digits(np.arange(sum(sizes)))
    return {
        "inputs": inputs,
        "labels": inputs[:, ::-1],
        "puzzle_identifiers": first_id + np.arange(len(sizes)),
        "puzzle_indices": np.cumsum([0, *sizes]),
        "group_indices": np.cumsum([0, *map(len, groups)]),
    }


def small_metadata(groups: Groups, **changes: Any) -> PuzzleDatasetMetadata:
    """What belongs to `small_arrays(groups)`."""
    puzzles, examples = sum(map(len, groups)), sum(map(sum, groups))
    values: dict[str, Any] = {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": VOCAB,
        "seq_len": SEQ_LEN,
        "num_puzzle_identifiers": puzzles + 1,
        "total_groups": len(groups),
        "mean_puzzle_examples": examples / max(1, puzzles),
        "total_puzzles": puzzles,
        "sets": ["all"],
    }
    return PuzzleDatasetMetadata(**{**values, **changes})


def write_small(
    root: Path, groups: Groups, split: str = "train", names: Sequence[str] | None = None, **changes: Any
) -> Path:
    """Write a split and identifiers.json (`names` without the blank; by default p1, p2, ...)."""
    metadata = small_metadata(groups, **changes)
    for set_name in metadata.sets:
        write_split(root / split, small_arrays(groups), metadata, set_name)
    names = [f"p{i}" for i in range(1, metadata.num_puzzle_identifiers)] if names is None else names
    write_identifiers(root, ["<blank>", *names])
    return root
