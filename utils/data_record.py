"""A record of the data that a run was trained on, kept with its checkpoints so that puzzle ids are never mixed up."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError

FILE = "train_data.json"
_SAMPLE = 16 << 20  # bytes of each array that go into its digest


def write_data_record(
    folder: Path, roots: Sequence[Path], num_puzzle_identifiers: int, sizes: Mapping[str, Any]
) -> None:
    """Record digests of the data sets, the size of the embedding table, and the sizes that describe the data.

    Args:
        folder: the run folder.
        roots: folders of the data sets.
        num_puzzle_identifiers: number of rows of the embedding table.
        sizes: `seq_len`, `vocab_size` and `task` of the data (see `read_sizes`).
    """
    record = {
        **sizes,
        "num_puzzle_identifiers": num_puzzle_identifiers,
        "identifiers_sha256": {str(root): identifiers_digest(root) for root in roots},
        "train_sha256": {str(root): _train_digest(root) for root in roots},
    }
    (folder / FILE).write_text(json.dumps(record, indent=1) + "\n")


def read_sizes(folder: Path) -> dict[str, Any]:
    """`seq_len`, `vocab_size` and `task` of the data of the run in `folder`, those that were recorded."""
    record = _read(folder) or {}
    return {key: record[key] for key in ("seq_len", "vocab_size", "task") if key in record}


def check_same_puzzles(folder: Path, root: Path) -> None:
    """Refuse a data set whose puzzles differ from those that the checkpoint in `folder` was trained on.

    Published checkpoints have no record and are accepted here; for them only the size of the table can be compared.

    Raises:
        UserError: the digests of identifiers.json differ.
    """
    record = _read(folder)
    if record is not None and identifiers_digest(root) not in record["identifiers_sha256"].values():
        raise UserError(
            f"{root}: its identifiers.json is not the one that the checkpoint was trained with "
            f"({', '.join(record['identifiers_sha256'])}), so its puzzle ids name other rows of the embedding table. "
            "Evaluate on the data set of the training run, built with the same options."
        )


def same_puzzles(folder: Path, roots: Sequence[Path]) -> bool | None:
    """Whether the checkpoint in `folder` was trained on the puzzles of `roots`, in this order; None if not recorded."""
    record = _read(folder)
    return (
        None
        if record is None
        else list(record["identifiers_sha256"].values()) == [identifiers_digest(r) for r in roots]
    )


def check_same_data(folder: Path, roots: Sequence[Path]) -> None:
    """Refuse to resume a run whose training data have since been rebuilt differently.

    Raises:
        UserError: the digest of a data set differs.
    """
    record = _read(folder)
    if record is None:
        return
    before = record["train_sha256"]
    for root in roots:
        if str(root) in before and before[str(root)] != _train_digest(root):
            raise UserError(
                f"{root} is not the data that the run in {folder} was trained on: it has been built anew with other "
                "options. Build it as it was, or start a new run from the weights (load_checkpoint=.../step_<N>)."
            )


def identifiers_digest(root: Path) -> str | None:
    """The SHA-256 of identifiers.json, or None if the data set has no such file."""
    path = root / "identifiers.json"
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _train_digest(root: Path) -> str:
    digest = hashlib.sha256((root / "train" / "dataset.json").read_bytes())
    for path in sorted((root / "train").glob("*.npy")):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / FILE
    return json.loads(path.read_text()) if path.exists() else None
