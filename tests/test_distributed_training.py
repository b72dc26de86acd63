"""Training in two processes gives the same metrics and weights as in one."""

from pathlib import Path

import pytest
import torch

from tests.runs import metrics, start, tiny, write_sudoku


@pytest.mark.thorough
@pytest.mark.parametrize("batch", [pytest.param(6, marks=pytest.mark.slow), 16])
def test_two_processes_equal_one(tmp_path: Path, batch: int):
    data = write_sudoku(tmp_path / "data", groups=40, tests=7)
    args = {"global_batch_size": batch, "max_steps": 50, "epochs": 60, "eval_interval": None}
    start("pretrain.py", tiny(data, tmp_path / "one", **args), tmp_path)
    start("pretrain.py", tiny(data, tmp_path / "two", **args), tmp_path, processes=2)
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) == len(two) == 50
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert right[key] == pytest.approx(value, rel=1e-5, abs=1e-6), (left["step"], key)
    weights = [torch.load(tmp_path / name / "step_50") for name in ("one", "two")]
    moved = False
    for name, value in weights[0].items():
        scale = max(1e-30, float(value.abs().max()))
        assert float((weights[1][name] - value).abs().max()) / scale <= 1e-5, name
        if name.endswith("puzzle_emb.weights"):
            moved = int((value != 0).any(1).sum()) > 20  # different rows on each rank
    assert moved
