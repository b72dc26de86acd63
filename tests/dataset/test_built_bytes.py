"""Every builder writes the bytes that it has always written: digests of small data sets."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset.tasks.arc.build import Config as ArcConfig
from dataset.tasks.arc.build import build as build_arc
from dataset.tasks.arithmetic.build import Config as ArithmeticConfig
from dataset.tasks.arithmetic.build import build as build_arithmetic
from dataset.tasks.maze.build import Config as MazeConfig
from dataset.tasks.maze.build import build as build_maze
from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.paths import label_mazes
from dataset.tasks.maze.rules import CHARACTERS
from dataset.tasks.sudoku.build import Config as SudokuConfig
from dataset.tasks.sudoku.build import build as build_sudoku
from tests.runs import ROOT

GOLDEN = ROOT / "tests" / "golden" / "data_sets.json"


def digest(folder: Path) -> str:
    """The SHA-256 of all files of a folder, with their names."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def write_sudokus(folder: Path) -> None:
    """CSV files of 4x4 Sudokus, no two of them equivalent."""
    solution = "1234341221434321"
    rows = ["." * cells + solution[cells:] for cells in range(9)]
    for split, part in (("train", rows[:6]), ("test", rows[6:])):
        lines = [f"{split},{row},{solution},{number}" for number, row in enumerate(part)]
        (folder / f"{split}.csv").write_text("\n".join(["source,question,answer,rating", *lines]) + "\n")


def write_mazes(folder: Path) -> None:
    mazes = np.array(list(generate_mazes(7, 6, 6, np.random.default_rng(5), min_path=6)))
    characters = np.array(list(" " + CHARACTERS))
    texts = [["".join(characters[grid.ravel()]) for grid in grids] for grids in (mazes, label_mazes(mazes))]
    rows = list(zip(*texts, strict=True))
    for split, part in (("train", rows[:5]), ("test", rows[5:])):
        lines = [f"{split},{question},{answer},1" for question, answer in part]
        (folder / f"{split}.csv").write_text("\n".join(["source,question,answer,rating", *lines]) + "\n")


def write_arc(folder: Path) -> str:
    rng = np.random.default_rng(3)

    def pair(side: int) -> dict[str, list[list[int]]]:
        return {name: rng.integers(0, 10, (side, side + 1)).tolist() for name in ("input", "output")}

    for subset, names in (("learn", "abc"), ("held", "xy")):
        tasks = {f"{name}0": {"train": [pair(3), pair(4)], "test": [pair(5)]} for name in names}
        challenges = {
            name: {"train": task["train"], "test": [{"input": example["input"]} for example in task["test"]]}
            for name, task in tasks.items()
        }
        solutions = {name: [example["output"] for example in task["test"]] for name, task in tasks.items()}
        (folder / f"arc_{subset}_challenges.json").write_text(json.dumps(challenges))
        (folder / f"arc_{subset}_solutions.json").write_text(json.dumps(solutions))
    return str(folder / "arc")


def sudoku_from_files(folder: Path, out: Path) -> None:
    write_sudokus(folder)
    build_sudoku(SudokuConfig(output_dir=str(out), source=str(folder), box="2x2", num_aug=3, subsample_size=4, seed=1))


def maze_from_files(folder: Path, out: Path) -> None:
    write_mazes(folder)
    build_maze(MazeConfig(output_dir=str(out), source=str(folder), height=6, width=6, aug=True, seed=1))


def arc(folder: Path, out: Path) -> None:
    prefix = write_arc(folder)
    subsets = ["learn", "held"]
    build_arc(
        ArcConfig(input_file_prefix=prefix, output_dir=out, subsets=subsets, test_set_name="held", num_aug=6, seed=1)
    )


BUILDS: dict[str, Callable[[Path, Path], None]] = {
    "sudoku_generated": lambda folder, out: build_sudoku(
        SudokuConfig(output_dir=str(out), generate=12, test_size=4, box="2x3", min_clues=14, num_aug=2)
    ),
    "sudoku_from_files": sudoku_from_files,
    "maze_generated": lambda folder, out: build_maze(
        MazeConfig(output_dir=str(out), generate=12, test_size=4, height=7, width=9)
    ),
    "maze_perfect": lambda folder, out: build_maze(
        MazeConfig(output_dir=str(out), generate=6, test_size=2, height=9, width=9, perfect=True)
    ),
    "maze_from_files": maze_from_files,
    "arithmetic": lambda folder, out: build_arithmetic(
        ArithmeticConfig(output_dir=str(out), digits=3, train_size=40, test_size=10, seed=2)
    ),
    "arc": arc,
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_built_data_set_has_its_golden_digest(tmp_path: Path, name: str):
    (tmp_path / "source").mkdir()
    BUILDS[name](tmp_path / "source", tmp_path / "out")
    assert digest(tmp_path / "out") == json.loads(GOLDEN.read_text())[name]
