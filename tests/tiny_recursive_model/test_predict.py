"""predict: puzzles from arguments, files and standard input, answers as text, CSV and JSON, and the exit status."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dataset.tasks.sudoku.task import Sudoku
from tests.evaluators.small_reasoners import write_run
from tests.evaluators.test_reasoner import EASY, SOLVED, Evil, malicious
from tests.tiny_recursive_model.running import run

SMALL = "1..4.41.2..3.32."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model for 4x4 Sudokus."""
    return write_run(tmp_path_factory.mktemp("models") / "sudoku", "sudoku")


def test_a_csv_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "puzzles.csv"
    task = Sudoku(81, 11)
    puzzles = [str(task.decode(task.random_question(np.random.default_rng(seed)))) for seed in range(3)]
    file.write_text("source,question,answer,rating\n" + "".join(f"x,{puzzle},,0\n" for puzzle in puzzles))
    status, output, _ = run(monkeypatch, "predict", file, "--json")
    lines = [json.loads(line) for line in output.splitlines()]
    assert status == 0
    assert [line["question"] for line in lines] == puzzles
    for line in lines:
        assert list(line)[:5] == ["question", "answer", "verdict", "steps", "seconds"]
        assert line["verdict"] == "solved"
        solution = task.solve(task.encode(line["question"]))
        assert solution is not None
        assert line["answer"] == task.decode(solution)
        assert (line["steps"] == 0) == line["reason"].endswith("the rules alone led to it")
        assert line["seconds"] > 0


def test_the_exit_status_tells_solved_from_unsolved(monkeypatch: pytest.MonkeyPatch, model: Path):
    assert run(monkeypatch, "predict", EASY)[0] == 0
    assert run(monkeypatch, "predict", "55" + "." * 79)[0] == 1
    assert run(monkeypatch, "predict", EASY, "55" + "." * 79)[0] == 1
    assert run(monkeypatch, "predict", SMALL, "--model", model)[0] == 1
    assert run(monkeypatch, "predict", "123")[0] == 2
    assert run(monkeypatch, "predict", "--modle", "x")[0] == 2
    assert run(monkeypatch, "predikt")[0] == 2
    assert run(monkeypatch)[0] == 0


def test_only_a_model_for_the_named_task_answers(monkeypatch: pytest.MonkeyPatch):
    """A 6x6 Sudoku fits a shipped model; as another task it is refused, with the models that there are."""
    puzzle = "." * 36
    status, output, errors = run(monkeypatch, "predict", puzzle, "--task", "arc")
    assert (status, output) == (2, "")
    assert "none of the models in weights/ takes it" in errors
    assert "sudoku_6x6 is a model for sudoku, not for arc." in errors
    assert "with --task arc: none" in errors
    status, output, errors = run(monkeypatch, "predict", puzzle, "--task", "arc", "--model", "sudoku_6x6")
    assert (status, output) == (2, "")
    assert "sudoku_6x6 is a model for sudoku, not for arc." in errors
    status, output, _ = run(monkeypatch, "predict", puzzle, "--task", "sudoku", "--json", "--restarts", 1)
    assert len(json.loads(output)["answer"]) == 36


def test_nothing_to_check_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    arc = write_run(tmp_path / "arc", "arc", rows=3, puzzle_emb_ndim=16, puzzle_emb_len=1)
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    file = tmp_path / "first.json"
    file.write_text(json.dumps({"train": [pair], "test": [{"input": [[3, 4]]}, {"input": [[5]]}]}))
    status, output, _ = run(monkeypatch, "predict", file, "--model", arc, "--format", "arc", "--steps", 2)
    assert status == 0
    submission = json.loads(output)
    assert list(submission) == ["first"]
    assert [sorted(attempts) for attempts in submission["first"]] == [["attempt_1", "attempt_2"]] * 2
    status, output, _ = run(monkeypatch, "predict", file, "--model", arc, "--json", "--steps", 2)
    assert status == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert [(line["name"], line["question"], line["verdict"]) for line in lines] == [
        ("first", [[3, 4]], "undecided"),
        ("first", [[5]], "undecided"),
    ]
    file.rename(tmp_path / "other.json")
    status, _, errors = run(monkeypatch, "predict", tmp_path / "other.json", "--model", arc)
    assert status == 2
    assert "'other'" in errors
    assert "experiment=arc_adapt load_checkpoint=" in errors
    assert run(monkeypatch, "predict", tmp_path / "other.json", "--model", arc, "--name", "first", "--steps", 1)[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.txt", SMALL, 1),
        ("a.txt", f"{SMALL}\n{SMALL}\n", 2),
        ("a.txt", "1..4\n.41.\n2..3\n.32.\n", 1),
        ("a.txt", "1..4\n.41.\n2..3\n.32.\n\n1..4\n.41.\n2..3\n.32.\n", 2),
        ("a.json", json.dumps(SMALL), 1),
        ("a.json", json.dumps([SMALL, SMALL]), 2),
        ("a.json", json.dumps([[1, 0, 0, 4], [0, 4, 1, 0], [2, 0, 0, 3], [0, 3, 2, 0]]), 1),
        ("a.json", json.dumps([[[1, 0, 0, 4], [0, 4, 1, 0], [2, 0, 0, 3], [0, 3, 2, 0]]] * 3), 3),
        ("a.json", json.dumps({"question": SMALL}), 1),
        ("a.json", json.dumps([{"question": SMALL}, {"question": SMALL}]), 2),
        ("a.json", json.dumps(["1..4", ".41.", "2..3", ".32."]), 1),
        ("a.jsonl", f'{{"question": "{SMALL}"}}\n\n"{SMALL}"\n', 2),
        ("a.csv", f"Question\n{SMALL}\n", 1),
    ],
)
def test_all_forms_of_input(
    name: str, content: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
):
    file = tmp_path / name
    file.write_text(content)
    _, output, errors = run(monkeypatch, "predict", file, "--model", model, "--json", "--steps", 1)
    lines = [json.loads(line) for line in output.splitlines()]
    assert len(lines) == count, errors
    assert {line["question"].replace("2..3.", "2..3.") for line in lines} == {"1..4.41.2..3.32."}


def test_the_other_forms_of_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path):
    options = ("--model", model, "--steps", 4, "--no-early-halting")
    _, output, _ = run(monkeypatch, "predict", "-", "--json", "--top", 3, "--all-steps", *options, stdin=SMALL)
    line = json.loads(output)
    assert line["steps"] == len(line["step_answers"]) == 4
    assert line["top"][0]["answer"] == line["answer"] == line["step_answers"][-1]
    assert 1 <= len(line["top"]) <= 3
    file = tmp_path / "new" / "out.csv"
    status, output, _ = run(monkeypatch, "predict", SMALL, "--output", file, *options)
    assert output == ""
    (row,) = csv.DictReader(file.read_text().splitlines())
    assert row["answer"] == line["answer"]
    assert (row["question"], row["verdict"], status) == (SMALL, "wrong", 1)
    _, output, _ = run(monkeypatch, "predict", SMALL, "--top", 2, "--all-steps", *options)
    assert "question" in output
    assert "wrong: " in output
    assert output.count("answer 2, halting probability") == min(1, len(line["top"]) - 1)
    assert "\x1b" not in output
    assert run(monkeypatch, "predict", SMALL, "--json", "--format", "csv", *options)[0] == 2
    assert run(monkeypatch, "predict", SMALL, "--top", 0, *options)[0] == 2


def test_the_answer_of_the_shipped_model(monkeypatch: pytest.MonkeyPatch):
    _, output, _ = run(monkeypatch, "predict", "--format", "csv", stdin=EASY)
    assert output.splitlines()[0] == "question,answer,verdict,steps,seconds"
    assert output.splitlines()[1].startswith(f"{EASY},{SOLVED},solved,")


def test_a_malicious_model_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trace = tmp_path / "trace"
    assert Evil(trace).__reduce__()[1] == (trace,)
    for path in malicious(tmp_path / "evil", trace):
        for command in (["predict", EASY], ["demo"], ["demo", EASY]):
            status, _, errors = run(monkeypatch, *command, "--model", path)
            assert status == 2
            assert "Traceback" not in errors
            assert not trace.exists()
