"""A hundred malformed puzzles: each has a clear message and status 2, or a verdict that says what is wrong with it."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset.tasks.maze.task import Maze
from dataset.tasks.sudoku.task import Sudoku
from tests.evaluators.small_reasoners import write_run
from tests.tiny_recursive_model.running import run

RIGHT = {"sudoku": "1..4.41.2..3.32.", "maze": "S" + " " * 47 + "G", "arithmetic": "12+34", "arc": "[[1, 2], [3, 4]]"}
BY_TASK = {
    "sudoku": [
        "1", "1..4.41.2..3.32", "1..4.41.2..3.32..", "5..4.41.2..3.32.", "1..4.41.2..3.32x", "1..4.41.2..3.32\xe9",
        "\u4e00\u4e8c\u4e09\u56db" * 4, "1..4.41.2..3.32\x00", "." * 81, "1..4\n.41.\n2..3", "1..4\n.41\n2..3\n.32.",
        "1..4\n.41.5\n2..3\n.32.", "1..4/.41./2..3/.32.", "one two three four", "a" * 5000, "-1", "1..4.41.2..3.32.1",
        "\u0661" * 16, "\uff11" * 16, "0x1040104020030320",
    ],
    "maze": [
        " " * 49, "S" + " " * 48, " " * 48 + "G", "SS" + " " * 46 + "G", "S" + " " * 46 + "GG", "S" + " " * 46 + "G",
        "S" + " " * 48 + "G", "s" + " " * 47 + "g", "S" + "x" * 47 + "G", "S" + "o" * 47 + "G", "1234", "S  G\nS  G",
        "S\n\n\n\n\n\nG\n\n\nS", "#" * 49, "SG", "S" * 49, "S" + "\t" * 47 + "G", "S" + "\u2588" * 47 + "G",
        ("S" + " " * 29 + "\n") * 30, "0" * 900,
    ],
    "arithmetic": [
        "1+", "+1", "1", "1++2", "1-2", "1*2", "123+1", "1+123", "1+2+3", "1.5+2", "a+b", "1+2=3", "-1+2", "1 2+3",
        "1e1+1", "\u0661+\u0662", "99999999999999999999+1", "1+2;", "0x1+1", "one+two",
    ],
}  # fmt: skip
AS_JSON = {
    "sudoku": [
        [], {}, None, 5, True, [1], [[1]], [[1, 2, 3, 4]] * 3, [[1, 2, 3, 4]] * 5, [[9, 9, 9, 9]] * 4,
        [[1.5, 2, 3, 4]] * 4, [[-1, 0, 0, 0]] * 4, [["a", "b", "c", "d"]] * 4, [[[1]]], {"puzzle": "1"},
        [[True, 1, 1, 1]] * 4, ["1..4", ".41."],
    ],
    "arc": [
        {"train": [{"input": [[1]], "output": [[1]]}], "test": []}, "1234", 5, None,
        [[1, 10]], [[1], [1, 2]], [[0] * 31], {"train": [], "test": []}, {"train": [{"input": [[1]]}], "test": []},
        {"train": [{"input": [[1]], "output": [[1]]}], "test": [{"output": [[1]]}]}, [["1", "2"]], [[1.0]], [],
    ],
}  # fmt: skip
FILES = {
    "empty.txt": "", "empty.csv": "", "empty.json": "", "empty.jsonl": "", "blank.txt": "\n \n",
    "header.csv": "question\n",
    "columns.csv": "puzzle,answer\n1,2\n", "ragged.csv": "question,answer\n1..4.41.2..3.32.\n", "torn.json": '["1..4',
    "twice.json": '{"question": "1", "question": "2"}', "torn.jsonl": '{"question": "1..4.41.2..3.32."}\n{"ques',
    "quote.csv": 'question\n"1..4\n', "short.csv": "question\n1..4.41.2..3.32.\n1..4\n", "nan.json": "NaN",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {task: write_run(folder / task, task) for task in RIGHT}


def cases() -> list[tuple[str, str, str]]:
    """(task, name of the file or nothing for an argument, content)."""
    arguments = [(task, "", puzzle) for task, puzzles in BY_TASK.items() for puzzle in puzzles]
    values = [(task, "value.json", json.dumps(value)) for task, values in AS_JSON.items() for value in values]
    return [*arguments, *values, *(("sudoku", name, content) for name, content in FILES.items())]


def test_there_are_a_hundred():
    assert len(cases()) == len(set(cases())) >= 100


@pytest.mark.parametrize("task", RIGHT)
def test_a_right_puzzle_of_each_kind_is_answered(task: str, tmp_path: Path, models: dict[str, Path]):
    with pytest.MonkeyPatch.context() as patch:
        file = tmp_path / ("right.json" if task == "arc" else "right.txt")
        file.write_text(RIGHT[task])
        status, output, errors = run(patch, "predict", file, "--model", models[task], "--steps", 1, "--json")
    assert status in (0, 1), errors
    assert "answer" in json.loads(output)


@pytest.mark.parametrize("number", range(len(cases())))
def test_a_malformed_puzzle_has_a_message(
    number: int, tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    task, name, content = cases()[number]
    source = tmp_path / name if name else "-"
    if name:
        (tmp_path / name).write_text(content)
    status, output, errors = run(
        monkeypatch, "predict", source, "--model", models[task], "--steps", 1, "--json", stdin=content
    )
    assert status == 2, (content, output)
    assert output == ""
    assert errors.startswith("\nerror: ")
    assert "Traceback" not in errors
    assert 30 < len(errors) < 1200
    assert str(source if name else "standard input") in errors
    assert any(word in errors for word in ("Give", "Correct", "Mend", "Allowed", "Expected", "expected"))


def test_what_is_well_formed_and_has_no_solution_or_several_is_called_so(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    for puzzle, part in (
        ("11" + "." * 14, "it has no solution, because the digit 1 is in row 1 more than once"),
        ("1....1" + "." * 10, "it has no solution, because the digit 1 is in box 1 more than once"),
        ("123." + "...4" + "." * 8, "although no two of its clues contradict each other"),
    ):
        status, output, _ = run(monkeypatch, "predict", puzzle, "--model", models["sudoku"], "--json")
        line = json.loads(output)
        assert (status, line["verdict"]) == (1, "undecided")
        assert part in line["reason"]
    several = Sudoku(16, 6).encode("1" + "." * 15)
    verdict = Sudoku(16, 6).verify(several, several)
    assert (verdict.status, "the puzzle has several solutions" in verdict.reason) == ("wrong", True)
    closed = "S#" + " " * 5 + "#" + " " * 40 + "G"
    status, output, _ = run(monkeypatch, "predict", "-", "--model", models["maze"], "--json", stdin=closed)
    line = json.loads(output)
    assert (status, line["verdict"]) == (1, "undecided")
    assert "no path leads from S to G" in line["reason"]
    maze = Maze(49, 6).encode(closed)
    assert Maze(49, 6).solve(maze) is None
    assert np.count_nonzero(maze == 1) == 2
