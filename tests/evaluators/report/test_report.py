"""Reports from crafted logs: what is read, what is grouped, what stands out; and from broken ones."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.report.findings import calibration_error, findings
from evaluators.report.groups import differences, group_by_seed, mean_and_spread
from evaluators.report.page import page, report_at_end, write_report
from evaluators.report.runs import POINTS, Series, read_run, sampled
from utils.errors import UserError

RESULT: dict[str, Any] = {
    "metrics": {"exact_accuracy": 0.8},
    "count": 10,
    "examples": 10,
    "exact_accuracy_after_step": [0.2, 0.5, 0.7, 0.8],
    "accuracy_after_step": [0.5, 0.7, 0.8, 0.9],
    "task_metrics": {},
    "lost": 1,
    "steps_taken": [0, 0, 0, 0, 10],
    "head_stops": [0, 8, 2, 0, 0],
    "head_stops_right": [0, 2, 1, 0, 0],
    "calibration_count": [0.0, 20.0, 20.0],
    "calibration_probability": [0.0, 12.0, 18.0],
    "calibration_right": [0.0, 4.0, 12.0],
}
HEALTHY = RESULT | {
    "exact_accuracy_after_step": [0.9, 1.0, 1.0, 1.0],
    "lost": 0,
    "head_stops_right": [0, 8, 2, 0, 0],
    "calibration_right": [0.0, 12.0, 18.0],
}


def write_run(
    folder: Path, steps: int = 20, seed: int = 0, result: dict[str, Any] | None = None, **config: Any
) -> Path:
    folder.mkdir(parents=True)
    settings = {"seed": seed, "global_batch_size": 4, "run_name": folder.name, "arch": {"hidden_size": 8}, **config}
    (folder / "all_config.yaml").write_text(json.dumps(settings))
    metrics = [
        {"step": n, "train/lm_loss": 1 / n + seed, "train/exact_accuracy": n / steps} for n in range(1, steps + 1)
    ]
    metrics[-1]["all/exact_accuracy"] = 0.8
    perf = [
        {"step": n, "perf/step_ms": 500.0, "perf/tflops": 2e-3, "perf/examples_per_second": 8.0}
        for n in range(1, steps + 1)
    ]
    for name, lines in (("metrics.jsonl", metrics), ("perf.jsonl", perf)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result is not None:
        (folder / f"evaluation_step_{steps}").mkdir()
        (folder / f"evaluation_step_{steps}" / "results.json").write_text(json.dumps({"sets": {"all": result}}))
    return folder


def data_of(text: str) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_run_is_read_with_its_axes(tmp_path: Path):
    run = read_run(write_run(tmp_path / "run", result=RESULT))
    assert (run.last_step, run.batch_size, run.notes) == (20, 4, [])
    assert run.config["arch.hidden_size"] == 8
    assert run.metrics["train/lm_loss"].values.tolist() == [1 / n for n in range(1, 21)]
    assert run.metrics["all/exact_accuracy"].steps.tolist() == [20]
    assert run.flops_per_step() == pytest.approx(1e9)
    seconds = run.seconds()
    assert seconds is not None
    assert seconds.values[-1] == pytest.approx(10)
    assert [evaluation.step for evaluation in run.evaluations] == [20]


def test_a_gap_in_the_times_counts_with_their_mean(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    lines = (folder / "perf.jsonl").read_text().splitlines(keepends=True)
    (folder / "perf.jsonl").write_text("".join(lines[:5] + lines[15:]))
    seconds = read_run(folder).seconds()
    assert seconds is not None
    assert seconds.values[-1] == pytest.approx(10)


def test_long_curves_are_averaged():
    steps = np.arange(1, 10_001)
    short = sampled(Series(steps, np.where(steps % 7 == 0, np.nan, steps.astype(float))))
    assert len(short.steps) == POINTS
    assert short.steps[-1] == 10_000
    assert np.abs(short.values - (short.steps - 12)).max() < 4
    few = Series(np.array([3]), np.array([2.0]))
    assert sampled(few).values.tolist() == [2.0]


def test_seeds_are_taken_together(tmp_path: Path):
    folders = [write_run(tmp_path / f"seed{seed}", seed=seed) for seed in (0, 1, 2)]
    folders.append(write_run(tmp_path / "wide", steps=10, seed=0, arch={"hidden_size": 16}))
    runs = [read_run(folder) for folder in folders]
    assert group_by_seed(runs) == [[0, 1, 2], [3]]
    assert differences(runs) == [("arch.hidden_size", ["8", "8", "8", "16"]), ("seed", ["0", "1", "2", "0"])]
    mean, low, high = mean_and_spread([run.metrics["train/lm_loss"] for run in runs[:3]])
    np.testing.assert_allclose(mean.values, 1 + 1 / np.arange(1, 21))
    np.testing.assert_allclose(high - low, 2)
    group = data_of(page(runs))["groups"][0]
    assert group["runs"] == [0, 1, 2]
    assert group["last"]["train/lm_loss"] == pytest.approx({"mean": 1.05, "std": 1.0})


def test_what_stands_out(tmp_path: Path):
    found = " ".join(findings(read_run(write_run(tmp_path / "bad", result=RESULT))))
    assert "still rises at the last step: from 70.0% to 80.0%" in found
    assert "would stop 70.0% of the examples at a wrong answer" in found
    assert "10.0% of the examples were right at some step and wrong at the end" in found
    assert "is more sure than it should be: on average its probability is 0.35 away" in found
    assert findings(read_run(write_run(tmp_path / "good", result=HEALTHY))) == []
    assert calibration_error(RESULT) == pytest.approx((0.35, 0.35))
    assert calibration_error({}) is None


def test_broken_logs_give_a_page_that_says_so(tmp_path: Path):
    folder = write_run(tmp_path / "broken", result=RESULT)
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(
        "{cut\n" + text + '[1]\n{"step": true}\n{"step": 21, "train/lm_loss": NaN}\n{"ste'
    )
    (folder / "perf.jsonl").write_bytes(b"\xff\xfe\x00")
    (folder / "all_config.yaml").write_text("a: [")
    (folder / "evaluation_step_20" / "results.json").write_text("[]")
    data = data_of(page([read_run(folder)]))
    (run,) = data["runs"]
    notes = " ".join(run["notes"])
    assert "metrics.jsonl: 4 damaged lines are left out" in notes
    assert "perf.jsonl holds no step" in notes
    assert "the configuration cannot be read" in notes
    assert "evaluation_step_20/results.json cannot be read" in notes
    assert run["lastStep"] == 21
    assert any("train/lm_loss is not finite at 1 steps" in text for text in run["findings"])
    assert (run["time"], run["examples"], run["flops"]) == (None, None, None)


def test_an_empty_log_gives_a_page_and_no_log_a_message(tmp_path: Path):
    folder = tmp_path / "outer" / "empty"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="holds no metrics.jsonl"):
        read_run(folder)
    with pytest.raises(UserError, match="is no folder"):
        read_run(tmp_path / "nowhere")
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="Did you mean .*empty"):
        read_run(folder.parent)
    (run,) = data_of(write_report([folder], tmp_path / "pages" / "report.html").read_text())["runs"]
    assert run["lastStep"] == 0
    assert run["notes"][0] == "metrics.jsonl holds no step"


def test_the_end_of_a_run_never_fails(tmp_path: Path):
    said: list[str] = []
    report_at_end(tmp_path / "nowhere", True, said.append)
    assert said[0].startswith("note: no report was written (UserError: ")
    report_at_end(tmp_path / "nowhere", False, said.append)
    report_at_end(write_run(tmp_path / "run"), True, said.append)
    assert said[1:] == [f"report: {tmp_path / 'run' / 'report.html'}"]


def test_nothing_in_a_log_becomes_a_part_of_the_page(tmp_path: Path):
    folder = write_run(tmp_path / "run", note="</script><img src=x onerror=alert(1)>")
    text = page([read_run(folder)])
    assert "<img" not in text
    assert data_of(text)["runs"][0]["config"]["note"] == "</script><img src=x onerror=alert(1)>"
