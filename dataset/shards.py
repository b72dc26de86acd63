"""The shard format of puzzle data sets, which builders write and `puzzle_dataset` reads.

    {root}/identifiers.json                 list of names by puzzle id; id 0 is "<blank>"
    {root}/checksums.json                   see `dataset.checksums`; published data sets have none
    {root}/{train,test}/dataset.json        PuzzleDatasetMetadata
    {root}/{train,test}/{set}__inputs.npy   uint8 [examples, seq_len], grids in row-major order
                        {set}__labels.npy   uint8 [examples, seq_len]
                        {set}__puzzle_identifiers.npy   int32 [puzzles]
                        {set}__puzzle_indices.npy       int32 [puzzles + 1], offsets into the examples
                        {set}__group_indices.npy        int32 [groups + 1], offsets into the puzzles

A puzzle is one task (its examples share an identifier); a group holds a puzzle and its augmented copies.
"""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dataset.build_lock import build_lock, remove_unfinished, unfinished
from dataset.checksums import write_checksums
from dataset.tasks import build_commands, check_task_name
from utils.constants import IGNORE_LABEL_ID
from utils.errors import UserError
from utils.file_names import safe_name
from utils.files import check_regular_file, sync_files
from utils.text_files import read_json, read_text

BLANK_IDENTIFIER = "<blank>"
BUILD_AGAIN = "Build the data set again."
ARRAYS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
_MARKS = ("identifiers.json", "train/dataset.json", "test/dataset.json")  # a data set has at least one of these
_VALUES_PER_CHECK = 1 << 26  # token values checked at once, to bound memory use with memory-mapped shards


class PuzzleDatasetMetadata(BaseModel):
    """`dataset.json` of one split, with the published field names and order."""

    # strict: no text or truth value in the place of a number
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    pad_id: int
    ignore_label_id: int | None
    blank_identifier_id: int
    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int = Field(ge=1)
    total_groups: int
    mean_puzzle_examples: float
    total_puzzles: int | None = None  # absent in older files
    sets: list[str] = Field(min_length=1)
    task: str | None = None  # name of the task; an addition that published files lack, see `dataset.tasks.task_of`

    @field_validator("sets")
    @classmethod
    def _each_set_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError(f"{names} names a set more than once")
        return names


@dataclass(frozen=True)
class Shard:
    """One set of one split. Arrays are memory-mapped and read-only."""

    name: str
    inputs: np.ndarray  # [examples, seq_len]
    labels: np.ndarray  # [examples, seq_len]
    puzzle_identifiers: np.ndarray  # [puzzles]
    puzzle_indices: np.ndarray  # [puzzles + 1]
    group_indices: np.ndarray  # [groups + 1]
    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only folder and name, and reopen the files when unpickling: a pickled memory map is a full copy."""
        return _open_shard, (self.folder, self.name)


class FolderTaken(UserError):
    """The folder of a data set that is to be built is not empty. Another process may have built it in the meantime."""


@contextmanager
def build_folder(output_dir: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `output_dir` if the block ends without an error.

    So an interrupted build leaves no partial data set behind, at most a hidden folder that the next build removes. Of
    two builds of one folder, the second waits for the first. An existing data set is replaced only with `overwrite`,
    and nothing else than a data set is ever replaced.

    Raises:
        FolderTaken: `output_dir` exists and is not empty, and `overwrite` is false. Another process may have built it
            while this one waited.
        UserError: it is to be overwritten, but does not look like a data set.
    """
    output_dir = Path(output_dir)
    _check_free(output_dir, overwrite)
    output_dir = output_dir.resolve()  # for a symbolic link, replace its target
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with build_lock(output_dir):
        remove_unfinished(output_dir)
        if not overwrite and _is_taken(output_dir):
            raise _taken_meanwhile(output_dir)
        temporary = unfinished(output_dir)
        temporary.mkdir()
        try:
            yield temporary
            write_checksums(temporary)
            sync_files(temporary)
            _put_in_place(temporary, output_dir, overwrite)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_taken(output_dir: Path) -> bool:
    return output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir()))


def _check_free(output_dir: Path, overwrite: bool) -> None:
    if not _is_taken(output_dir):
        return
    if not overwrite:
        raise FolderTaken(f"{output_dir} exists and is not empty. Choose another --output-dir, or pass --overwrite.")
    if not any((output_dir / name).is_file() for name in _MARKS):
        raise UserError(
            f"--overwrite: {output_dir} does not look like a data set (it has none of {', '.join(_MARKS)}), so it "
            "is not deleted. Choose another --output-dir, or delete it yourself."
        )


def _put_in_place(temporary: Path, output_dir: Path, overwrite: bool) -> None:
    """Give a finished folder its name. An older data set is removed last, so that half of one never has the name."""
    old = temporary.with_name(f"{temporary.name}-old")
    if output_dir.exists() and not _is_taken(output_dir):
        output_dir.rmdir()
    elif output_dir.exists():
        if not overwrite:
            raise _taken_meanwhile(output_dir)
        output_dir.rename(old)
    try:
        temporary.rename(output_dir)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise _taken_meanwhile(output_dir) from None
    finally:
        if old.exists() and not output_dir.exists():
            old.rename(output_dir)
        shutil.rmtree(old, ignore_errors=True)


def _taken_meanwhile(output_dir: Path) -> FolderTaken:
    return FolderTaken(
        f"{output_dir} has been built by another process in the meantime. Use it as it is, choose another "
        "--output-dir, or pass --overwrite."
    )


def write_metadata(folder: Path, metadata: PuzzleDatasetMetadata) -> None:
    """Write `dataset.json`, without `task` if it is None, so that the bytes equal those of published files."""
    fields = metadata.model_dump()
    if fields["task"] is None:
        del fields["task"]
    with (folder / "dataset.json").open("w") as file:
        json.dump(fields, file)


def write_split(
    folder: Path, arrays: Mapping[str, np.ndarray], metadata: PuzzleDatasetMetadata, set_name: str = "all"
) -> None:
    """Write one split.

    Args:
        folder: the folder of the split.
        arrays: the five arrays named in `ARRAYS`; tokens are stored as uint8, all others as int32.
        metadata: the content of `dataset.json`.
        set_name: name of the set, the prefix of the file names.

    Raises:
        ValueError: the names of the arrays are wrong.
    """
    if set(arrays) != set(ARRAYS):
        raise ValueError(f"arrays {sorted(arrays)}: expected exactly {sorted(ARRAYS)}")
    folder.mkdir(parents=True, exist_ok=True)
    write_metadata(folder, metadata)
    for name, array in arrays.items():
        dtype = np.uint8 if name in ("inputs", "labels") else np.int32
        np.save(folder / f"{set_name}__{name}.npy", array.astype(dtype, copy=False))


def write_identifiers(root: Path, names: list[str]) -> None:
    """Write `identifiers.json`.

    Raises:
        ValueError: `names[0]` is not the blank identifier.
    """
    if not names or names[0] != BLANK_IDENTIFIER:
        raise ValueError(f"identifiers must start with {BLANK_IDENTIFIER!r}, got {names[:1]}")
    with (root / "identifiers.json").open("w") as file:
        json.dump(names, file)


def load_metadata(root: Path | str, split: str) -> PuzzleDatasetMetadata:
    """Read `{root}/{split}/dataset.json`.

    Raises:
        UserError: the file is missing or malformed, names an unknown task, or a set that cannot be the name of a file.
    """
    path = Path(root) / split / "dataset.json"
    try:
        check_regular_file(path, BUILD_AGAIN)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path} is missing: {root} is not a data set with a {split!r} split. "
            f"Build one, for example with (each has --help)\n{build_commands(str(root))}"
        ) from None
    try:
        metadata = PuzzleDatasetMetadata.model_validate_json(read_text(path))
    except (ValidationError, UserError) as error:
        raise UserError(f"{path} is not a dataset.json: {error}. Build the data set again.") from None
    for name in metadata.sets:
        safe_name(name, f"{path}: sets")
    if metadata.task is not None:
        check_task_name(metadata.task, f"{path}: task")
    return metadata


def load_identifiers(root: Path | str) -> list[str] | None:
    """Read `identifiers.json`; None if the data set has no such file, like some published copies.

    Raises:
        UserError: the file is not a JSON list of names.
    """
    path = Path(root) / "identifiers.json"
    if not path.exists():
        return None
    names = read_json(path, BUILD_AGAIN)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a list of names. Build the data set again.")
    return names


def load_shard(
    root: Path | str, split: str, set_name: str, metadata: PuzzleDatasetMetadata, check_tokens: bool = True
) -> Shard:
    """Memory-map one set and check it against its metadata. `check_tokens` also checks all tokens, which reads them.

    Raises:
        UserError: a file is missing or truncated, or has the wrong shape or values out of range; names the file.
    """
    shard = _open_shard(Path(root) / split, set_name)
    _check(shard, metadata, check_tokens)
    return shard


def _open_shard(folder: Path, set_name: str) -> Shard:
    arrays: dict[str, np.ndarray] = {}
    for name in ARRAYS:
        path = folder / f"{set_name}__{name}.npy"
        try:
            check_regular_file(path, BUILD_AGAIN)
        except OSError as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise UserError(f"{path} {what}. {BUILD_AGAIN}") from None
        try:
            # a shape for which the file is too short is refused before any memory is taken
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # numpy evaluates the header, so one damaged byte can raise almost anything
            raise UserError(f"{path} is truncated or no .npy file ({error}). {BUILD_AGAIN}") from None
        if not isinstance(arrays[name], np.ndarray):
            raise UserError(f"{path} is an archive, no .npy file. Build the data set again.")
        # a file that is too short has been refused above
        array, size = arrays[name], path.stat().st_size
        if isinstance(array, np.memmap) and size > array.offset + array.nbytes:
            raise UserError(
                f"{path} has {size:,} bytes, its header says {array.offset + array.nbytes:,}, so it is damaged. "
                f"{BUILD_AGAIN}"
            )
    return Shard(name=set_name, folder=folder, **arrays)


def _check(shard: Shard, metadata: PuzzleDatasetMetadata, check_tokens: bool) -> None:
    arrays: dict[str, np.ndarray] = {name: getattr(shard, name) for name in ARRAYS}

    def broken(name: str, what: str) -> UserError:
        return UserError(f"{shard.folder / f'{shard.name}__{name}.npy'}: {what}. Build the data set again.")

    for name, array in arrays.items():
        ndim = 2 if name in ("inputs", "labels") else 1
        if array.ndim != ndim or not np.issubdtype(array.dtype, np.integer):
            raise broken(name, f"{array.dtype} of shape {array.shape}, expected whole numbers with {ndim} axes")
    inputs, labels = arrays["inputs"], arrays["labels"]
    for name in ("inputs", "labels"):
        if arrays[name].shape[1] != metadata.seq_len:
            raise broken(name, f"rows of {arrays[name].shape[1]} tokens, dataset.json says seq_len {metadata.seq_len}")
    if len(inputs) != len(labels):
        raise broken("labels", f"{len(labels)} rows for {len(inputs)} inputs")
    for name, end, of in (
        ("puzzle_indices", len(inputs), "examples"),
        ("group_indices", len(arrays["puzzle_identifiers"]), "puzzles"),
    ):
        index = arrays[name]
        if len(index) == 0 or index[0] != 0 or index[-1] != end or np.any(index[1:] < index[:-1]):
            raise broken(name, f"must rise from 0 to the number of {of}, {end}")
    if len(arrays["group_indices"]) - 1 > metadata.total_groups or metadata.total_groups < 0:
        raise broken("group_indices", f"{len(arrays['group_indices']) - 1} groups, dataset.json says total_groups "
                     f"{metadata.total_groups} over all sets")  # fmt: skip
    if len(arrays["puzzle_indices"]) != len(arrays["puzzle_identifiers"]) + 1:
        raise broken("puzzle_indices", f"{len(arrays['puzzle_identifiers'])} puzzles need one offset more than that")
    identifiers = arrays["puzzle_identifiers"]
    last = metadata.num_puzzle_identifiers - 1
    if len(identifiers) and (identifiers.min() < 0 or identifiers.max() > last):
        raise broken(
            "puzzle_identifiers", f"ids {identifiers.min()}..{identifiers.max()}, dataset.json allows 0..{last}"
        )
    for name in ("inputs", "labels") if check_tokens else ():
        low, high = _value_range(arrays[name], skip=IGNORE_LABEL_ID if name == "labels" else None)
        if low < 0 or high >= metadata.vocab_size:
            raise broken(name, f"tokens {low}..{high} out of the vocabulary 0..{metadata.vocab_size - 1}")


def _value_range(array: np.ndarray, skip: int | None) -> tuple[int, int]:
    """(smallest, largest) value other than `skip`, computed in chunks; the range always includes 0."""
    rows = max(1, _VALUES_PER_CHECK // max(1, array.shape[1]))
    low = high = 0
    for start in range(0, len(array), rows):
        chunk = array[start : start + rows]
        if skip is not None and chunk.dtype.kind == "i":
            chunk = chunk[chunk != skip]
        if chunk.size:
            low, high = min(low, int(chunk.min())), max(high, int(chunk.max()))
    return low, high
