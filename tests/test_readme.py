"""The Python example of README.md runs as printed."""

import re
from pathlib import Path

import pytest
import torch

from tests.runs import ROOT, start, tiny, write_sudoku

RUN = '"checkpoints/Sudoku/mine"'


def test_the_python_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert RUN in example
    data = write_sudoku(tmp_path / "data", groups=6, tests=2)
    start("pretrain.py", tiny(data, tmp_path / "run", max_steps=2), tmp_path)
    capsys.readouterr()
    batch = {"inputs": torch.ones(3, 16, dtype=torch.int32), "puzzle_identifiers": torch.zeros(3, dtype=torch.int32)}
    names = {"batch": batch}
    exec(example.replace(RUN, repr(str(tmp_path / "run"))), names)
    assert vars(names["config"])["lr"] == 1e-3
    assert names["outputs"]["logits"].shape == (3, 16, 6)
    assert capsys.readouterr().out.count("tensor(") >= 2 * 16
