"""Which data a run was trained on, recorded beside its checkpoints, so that puzzle ids are never taken for others."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError

FILE = "train_data.json"
_SAMPLE = 16 << 20  # bytes of the inputs that stand for all of them


def write_data_record(folder: Path, roots: Sequence[Path], num_puzzle_identifiers: int) -> None:
    """Record digests of the data sets and the size of the embedding table."""
    record = {
        "num_puzzle_identifiers": num_puzzle_identifiers,
        "identifiers_sha256": {str(root): identifiers_digest(root) for root in roots},
        "train_sha256": {str(root): _train_digest(root) for root in roots},
    }
    (folder / FILE).write_text(json.dumps(record, indent=1) + "\n")


def check_same_puzzles(folder: Path, root: Path) -> None:
    """Refuse a data set whose puzzles are other ones than those that the checkpoint in `folder` was trained on.

    Published checkpoints have no record; for them only the size of the table can be compared.

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


def same_puzzles(folder: Path, roots: Sequence[Path]) -> bool:
    """Whether the checkpoint in `folder` is known to have been trained on the puzzles of `roots`, in this order."""
    record = _read(folder)
    return record is not None and list(record["identifiers_sha256"].values()) == [identifiers_digest(r) for r in roots]


def check_same_data(folder: Path, roots: Sequence[Path]) -> None:
    """Refuse to go on with a run whose training data were built anew and differently.

    Raises:
        UserError: a digest differs.
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
    """SHA-256 of identifiers.json, or None where there is none."""
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
