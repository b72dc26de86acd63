"""demo: a model at work in the terminal."""

import io
import re
from itertools import pairwise
from pathlib import Path

import pytest

from evaluators.loading import load
from tests.evaluators.small_reasoners import write_run
from tests.evaluators.test_reasoner import EASY, SOLVED
from tests.tiny_recursive_model.running import run
from tiny_recursive_model import demo


def digits(text: str) -> str:
    return "".join(re.findall(r"[0-9.]", text))


def test_a_random_sudoku_is_solved(monkeypatch: pytest.MonkeyPatch):
    status, output, _ = run(monkeypatch, "demo", "--seed", 1)
    assert status == 0
    assert output.startswith("model: sudoku_search, <Reasoner LatticeDeductionTransformer for sudoku")
    assert "\x1b" not in output
    assert "\nsolved: every row, column and box has each digit once" in output
    assert run(monkeypatch, "demo", "--seed", 1)[1].split("(")[0] == output.split("(")[0]
    assert run(monkeypatch, "demo", "--seed", 2)[1].split("(")[0] != output.split("(")[0]


def test_a_puzzle_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "mine.txt"
    file.write_text("\n".join(EASY[row * 9 : row * 9 + 9] for row in range(9)))
    for arguments, stdin in (([EASY], ""), ([file], ""), (["-"], EASY)):
        status, output, _ = run(monkeypatch, "demo", *arguments, stdin=stdin)
        assert status == 0
        rows = [line for line in output.splitlines() if line.startswith("| ")]
        assert "".join(digits(row)[9:] for row in rows) == SOLVED
        assert "".join(digits(row)[:9] for row in rows) == EASY
    status, output, _ = run(monkeypatch, "demo", "55" + "." * 79)
    assert status == 1
    assert "undecided: it has no solution, because the digit 5 is in row 1 more than once" in output
    assert "solved" not in output


@pytest.mark.parametrize("task", ["sudoku", "maze", "arithmetic"])
def test_every_kind_of_board_changes_cell_by_cell(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = write_run(tmp_path / "run", task)
    status, output, _ = run(monkeypatch, "demo", "--model", path, "--task", task, "--seed", 0)
    assert status in (0, 1)
    assert "question" in output
    reasoner = load(path, "cpu")
    puzzle = {"sudoku": "1..4.41.2..3.32.", "maze": "S" + " " * 47 + "G", "arithmetic": "12+34"}[task]
    answer = reasoner.solve(puzzle, steps=3, halting=None)
    frames = list(demo._frames(answer))
    last = frames[-1]
    for before, after in pairwise(frames):
        if before.tokens.shape == after.tokens.shape:
            assert ((before.tokens != after.tokens) | (before.status != after.status)).sum() <= 1
    assert len(frames) >= 4
    demo._play(answer, delay=0)
    drawn = capsys.readouterr().out
    assert drawn.count("\x1b[J") == len(frames) - 1
    assert last.name in drawn


def test_on_a_terminal_puzzles_can_be_typed(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = [EASY, "nonsense" * 5, "", *(EASY[row * 9 : row * 9 + 9] for row in range(9)), "q"]
    screen = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal("\n".join(typed) + "\n"))
    monkeypatch.setattr("sys.stdout", screen)
    assert demo.main(["--delay", "0", "--seed", "0"]) == 0
    output = screen.getvalue()
    assert output.count("solved: every row") == 4
    assert "error: a Sudoku of 9x9: the text has 40 cells" in output
    assert output.count("Your own puzzle") == 5


def test_what_there_is_no_model_for(monkeypatch: pytest.MonkeyPatch):
    status, _, errors = run(monkeypatch, "demo", "--task", "arc")
    assert status == 2
    assert "--task arc: none of the models in weights/ takes it" in errors
    status, _, errors = run(monkeypatch, "demo", "--task", "sudoko")
    assert status == 2
    assert "Did you mean 'sudoku'" in errors
    assert run(monkeypatch, "demo", "--delay", -1)[0] == 2
