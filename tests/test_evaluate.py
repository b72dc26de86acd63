"""evaluate.py on a checkpoint that the published code trained, and on our own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.paths import SHARED
from tests.runs import arguments, start, tiny, write_sudoku

PUBLISHED = SHARED / "oracles" / "published_checkpoint"


@pytest.mark.thorough
@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published checkpoint is not here")
@pytest.mark.parametrize("processes", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_published_checkpoint(tmp_path: Path, processes: int):
    args = [f"load_checkpoint={PUBLISHED / 'step_450'}", f"data_paths=[{PUBLISHED / 'data'}]", "device=cpu"]
    output = start("evaluate.py", [*args, "global_batch_size=129", "save_path=out"], tmp_path, processes)
    assert "dropped unknown keys: entity" in output
    result = json.loads((tmp_path / "out" / "results.json").read_text())["sets"]["all"]
    expected = json.loads((PUBLISHED / "expected.json").read_text())
    # the record was written as float32
    mine = np.array(result["exact_accuracy_after_step"], dtype=np.float32)
    np.testing.assert_array_equal(mine, np.array(expected["exact_accuracy_after_step"], dtype=np.float32))
    assert result["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)


def test_evaluation_of_a_run_repeats_its_last_metrics(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=12, tests=11)
    start("pretrain.py", tiny(data, tmp_path / "run", max_steps=20, show_example=True), tmp_path)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (tmp_path / "run" / "example.png").stat().st_size > 1000
    args = [f"load_checkpoint={tmp_path / 'run' / 'step_20'}", "save_path=out", "device=cpu", "restarts=3"]
    output = start("evaluate.py", [*args, "selectors=[last,majority,particle_filter,verifier]"], tmp_path)
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    result = content["sets"]["all"]
    points = content["rollouts"]["points"]
    steps = max(point["steps"] for point in points)
    assert f"3 rollouts of {steps} steps, vary=noise, 11 puzzles:" in output
    assert {point["selector"] for point in points} == {"last", "majority", "particle_filter", "verifier", "any"}
    for point in points:
        assert point["solved"] + point["wrong"] + point["undecided"] == pytest.approx(1)
        if point["selector"] == "last":
            assert point["exact"] == pytest.approx(result["exact_accuracy_after_step"][point["steps"] - 1])
    assert (tmp_path / "out" / "rollouts.png").exists()
    assert len((tmp_path / "out" / "rollouts.csv").read_text().splitlines()) == 1 + len(points)
    assert {f"all/{key}": value for key, value in result["metrics"].items()} == pytest.approx(
        {key: value for key, value in last.items() if key.startswith("all/")}
    )


@pytest.mark.thorough
def test_early_halting_is_the_same_over_two_processes(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=12, tests=29)
    # so short a training leaves the halting head unsure, so answers count as final once they stay
    halts = {"early_halting": True, "halt_threshold": 0.0}
    options = {"arch.halt_max_steps": 6, "max_steps": 40, **{f"eval_{key}": value for key, value in halts.items()}}
    start("pretrain.py", tiny(data, tmp_path / "run", **options), tmp_path)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    settings = {"load_checkpoint": tmp_path / "run" / "step_40", "device": "cpu", **halts}
    args = [*arguments(**settings), "eval_save_outputs=[preds,steps]", "restarts=3"]
    found, saved, points = [], [], []
    for processes in (0, 2):
        out = tmp_path / f"out-{processes}"
        start("evaluate.py", [*args, "global_batch_size=10", f"save_path={out}"], tmp_path, processes)
        content = json.loads((out / "results.json").read_text())
        found.append(content["sets"]["all"])
        points.append([tuple(point.values()) for point in content["rollouts"]["points"] if point["selector"] != "any"])
        saved.append([torch.load(out / f"all_preds.{rank}", weights_only=True) for rank in range(processes or 1)])
    for key, value in found[0].items():
        assert found[1][key] == pytest.approx(value), key
    assert points[0] == points[1]
    assert {f"all/{key}": value for key, value in found[0]["metrics"].items()} == pytest.approx(
        {key: value for key, value in last.items() if key.startswith("all/")}
    )
    (one,), two = saved
    assert len(set(one["steps"].tolist())) > 1
    # of each batch of ten the first five belong to the first process
    ranks = [index // 5 % 2 for index in range(29)]
    for name in ("preds", "steps"):
        parts = [iter(part[name]) for part in two]
        assert torch.equal(torch.stack([next(parts[rank]) for rank in ranks]), one[name])
