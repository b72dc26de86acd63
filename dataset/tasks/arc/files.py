"""Reading and checking ARC tasks, from Kaggle's pairs of files or from folders with one file per task."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.shards import BLANK_IDENTIFIER
from dataset.tasks.arc.augmentation import SEPARATOR
from dataset.tasks.arc.field import MAX_SIDE, NUM_COLOURS
from utils.errors import UserError, did_you_mean
from utils.file_names import safe_name
from utils.text_files import read_json, shown, visible

PARTS = ("train", "test")
MEND = "Fetch or correct the file."


@dataclass(frozen=True)
class Pair:
    """Grids of colours, uint8 [height, width]; `output` is None if the solution is not known."""

    input: np.ndarray
    output: np.ndarray | None


@dataclass(frozen=True)
class ArcTask:
    """A task; `parts` has "train" and "test", in the order in which its JSON lists them."""

    name: str
    parts: dict[str, list[Pair]]

    def to_json(self) -> dict[str, list[dict[str, list[list[int]]]]]:
        """The published format, with solutions: part -> list of {"input": rows, "output": rows}."""
        return {
            part: [
                {"input": pair.input.tolist()} | ({} if pair.output is None else {"output": pair.output.tolist()})
                for pair in pairs
            ]
            for part, pairs in self.parts.items()
        }


def read_subset(prefix: str, subset: str) -> list[ArcTask]:
    """The tasks of one subset, in the order of the file, or sorted by name if read from a folder.

    Reads `{prefix}/{subset}/*.json` if that folder exists, else `{prefix}_{subset}_challenges.json` and
    `{prefix}_{subset}_solutions.json`. Without solutions, the outputs of the test pairs are None.

    Raises:
        UserError: a file is missing or not JSON, or a task is malformed; the message names the file and the task.
    """
    folder = Path(prefix) / subset
    if folder.is_dir():
        tasks = [parse_task(file.stem, read_json(file, MEND), str(file)) for file in visible(folder.glob("*.json"))]
        source = str(folder / "*.json")
    else:
        challenges, solutions = (Path(f"{prefix}_{subset}_{kind}.json") for kind in ("challenges", "solutions"))
        if not challenges.exists():
            raise _no_such_subset(prefix, subset)
        tasks = _read_kaggle(challenges, solutions)
        source = str(challenges)
    if not tasks:
        raise UserError(f"{source}: no tasks. Give a subset that has some.")
    return tasks


def parse_task(name: str, value: object, source: str, solutions: list[Any] | None = None) -> ArcTask:
    """Check and convert one task read from JSON.

    Args:
        name: the id of the task.
        value: the JSON value of the task.
        source: the file of the task, for messages.
        solutions: the outputs of the test pairs, in order, if they come from a separate file.

    Raises:
        UserError: the task is malformed, or `solutions` does not fit it.
    """
    where = f"{source}, task {shown(name)}"
    if not name or SEPARATOR in name or name == BLANK_IDENTIFIER:
        raise UserError(f"{where}: a task id must not be empty, {BLANK_IDENTIFIER!r} or hold {SEPARATOR!r}. Rename it.")
    safe_name(name, f"{where}: its id")  # pictures of its attempts are called after it
    if not isinstance(value, Mapping) or not all(isinstance(value.get(part), list) for part in PARTS):
        raise UserError(f"{where}: expected an object with the lists 'train' and 'test'. Correct the file.")
    parts = {
        part: [_parse_pair(pair, f"{where}, {part} pair {index}", part == "train") for index, pair in enumerate(pairs)]
        for part, pairs in value.items()
        if part in PARTS
    }
    if not parts["train"]:
        raise UserError(f"{where}: no train pairs, so nothing shows what to do. Correct the file, or leave it out.")
    if solutions is not None:
        parts["test"] = _merge(parts["test"], solutions, where)
    return ArcTask(name, parts)


def parse_grid(value: object, where: str) -> np.ndarray:
    """Check a grid read from JSON and convert it to uint8 [height, width]; `where` is its place, for messages.

    Raises:
        UserError: the grid does not have 1..30 rows of equal length 1..30 with colours 0..9.
    """
    if isinstance(value, str) or (isinstance(value, list) and any(isinstance(row, str) for row in value)):
        raise _bad_grid(where, f"text {shown(value, 40)}, not lists of numbers")
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        raise _bad_grid(where, "empty, or not a list of rows")
    lengths = {len(row) for row in value}
    if len(lengths) > 1:
        raise _bad_grid(where, f"ragged, rows of {' and '.join(map(str, sorted(lengths)))} cells")
    if len(value) > MAX_SIDE or len(value[0]) > MAX_SIDE:
        raise _bad_grid(where, f"{len(value)}x{len(value[0])}, larger than {MAX_SIDE}x{MAX_SIDE}")
    for row in value:
        for cell in row:
            if type(cell) is not int or not 0 <= cell < NUM_COLOURS:
                raise _bad_grid(where, f"cell {shown(cell)} is no colour")
    return np.array(value, dtype=np.uint8)


def _bad_grid(where: str, what: str) -> UserError:
    return UserError(
        f"{where}: {what}. A grid has 1..{MAX_SIDE} rows of equally many (1..{MAX_SIDE}) colours 0..9. "
        "Correct the file."
    )


def _parse_pair(value: object, where: str, needs_output: bool) -> Pair:
    if not isinstance(value, Mapping) or "input" not in value:
        raise UserError(f"{where}: expected an object with 'input' and 'output'. Correct the file.")
    output = value.get("output")
    if output is None and needs_output:
        raise UserError(f"{where}: no 'output'. Only test pairs may lack it. Correct the file.")
    grid = parse_grid(value["input"], f"{where}, input")
    return Pair(grid, None if output is None else parse_grid(output, f"{where}, output"))


def _merge(pairs: list[Pair], solutions: list[Any], where: str) -> list[Pair]:
    if not isinstance(solutions, list) or len(solutions) != len(pairs):
        given = len(solutions) if isinstance(solutions, list) else type(solutions).__name__
        raise UserError(
            f"{where}: {given} solutions for {len(pairs)} test inputs. "
            "Challenges and solutions must be of one release: fetch both again."
        )
    merged = []
    for index, (pair, solution) in enumerate(zip(pairs, solutions, strict=True)):
        output = parse_grid(solution, f"{where}, solution {index}")
        if pair.output is not None and not np.array_equal(pair.output, output):
            raise UserError(f"{where}: test pair {index} has another output than its solution. Remove one of the two.")
        merged.append(Pair(pair.input, output))
    return merged


def _read_kaggle(challenges: Path, solutions: Path) -> list[ArcTask]:
    tasks = read_json(challenges, MEND)
    if not isinstance(tasks, dict):
        raise UserError(f"{challenges}: expected an object, task id -> task. Correct the file.")
    if not solutions.exists():
        return [parse_task(name, task, str(challenges)) for name, task in tasks.items()]
    outputs = read_json(solutions, MEND)
    if not isinstance(outputs, dict):
        raise UserError(f"{solutions}: expected an object, task id -> list of grids. Correct the file.")
    missing = [name for name in tasks if name not in outputs]
    if missing:
        raise UserError(
            f"{solutions}: no solutions for {len(missing)} of the {len(tasks)} tasks of {challenges.name} "
            f"({', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}). "
            "Challenges and solutions must be of one release: fetch both again, or remove the solutions."
        )
    return [
        parse_task(name, task, f"{challenges} with {solutions.name}", outputs[name]) for name, task in tasks.items()
    ]


def _no_such_subset(prefix: str, subset: str) -> UserError:
    there = {
        path.name.removeprefix(f"{Path(prefix).name}_").removesuffix("_challenges.json")
        for path in visible(Path(prefix).parent.glob(f"{Path(prefix).name}_*_challenges.json"))
    }
    if Path(prefix).is_dir():
        there |= {path.name for path in visible(Path(prefix).iterdir()) if path.is_dir()}
    found = f"There are: {', '.join(sorted(there))}." if there else "There are no subsets under that prefix."
    return UserError(
        f"subset {subset!r}: neither {prefix}_{subset}_challenges.json nor a folder {Path(prefix) / subset} exists. "
        f"{found}{did_you_mean(subset, there)} Correct --input-file-prefix or --subsets."
    )
