"""Reading puzzles from arguments, files and standard input: as text, CSV, JSON and lines of JSON."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.tasks.puzzle import Question
from dataset.tasks.task import Task
from utils.errors import UserError, did_you_mean
from utils.text_files import read_json, read_lines, read_text, shown

STDIN = "-"
_COLUMN = "question"


@dataclass(frozen=True)
class Piece:
    """One puzzle as it was given.

    Attributes:
        puzzle: the puzzle, in a form that `Task.questions` reads.
        where: its place, for messages.
        name: its name, if it has one.
    """

    puzzle: Any
    where: str
    name: str | None = None


@dataclass(frozen=True)
class Text:
    """A text that holds one puzzle or several; how many depends on the task."""

    content: str
    where: str


Given = Piece | Text


def read_puzzles(sources: Sequence[str]) -> list[Given]:
    """What the sources hold.

    Args:
        sources: each a file (.csv, .json, .jsonl, others as text), `-` for standard input, or a puzzle itself.

    Raises:
        UserError: a file cannot be read or is empty, or there is nothing.
    """
    found: list[Given] = []
    for source in sources:
        if source == STDIN:
            found.append(_checked(Text(sys.stdin.read(), "standard input")))
        elif _is_file(source):
            found += _read_file(Path(source))
        elif Path(source).suffix in (".csv", ".json", ".jsonl", ".txt"):
            raise UserError(f"{source} does not exist (from {Path.cwd()}). Correct the path.")
        else:
            found.append(_checked(Text(source, "the argument")))
    if not found:
        raise UserError("no puzzle was given. Give one as an argument, in a file, or on standard input (-).")
    return found


def questions_of(given: Sequence[Given], task: Task) -> list[Question]:
    """The questions that were given, for a task.

    Raises:
        UserError: one of them is no question of the task; the message says where it is.
    """
    return [question for piece in _pieces(given, task) for question in _questions(piece, task)]


def _questions(piece: Piece, task: Task) -> list[Question]:
    try:
        return task.questions(piece.puzzle, piece.name)
    except UserError as error:
        raise UserError(f"{piece.where}: {error}") from None


def _pieces(given: Sequence[Given], task: Task) -> Iterator[Piece]:
    for item in given:
        if isinstance(item, Piece) and isinstance(item.puzzle, list) and task.is_batch(item.puzzle):
            for number, puzzle in enumerate(item.puzzle, start=1):
                yield Piece(puzzle, f"{item.where}, number {number}", item.name)
        elif isinstance(item, Piece):
            yield item
        else:
            yield from _split(item, task)


def _split(text: Text, task: Task) -> list[Piece]:
    """The puzzles of a text: the whole, its blocks between empty lines, or its lines, whatever fits first."""
    lines = [(number, line) for number, line in enumerate(text.content.splitlines(), start=1)]
    whole = [Piece(text.content, text.where)]
    blocks: list[Piece] = []
    start: int | None = None
    for number, line in [*lines, (len(lines) + 1, "")]:
        if line and start is None:
            start = number
        elif not line and start is not None:
            content = "\n".join(text.content.splitlines()[start - 1 : number - 1])
            blocks.append(Piece(content, f"{text.where} line {start}"))
            start = None
    single = [Piece(line, f"{text.where} line {number}") for number, line in lines if line.strip()]
    for pieces in (whole, blocks, single):
        if any(_fits(piece, task) for piece in pieces):
            return pieces
    return whole if len(single) != 1 else [Piece(single[0].puzzle, text.where)]


def _fits(piece: Piece, task: Task) -> bool:
    try:
        return bool(task.questions(piece.puzzle, piece.name))
    except UserError:
        return False


def _checked(text: Text) -> Text:
    if not text.content.strip():
        raise UserError(f"{text.where} is empty: a puzzle is expected. Give one.")
    return text


def _is_file(source: str) -> bool:
    try:
        return Path(source).exists()
    except (OSError, ValueError):  # too long for a name, or with characters that no name has
        return False


def _read_file(path: Path) -> list[Given]:
    readers: dict[str, Callable[[Path], list[Given]]] = {".csv": _read_csv, ".json": _read_json, ".jsonl": _read_jsonl}
    if path.suffix in readers:
        return readers[path.suffix](path)
    return [_checked(Text(read_text(path, advice="Give a file of puzzles."), str(path)))]


def _read_csv(path: Path) -> list[Given]:
    """The column `question`; an `id` or `name` beside it is not needed."""
    reader = csv.reader(read_lines(path, advice="Give a CSV file."), strict=True)
    found: list[Given] = []
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        if not any(header):
            raise UserError(f"{path} is empty. A column {_COLUMN!r} is expected.")
        if _COLUMN not in header:
            raise UserError(
                f"{path} has no column {_COLUMN!r}; its first line names {', '.join(map(shown, header[:8]))}."
                f"{did_you_mean(_COLUMN, header)} Give the column with the puzzles this name."
            )
        column = header.index(_COLUMN)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{path} line {reader.line_num}: {len(row)} columns, expected {len(header)}. Correct the row."
                )
            found.append(Piece(row[column], f"{path} line {reader.line_num}"))
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not CSV ({error}). Correct the row.") from None
    if not found:
        raise UserError(f"{path} has no puzzle, only a header. Give a file with puzzles.")
    return found


def _read_json(path: Path) -> list[Given]:
    return _pieces_of_json(read_json(path, "Correct the file."), str(path), path.stem)


def _read_jsonl(path: Path) -> list[Given]:
    found: list[Given] = []
    for number, line in enumerate(read_lines(path, advice="Give lines of JSON."), start=1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                found += _pieces_of_json(json.loads(line), where, None)
            except (ValueError, RecursionError) as error:
                if isinstance(error, UserError):
                    raise
                raise UserError(f"{where}: not JSON ({error}). Correct the line.") from None
    if not found:
        raise UserError(f"{path} is empty: lines of JSON are expected. Give a file with puzzles.")
    return found


def _pieces_of_json(value: Any, where: str, name: str | None) -> list[Given]:
    """A puzzle, an object with `question`, a task with `train` and `test`, or several of these."""
    if isinstance(value, Mapping):
        if _COLUMN in value:
            return [Piece(value[_COLUMN], where, _name_in(value))]
        if "train" in value and "test" in value:
            return [Piece(value, where, _name_in(value) or name)]
        if value and all(isinstance(item, Mapping) for item in value.values()):  # the challenges of a competition
            return [Piece(item, f"{where}, {shown(key)}", str(key)) for key, item in value.items()]
        raise UserError(
            f"{where}: an object with the keys {shown(list(value))}. Expected is {_COLUMN!r}, or 'train' and 'test'. "
            "Correct it."
        )
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [
            piece
            for number, item in enumerate(value, start=1)
            for piece in _pieces_of_json(item, f"{where}, number {number}", None)
        ]
    if isinstance(value, str | list) and value:
        return [Piece(value, where, name)]
    raise UserError(f"{where}: {shown(value)} is no puzzle. Give a text, a grid, or an object with {_COLUMN!r}.")


def _name_in(value: Mapping[str, Any]) -> str | None:
    name = value.get("name")
    return name if isinstance(name, str) else None
