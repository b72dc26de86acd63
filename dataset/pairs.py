"""Pairs of a question and an answer in files: JSONL, CSV or Parquet, on this machine or on the Hugging Face Hub.

Every row has a column `question` and a column `answer`, of any other columns nothing is read. A folder, and a data set
of the Hub, has files whose names begin with `train` and with `test` (or `validation`), such as `train.jsonl` or
`data/train-00000-of-00001.parquet`. A single file is split: one question in ten, by a hash of its text, is for the
test.
"""

import csv
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from dataset.hub import hub_file, reaching_hub
from utils.errors import UserError, did_you_mean
from utils.text_files import read_lines, shown, visible

HUB = "hf:"
_SUFFIXES = (".jsonl", ".csv", ".parquet")
_TEST_SHARE = 10  # one question in so many is for the test
_OTHERWISE = "or give a local folder with train.jsonl and test.jsonl"
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Pairs:
    """Where pairs lie.

    Attributes:
        source: how the user named them.
        files: the names of the files by split; None: a single file holds both.
        fetch: name -> the file on this machine.
    """

    source: str
    files: dict[str, list[str]] | None
    fetch: Callable[[str], Path]


def is_pairs(spec: str) -> bool:
    """Whether a task is named by a source of pairs."""
    return spec.startswith(HUB) or spec.endswith(_SUFFIXES) or ("/" in spec and Path(spec).is_dir())


def source_name(source: str) -> str:
    """A name for the folder of a data set that is built from a source."""
    return Path(source.removeprefix(HUB).replace("/", "-") if source.startswith(HUB) else source).stem or "pairs"


def find_pairs(source: str) -> Pairs:
    """The files of a source.

    Raises:
        UserError: there is no such file, folder or data set, or it has no file of one of the splits.
    """
    if source.startswith(HUB):
        repo = source.removeprefix(HUB)
        if repo.count("/") != 1:
            raise UserError(f"task={source}: a data set of the Hugging Face Hub is named hf:owner/name.")
        from huggingface_hub import list_repo_files

        with reaching_hub(f"the list of files of the Hugging Face data set {repo}", _OTHERWISE):
            names = list_repo_files(repo, repo_type="dataset")
        return Pairs(source, _by_split(names, source), lambda name: hub_file(repo, name, _OTHERWISE, "dataset"))
    path = Path(source)
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in visible(path.rglob("*"))]
        return Pairs(source, _by_split(names, source), lambda name: path / name)
    if not path.is_file():
        raise UserError(f"task={source}: there is no such file (from {Path.cwd()}). Correct the path.")
    return Pairs(source, None, lambda _: path)


def _by_split(names: list[str], source: str) -> dict[str, list[str]]:
    usable = [name for name in sorted(names) if name.endswith(_SUFFIXES)]

    def of(*words: str) -> list[str]:
        return [name for name in usable if any(part.startswith(words) for part in PurePosixPath(name).parts)]

    files = {"train": of("train"), "test": of("test") or of("validation", "valid", "dev")}
    for split, found in files.items():
        if not found:
            raise UserError(
                f"task={source}: there is no file whose name begins with {split!r} and ends with "
                f"{', '.join(_SUFFIXES)}. There are {', '.join(names[:10]) or 'no files'}. Give the file itself, which "
                "is then split."
            )
    return files


def read_pairs(pairs: Pairs, split: Split) -> list[tuple[str, str]]:
    """The questions and answers of a split, in the order of the files.

    Raises:
        UserError: a file is not readable or has no such columns, or nothing is left for the split.
    """
    names = pairs.files[split] if pairs.files is not None else [""]
    found = [pair for name in names for pair in _read(pairs.fetch(name))]
    if pairs.files is None:
        found = [pair for pair in found if (_is_for_test(pair[0])) == (split == "test")]
    if not found:
        raise UserError(f"{pairs.source}: no question is left for the {split} split. Give more questions.")
    return found


def _is_for_test(question: str) -> bool:
    return zlib.crc32(question.strip().encode(errors="replace")) % _TEST_SHARE == 0


def _read(path: Path) -> Iterator[tuple[str, str]]:
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    for where, row in readers[path.suffix](path):
        columns = {str(name).strip().casefold(): value for name, value in row.items()}
        values = []
        for name in ("question", "answer"):
            if name not in columns:
                near = did_you_mean(name, columns)
                raise UserError(
                    f"{where}: there is no column {name!r} among {', '.join(map(str, row))}.{near} Rename the columns "
                    "with the question and the answer."
                )
            if not isinstance(columns[name], str | int | float) or not str(columns[name]).strip():
                raise UserError(f"{where}: {name} is {shown(columns[name])}. Expected is a text or a number.")
            values.append(str(columns[name]).strip())
        yield values[0], values[1]


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path, advice="Give lines of JSON."), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}). Correct the line.") from None
        if not isinstance(row, dict):
            raise UserError(f'{where}: {shown(row)}. Expected is an object, {{"question": ..., "answer": ...}}.')
        yield where, row


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(read_lines(path, advice="Give a CSV file."), strict=True)
    try:
        header = next(reader, [])
        for row in reader:
            where = f"{path} line {reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(f"{where}: {len(row)} columns, expected {len(header)}. Correct the row.")
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not CSV ({error}). Correct the row.") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]  (optional)
    except ImportError:
        raise UserError(
            f"{path}: Parquet files are read with the package pyarrow, which is missing. Install it, or convert the "
            "file to JSONL."
        ) from None
    for number, row in enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1):
        yield f"{path} row {number}", row
