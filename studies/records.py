"""What is known of the runs of a study: one small file for each, written when it begins and when it has ended.

    FOLDER/runs/ARM/BUDGET-seed_N/        the run folder
    FOLDER/runs/ARM/BUDGET-seed_N.json    its record: what it computes and, once it has ended, its row of raw numbers
    FOLDER/runs/ARM/BUDGET-seed_N.txt     what it has printed
    FOLDER/runs.jsonl                     the rows of all runs that have ended

The records suffice for the table: run folders may be removed. So does runs.jsonl for runs without a record.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from studies.plan import PlannedRun
from studies.study_file import Budget
from utils.atomic_file import write_json, write_text
from utils.config import validate
from utils.errors import DamagedFileError, UserError
from utils.settings import Settings
from utils.text_checksum import check_values, with_checksum
from utils.text_files import read_json

ROWS = "runs.jsonl"


class Row(Settings):
    """The raw numbers of a run that has ended."""

    arm: str
    """The experiment."""
    seed: int
    """Its seed."""
    budgets: list[Budget]
    """For which of the study's budgets the run counts."""
    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch_size: int = Field(ge=1)
    """Examples of a step."""
    parameters: int
    """Trained scalars, without a puzzle embedding."""
    training_flops: int
    """Floating-point operations of the whole training."""
    pass_flops: int
    """Floating-point operations of one ACT step of one puzzle in evaluation."""
    passes: int
    """ACT steps of each puzzle in evaluation."""
    puzzles: int = Field(ge=1)
    """Number of puzzles with a label in the evaluation."""
    puzzles_digest: str
    """A digest of them, by which runs with other puzzles are noticed."""
    right: str
    """Which puzzles were answered correctly after the last pass, as packed bits in hexadecimal."""
    exact_accuracy: float
    """Share of them."""
    cell_accuracy: float
    """Mean share of right cells."""
    exact_accuracy_after_pass: list[float] = Field(min_length=1)
    """Share of right puzzles after each pass."""
    seconds: float | None = None
    """Seconds of the training steps alone, if they were logged."""

    @model_validator(mode="after")
    def _answers_fit(self) -> "Row":
        right = self.answers()
        if len(right) != self.puzzles or abs(right.mean() - self.exact_accuracy) > 1e-6:
            raise ValueError("right: the answers do not have the accuracy that is given")
        return self

    def answers(self) -> np.ndarray:
        """Which puzzles were answered correctly, bool [puzzles]."""
        return unpack(self.right, self.puzzles)


def pack(right: np.ndarray) -> str:
    """Truth values as hexadecimal digits."""
    return np.packbits(right).tobytes().hex()


def unpack(text: str, count: int) -> np.ndarray:
    """The `count` truth values of `pack`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)


class Records:
    """The records in the folder of a study."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run_folder(self, run: PlannedRun) -> Path:
        """Where the run writes."""
        return self.folder / "runs" / run.name

    def output(self, run: PlannedRun) -> Path:
        """The file of what the run prints."""
        return self.folder / "runs" / f"{run.name}.txt"

    def _path(self, run: PlannedRun) -> Path:
        return self.folder / "runs" / f"{run.name}.json"

    def begin(self, run: PlannedRun) -> None:
        """Note what the run computes."""
        self._write(run, None)

    def finish(self, run: PlannedRun, row: Row) -> None:
        """Note what the run has given."""
        self._write(run, row)

    def _write(self, run: PlannedRun, row: Row | None) -> None:
        path = self._path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, with_checksum({"config": run.config, "row": None if row is None else row.model_dump()}))

    def config(self, run: PlannedRun) -> dict[str, Any] | None:
        """What the run computed when it began; None if it has not begun.

        Raises:
            DamagedFileError: the record is damaged.
        """
        return self._read(run)["config"] if self._path(run).exists() else None

    def row(self, run: PlannedRun) -> Row | None:
        """The numbers of the run; None if it has not ended.

        Raises:
            DamagedFileError: the record is damaged.
        """
        if not self._path(run).exists():
            return None
        row = self._read(run)["row"]
        return None if row is None else _row(row, self._path(run))

    def _read(self, run: PlannedRun) -> dict[str, Any]:
        path = self._path(run)
        try:
            content = check_values(read_json(path), path)
            if not isinstance(content["config"], dict) or "row" not in content:
                raise KeyError
        except (UserError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"{path} is damaged ({str(error) or 'it is no record of a run'}).") from None
        return content

    def rows_file(self) -> list[Row]:
        """The rows of runs.jsonl; none if there is no such file.

        Raises:
            UserError: a line is damaged.
        """
        path = self.folder / ROWS
        if not path.exists():
            return []
        rows: list[Row] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                values = json.loads(line)
            except ValueError as error:
                raise DamagedFileError(f"{path}: line {number} is damaged ({error}). Remove the line.") from None
            rows.append(_row(values, path, f"line {number}"))
        return rows

    def rows_of(self, runs: Sequence[PlannedRun], say: Callable[[str], None]) -> list[Row]:
        """The numbers of those runs that have ended; of runs without a record as they are in runs.jsonl.

        Damaged records are said, and count as missing.

        Raises:
            UserError: a line of runs.jsonl is damaged.
        """
        kept, rows = self.rows_file(), list[Row]()
        for run in runs:
            try:
                row = self.row(run)
            except DamagedFileError as error:
                say(f"{run.name}: {error} Start the study again to mend it.")
                row = None
            if row is None:
                key = run.arm, run.seed
                row = next((one for one in kept if (one.arm, one.seed) == key and run.budgets[0] in one.budgets), None)
            if row is not None and run.costs is not None:
                row = row.model_copy(update={"budgets": list(run.budgets)})  # the study may have got another since
            if row is not None and row not in rows:
                rows.append(row)
        return rows

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write runs.jsonl."""
        write_text(self.folder / ROWS, "".join(json.dumps(row.model_dump()) + "\n" for row in rows))


def _row(values: Any, path: Path, where: str = "its row") -> Row:
    try:
        return validate(Row, values)
    except (UserError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path}: {where} is damaged ({error}).") from None


def check_unchanged(records: Records, runs: Sequence[PlannedRun]) -> None:
    """Compare what runs computed that have begun with what the study would have them compute now.

    Damaged records are left to the caller.

    Raises:
        UserError: they differ, with what differs.
    """
    lines: dict[str, list[str]] = {}
    for run in runs:
        try:
            before = records.config(run)
        except DamagedFileError:
            continue
        for line in differences(before or {}, run.config):
            lines.setdefault(line, []).append(run.name)
    if not lines:
        return
    shown = [
        f"  {line} ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"
        for line, names in lines.items()
    ]
    raise UserError(
        f"the study has changed since runs in {records.folder} were begun:\n"
        + "\n".join(shown)
        + "\nUndo the change, or give another folder with --folder. New arms and new seeds may be added."
    )


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: a before, b now` of each key that both have, with different values; nested keys are joined by dots."""
    found: list[str] = []
    for key in sorted(before.keys() & now.keys()):
        one, other = before[key], now[key]
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}: {json.dumps(one)} before, {json.dumps(other)} now")
    return found
