"""A record of the data that a run was trained on, kept with its checkpoints so that puzzle ids are never mixed up."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.atomic_file import write_json
from utils.errors import UserError
from utils.files import OTHER_FOLDER, check_regular_file, writing_to
from utils.text_checksum import check_values, with_checksum
from utils.text_files import read_json, visible

FILE = "train_data.json"
_COPY = "Take another copy of it from the run folder, or remove it: then the data are not compared."
_BUILD_AGAIN = "Build the data set again."
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
    with writing_to(folder, OTHER_FOLDER):
        write_json(folder / FILE, with_checksum(record))


def read_sizes(folder: Path) -> dict[str, Any]:
    """`seq_len`, `vocab_size` and `task` of the data of the run in `folder`, those that were recorded.

    Raises:
        UserError: the record is damaged. This holds for all functions that read it.
    """
    record = _read(folder) or {}
    sizes = {key: record[key] for key in ("seq_len", "vocab_size", "task") if key in record}
    for key, value in sizes.items():
        right = isinstance(value, str | None) if key == "task" else type(value) is int and value > 0
        if not right:
            expected = "a name or null" if key == "task" else "a whole number of at least 1"
            raise UserError(f"{folder / FILE}: {key} is {value!r}, expected {expected}. {_COPY}")
    return sizes


def check_same_puzzles(folder: Path, root: Path) -> None:
    """Refuse a data set whose puzzles differ from those that the checkpoint in `folder` was trained on.

    Published checkpoints have no record and are accepted here; for them only the size of the table can be compared.

    Raises:
        UserError: the digests of identifiers.json differ.
    """
    trained = _digests(folder, "identifiers_sha256")
    if trained is not None and identifiers_digest(root) not in trained.values():
        raise UserError(
            f"{root}: its identifiers.json is not the one that the checkpoint was trained with "
            f"({', '.join(trained)}), so its puzzle ids name other rows of the embedding table. "
            "Evaluate on the data set of the training run, built with the same options."
        )


def same_puzzles(folder: Path, roots: Sequence[Path]) -> bool | None:
    """Whether the checkpoint in `folder` was trained on the puzzles of `roots`, in this order; None if not recorded."""
    trained = _digests(folder, "identifiers_sha256")
    return None if trained is None else list(trained.values()) == [identifiers_digest(root) for root in roots]


def check_same_data(folder: Path, roots: Sequence[Path]) -> bool:
    """Refuse to resume a run with other training data than those it was trained on, wherever they lie.

    Returns:
        Whether the data were compared; False if the run has no record, like published checkpoints.

    Raises:
        UserError: a data set is another one, was rebuilt differently, or is at another place in the list.
    """
    trained = _digests(folder, "train_sha256")
    if trained is None:
        return False
    before, now = list(trained.values()), [_train_digest(root) for root in roots]
    for root, digest in zip(roots, now, strict=True):
        if digest not in before:
            raise UserError(
                f"{root} is not the data that the run in {folder} was trained on: it is another data set, or has been "
                "built anew with other options. Build it as it was, or start a new run from the weights "
                "(load_checkpoint=.../step_<N>)."
            )
    if now != before:
        raise UserError(
            f"data_paths=[{','.join(map(str, roots))}]: the run in {folder} was trained on "
            f"[{','.join(trained)}]. Give the same data sets in the same order, or start a new run from "
            "the weights (load_checkpoint=.../step_<N>)."
        )
    return True


def identifiers_digest(root: Path) -> str | None:
    """The SHA-256 of identifiers.json, or None if the data set has no such file.

    Raises:
        UserError: it is no regular file.
    """
    path = root / "identifiers.json"
    if not path.exists():
        return None
    check_regular_file(path, _BUILD_AGAIN)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _train_digest(root: Path) -> str:
    digest = hashlib.sha256((root / "train" / "dataset.json").read_bytes())
    for path in visible((root / "train").glob("*.npy")):
        check_regular_file(path, _BUILD_AGAIN)
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / FILE
    if not path.exists():
        return None
    record = read_json(path, _COPY)
    if not isinstance(record, dict):
        raise UserError(f"{path}: expected an object, got {type(record).__name__}. {_COPY}")
    return check_values(record, path)


def _digests(folder: Path, key: str) -> dict[str, str | None] | None:
    """The digests by folder in the record of the run in `folder`; None if it has no record."""
    record = _read(folder)
    if record is None:
        return None
    digests = record.get(key)
    if not isinstance(digests, dict) or not all(value is None or isinstance(value, str) for value in digests.values()):
        raise UserError(f"{folder / FILE}: expected {key}, an object of data set -> digest. {_COPY}")
    return digests
