"""Data sets with one question and one answer per puzzle: read from CSV files, written in the published layout.

The CSV files `train.csv` and `test.csv` have the header `source,question,answer,rating` and one puzzle per row, like
those of sapientinc/sudoku-extreme and sapientinc/maze-30x30-hard-1k on Hugging Face.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel
from tqdm import tqdm

from dataset.hub import hub_file
from dataset.shards import PuzzleDatasetMetadata, write_split
from utils.errors import UserError

HEADER = ["source", "question", "answer", "rating"]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class QuestionAnswers:
    """The rows of one CSV file, as ASCII codes."""

    path: Path
    questions: np.ndarray  # uint8 [n, length]
    answers: np.ndarray  # uint8 [n, length]
    lines: np.ndarray  # [n], line of the file on which each row ends

    def refuse(self, bad: np.ndarray, what: str) -> None:
        """Raise a `UserError` for the first row in which `bad`, bool [n] or [n, length], is true, if there is one."""
        if bad.any():
            row = np.argwhere(bad)[0, 0]
            raise UserError(f"{self.path} line {self.lines[row]}: {what}. Mend the row or leave it out.")


def find_csv(source: str, split: Split) -> Path:
    """The file `{split}.csv` in the local folder `source`, or else in the Hugging Face data set `source`.

    Raises:
        UserError: the file does not exist, or cannot be downloaded.
    """
    folder = Path(source)
    if folder.is_dir():
        path = folder / f"{split}.csv"
        if not path.is_file():
            raise UserError(f"{path} is missing: --source must be a folder with train.csv and test.csv.")
        return path
    local = f"or pass --source FOLDER, a local folder with train.csv and test.csv (header {','.join(HEADER)})"
    if folder.exists() or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise UserError(
            f"--source {source} is neither a folder nor the name of a Hugging Face data set: mend it, {local}."
        )
    return hub_file(source, f"{split}.csv", local, "dataset")


def read_csv(path: Path, length: int, hint: str, min_rating: int | None = None) -> QuestionAnswers:
    """The rows of `path` with a rating of at least `min_rating`.

    Args:
        path: the CSV file.
        length: number of characters of every question and answer.
        hint: advice for rows of another length, for the error message.
        min_rating: lowest rating to keep; None keeps all rows.

    Raises:
        UserError: the file or one of its rows is malformed; the message gives file and line.
    """
    questions, answers, lines = bytearray(), bytearray(), []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            if (header := next(reader, None)) != HEADER:
                raise UserError(f"{path} starts with {header}, expected the header {','.join(HEADER)}.")
            for row in tqdm(reader, desc=f"read {path.name}", unit=" puzzles", delay=1, leave=False, disable=None):
                if not row:
                    continue
                where = f"{path} line {reader.line_num}"
                if len(row) != len(HEADER):
                    raise UserError(f"{where}: {len(row)} columns, expected {len(HEADER)} ({','.join(HEADER)}).")
                _, question, answer, rating = row
                if min_rating is not None and _rating(rating, where) < min_rating:
                    continue
                for name, text in (("question", question), ("answer", answer)):
                    if len(text) != length:
                        raise UserError(f"{where}: {name} of {len(text)} characters, expected {length}. {hint}")
                questions += question.encode("ascii", errors="replace")
                answers += answer.encode("ascii", errors="replace")
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    if not lines:
        rated = "" if min_rating is None else f" with a rating of {min_rating} or more"
        raise UserError(f"{path} has no puzzle{rated}.")
    codes = [np.frombuffer(text, np.uint8).reshape(-1, length) for text in (questions, answers)]
    return QuestionAnswers(path, codes[0], codes[1], np.array(lines))


def _rating(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: rating {text!r} is no whole number, which --min-difficulty needs.") from None


def not_among(keys: Sequence[bytes], others: Sequence[bytes]) -> np.ndarray:
    """Positions int64 [m] of the `keys` that are not among `others`."""
    known = set(others)
    return np.array([i for i, key in enumerate(keys) if key not in known], np.int64)


def subsample(n: int, size: int | None, rng: np.random.Generator) -> np.ndarray:
    """A uniform random subset of `size` of the positions 0..n-1, sorted; all n if `size` is None or at least n."""
    if size is None or size >= n:
        return np.arange(n)
    return np.sort(rng.permutation(n)[:size])


def check_at_least(low: int, **options: int | None) -> None:
    """Raise a `UserError` for the first option (given by its Python name) that is not None and below `low`."""
    for name, value in options.items():
        if value is not None and value < low:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {low}.")


def refuse_changed(config: BaseModel, names: Sequence[str], why: str) -> None:
    """Raise a `UserError` for the first option in `names` that is not at its default, but would have no effect."""
    for name in names:
        value = getattr(config, name)
        if value != type(config).model_fields[name].default:
            raise UserError(f"--{name.replace('_', '-')} {value}: {why}.")


def write_question_answers(
    folder: Path, inputs: np.ndarray, labels: np.ndarray, group_sizes: np.ndarray, vocab_size: int, task: str
) -> None:
    """Write one split in which each example is a puzzle of its own, and all puzzles have the blank identifier.

    Args:
        folder: the folder of the split.
        inputs: tokens [examples, seq_len], with the members of a group next to each other.
        labels: tokens [examples, seq_len], 0 where there is no label.
        group_sizes: number of examples in each group [groups]: a puzzle and its augmented copies.
        vocab_size: number of tokens, including padding.
        task: name of the task, see `dataset.tasks`.
    """
    n = len(inputs)
    arrays = {
        "inputs": inputs,
        "labels": labels,
        "puzzle_identifiers": np.zeros(n, np.int32),
        "puzzle_indices": np.arange(n + 1),
        "group_indices": np.concatenate([[0], np.cumsum(group_sizes)]),
    }
    metadata = PuzzleDatasetMetadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=vocab_size,
        seq_len=inputs.shape[1],
        num_puzzle_identifiers=1,
        total_groups=len(group_sizes),
        mean_puzzle_examples=1,
        total_puzzles=n,
        sets=["all"],
        task=task,
    )
    write_split(folder, arrays, metadata)
