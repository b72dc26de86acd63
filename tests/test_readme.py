"""The Python examples of README.md run as printed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.loading import load
from tests.runs import ROOT, start, tiny, write_sudoku

RUN = '"checkpoints/Sudoku/mine"'


def example(part: str) -> str:
    """The only Python example that contains `part`."""
    examples = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [text for text in examples if part in text]
    return found


def test_there_is_no_other_example():
    assert (ROOT / "README.md").read_text().count("```python") == 3


def test_a_model_is_used_in_six_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    text = example("sudoku_search")
    assert len(text.splitlines()) <= 6
    names: dict[str, Any] = {}
    exec(text, names)
    assert "solved: every row, column and box has each digit once" in capsys.readouterr().out
    answer = names["answer"]
    again = load("my-sudoku").solve("".join(answer.task.rows(answer.question.tokens)))
    assert again.step_tokens.tobytes() == answer.step_tokens.tobytes()


def test_the_bare_network():
    names: dict[str, Any] = {}
    exec(example("TRMConfig"), names)
    assert names["loss"].requires_grad
    assert [logits.shape for logits in names["logits_list"]] == [(8, 16, 6)] * 4
    assert names["answers"].shape == (8, 16)


def test_the_configuration_and_the_model_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = write_sudoku(tmp_path / "data", groups=6, tests=2)
    start("pretrain.py", tiny(data, tmp_path / "run", max_steps=2), tmp_path)
    capsys.readouterr()
    batch = {"inputs": torch.ones(3, 16, dtype=torch.int32), "puzzle_identifiers": torch.zeros(3, dtype=torch.int32)}
    names: dict[str, Any] = {"batch": batch}
    exec(example(RUN).replace(RUN, repr(str(tmp_path / "run"))), names)
    assert names["config"].lr == 1e-3
    assert names["outputs"]["logits"].shape == (3, 16, 6)
    assert capsys.readouterr().out.count("tensor(") >= 2 * 16
