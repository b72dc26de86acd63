"""Which puzzles a checkpoint's embedding table belongs to, recorded beside it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError

FILE = "train_data.json"


def write_data_record(folder: Path, roots: Sequence[Path], num_puzzle_identifiers: int) -> None:
    """Record the digests of the data sets' identifiers.json and the size of the table."""
    record = {
        "num_puzzle_identifiers": num_puzzle_identifiers,
        "identifiers_sha256": {str(root): _digest(root) for root in roots},
    }
    (folder / FILE).write_text(json.dumps(record, indent=1) + "\n")


def check_data_record(folder: Path, root: Path) -> None:
    """Refuse a data set whose puzzles are other ones than those that the checkpoint in `folder` was trained on.

    Published checkpoints have no record; for them only the size of the table can be compared.

    Raises:
        UserError: the digests differ.
    """
    path = folder / FILE
    if not path.exists():
        return
    known = json.loads(path.read_text())["identifiers_sha256"]
    mine = _digest(root)
    if mine not in known.values():
        raise UserError(
            f"{root}: its identifiers.json is not the one that the checkpoint was trained with ({', '.join(known)}), "
            "so its puzzle ids name other rows of the embedding table. Evaluate on the data set of the training run, "
            "built with the same options."
        )


def _digest(root: Path) -> str | None:
    path = root / "identifiers.json"
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
