"""Data sets with one question and one answer per puzzle: read from CSV files, written in the published layout.

The CSV files `train.csv` and `test.csv` have the header `source,question,answer,rating` and one puzzle per row, like
those of sapientinc/sudoku-extreme and sapientinc/maze-30x30-hard-1k on Hugging Face. The columns may be in any order
and among others; only `question` is needed. A puzzle without an answer can be tested on, but not trained on.
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel
from tqdm import tqdm

from dataset.hub import hub_file
from dataset.shards import PuzzleDatasetMetadata, write_split
from utils.errors import UserError, did_you_mean
from utils.text_files import read_lines, shown

HEADER = ["source", "question", "answer", "rating"]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class QuestionAnswers:
    """The rows of one CSV file, as ASCII codes."""

    path: Path
    questions: np.ndarray  # uint8 [n, length]
    answers: np.ndarray  # uint8 [n, length], 0 where a puzzle has no answer
    lines: np.ndarray  # [n], line of the file on which each row ends

    @property
    def answered(self) -> np.ndarray:
        """Whether each puzzle has an answer: bool [n]."""
        return np.any(self.answers, axis=1, keepdims=True)[:, 0]

    def refuse(self, bad: np.ndarray, what: str) -> None:
        """Raise a `UserError` for the first row in which `bad`, bool [n] or [n, length], is true, if there is one."""
        if bad.any():
            row = np.argwhere(bad)[0, 0]
            question, answer = (shown(codes[row].tobytes().decode(), 100) for codes in (self.questions, self.answers))
            raise UserError(
                f"{self.path} line {self.lines[row]}: {what}. Mend the row or leave it out. "
                f"Its question is {question}, its answer {answer if self.answers[row].any() else 'missing'}."
            )


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

    Columns are found by name. White space around names and cells does not count, except in a cell of `length`
    characters, which is taken as it is: mazes hold spaces.

    Args:
        path: the CSV file.
        length: number of characters of every question and answer.
        hint: advice for rows of another length, for the error message.
        min_rating: lowest rating to keep; None keeps all rows.

    Raises:
        UserError: the file or one of its rows is malformed; the message gives file and line.
    """
    questions, answers, lines = bytearray(), bytearray(), []
    reader = csv.reader(read_lines(path, advice="Give a CSV file."), strict=True)
    try:
        header = next((row for row in reader if _has_content(row)), [])
        columns = _find_columns(path, header, min_rating is not None)
        for row in tqdm(reader, desc=f"read {path.name}", unit=" puzzles", delay=1, leave=False, disable=None):
            if not _has_content(row):
                continue
            where = f"{path} line {reader.line_num}"
            if len(row) != len(header):
                raise UserError(f"{where}: {len(row)} columns, expected {len(header)} ({_shown_names(header)}).")
            if min_rating is not None and _rating(row[columns["rating"]], where) < min_rating:
                continue
            question, answer = (
                _fitted(row[columns[name]], length) if name in columns else "" for name in ("question", "answer")
            )
            for name, text in (("question", question), ("answer", answer)):
                if len(text) != length and (text or name == "question"):
                    raise UserError(
                        f"{where}: {name} of {len(text)} characters, expected {length}. {hint} It is {shown(text)}."
                    )
            questions += question.encode("ascii", errors="replace")
            answers += answer.encode("ascii", errors="replace") or bytes(length)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not CSV ({error}). Mend the row or leave it out.") from None
    if not lines:
        rated = ", only a header" if min_rating is None else f" with a rating of {min_rating} or more"
        raise UserError(f"{path} has no puzzle{rated}.")
    codes = [np.frombuffer(text, np.uint8).reshape(-1, length) for text in (questions, answers)]
    return QuestionAnswers(path, codes[0], codes[1], np.array(lines))


def read_split(source: str, split: Split, length: int, hint: str, min_rating: int | None = None) -> QuestionAnswers:
    """The puzzles of a split; see `find_csv` and `read_csv`. Training puzzles without an answer are left out.

    Raises:
        UserError: the file or one of its rows is malformed, or no training puzzle has an answer.
    """
    rows = read_csv(find_csv(source, split), length, hint, min_rating)
    kept, n = rows.answered, len(rows.lines)
    unanswered = n - np.count_nonzero(kept)
    if not unanswered:
        return rows
    if split == "test":
        notice(f"{rows.path}: {unanswered} of {n} test puzzles have no answer; they are predicted, but not scored")
        return rows
    if unanswered == n:
        raise UserError(
            f"{rows.path}: no puzzle has an answer, the first one without is on line {rows.lines[0]}. Training needs "
            "answers: fill the column 'answer'."
        )
    notice(f"{rows.path}: {unanswered} of {n} training puzzles have no answer and are left out")
    return QuestionAnswers(rows.path, rows.questions[kept], rows.answers[kept], rows.lines[kept])


def notice(text: str) -> None:
    """Print a note for the person who builds a data set, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _fitted(cell: str, length: int) -> str:
    """A cell without the white space around it, but with as much of it as belongs to its `length` characters."""
    stripped, extra = cell.strip(), len(cell) - length
    if not stripped or len(stripped) >= length:
        return stripped
    if extra > 0 and not cell[:extra].strip():
        return cell[extra:]  # a maze that begins with free cells
    if extra > 0 and not cell[length:].strip():
        return cell[:length]
    return cell


def _has_content(row: Sequence[str]) -> bool:
    return any(cell.strip() for cell in row)


def _shown_names(header: Sequence[str]) -> str:
    """The names of columns for a message, shortened in case that the first line is no header."""
    names = [shown(name.strip(), 30).strip("'") for name in header[:10]]
    return ",".join(names) + (",..." if len(header) > 10 else "")


def _find_columns(path: Path, header: Sequence[str], needs_rating: bool) -> dict[str, int]:
    """Name -> position of the known columns."""
    expected = f"Expected the header {','.join(HEADER)}, in any order; only question is always needed."
    if not header:
        raise UserError(f"{path} is empty. {expected}")
    names = [name.strip().casefold() for name in header]
    there = f"its first line names {_shown_names(header)}"
    if "question" not in names:
        separator = next((s for s in ";\t|" if any("question" in name and s in name for name in names)), None)
        separated = f" Is it separated by {separator!r}? Commas are expected." if separator else ""
        near = "" if separator else did_you_mean("question", names)
        raise UserError(f"{path} has no column 'question'; {there}.{separated}{near} {expected}")
    twice = [name for name in HEADER if names.count(name) > 1]
    if twice:
        raise UserError(f"{path} has the column {twice[0]!r} more than once; {there}. Leave out or rename the others.")
    if needs_rating and "rating" not in names:
        raise UserError(
            f"{path} has no column 'rating', which --min-difficulty needs; {there}. Add the column, or leave out "
            "--min-difficulty."
        )
    return {name: names.index(name) for name in HEADER if name in names}


def _rating(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: rating {shown(text)} is no whole number, which --min-difficulty needs.") from None


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
