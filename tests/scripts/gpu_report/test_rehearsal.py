"""The whole report, tiny and on the CPU: killed in a training run, and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.gpu_report.lines import read_lines
from scripts.gpu_report.stages import TRAINING_STEPS, Place, stages
from tests.paths import SHARED
from tests.runs import ROOT, environment

SKIPPED = set() if (SHARED / "oracles").exists() else {"recorded_runs"}


def start(work: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(ROOT / "scripts" / "gpu_report.sh"), "--rehearse", "--work", str(work), "--shared", str(SHARED)],
        env={**environment(), "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_once_it_trains(report: subprocess.Popen[str], run: Path) -> None:
    """Kill a report as soon as a training run has a checkpoint and goes on; its program must be left to the next."""
    try:
        while not list(run.glob("step_*_train_state.pt")):
            assert report.poll() is None, report.communicate()[0]
            time.sleep(0.01)
    finally:
        report.send_signal(signal.SIGKILL)
        report.communicate()


@pytest.mark.thorough
def test_every_stage_although_killed(tmp_path: Path):
    work, output = tmp_path / "work", tmp_path / "work" / "output"
    kill_once_it_trains(start(work), work / "runs" / "quickstart")
    before = (output / "stages.jsonl").read_text()
    with (output / "stages.jsonl").open("a") as file:
        file.write('{"stage": "quickstart", "sta')

    report = start(work)
    printed, _ = report.communicate(timeout=900)
    assert report.returncode == 0, printed
    assert "stages have ended" in printed

    # each stage has ended once, well, and what had ended before the kill was not begun again
    text = (output / "stages.jsonl").read_text()
    assert text.startswith(before)
    lines = {line["stage"]: line for line in read_lines(output / "stages.jsonl")}
    assert len(text.splitlines()) == len(lines)
    expected = {stage.name for stage in stages(Place(work, SHARED, "cpu", tiny=True))}
    failures = {name: line.get("error") for name, line in lines.items() if line["status"] != "done"}
    assert set(failures) == SKIPPED, failures
    assert set(lines) == expected
    begun = [line["stage"] for line in read_lines(work / "attempts.jsonl")]
    assert sorted(begun) == sorted([*(expected - SKIPPED), "quickstart"])

    figures = {name: line["figures"] for name, line in lines.items()}
    assert figures["environment"]["cores"] == os.cpu_count()
    if not SKIPPED:
        assert figures["recorded_runs"]["passed"] == 1
    assert figures["one_nccl_process"] == {"steps": 3, "equal_steps": 3, "largest_difference": 0.0}
    assert figures["matmul"]["float32/128"] > 0
    for kind in ("fixed", "halting"):
        assert figures[f"evaluation_{kind}"]["examples"] == 40
    assert figures["evaluation_fixed"]["exact_accuracy"] == figures["evaluation_halting"]["exact_accuracy"]
    assert figures["sudoku_search_solved"]["wrong"] == 0
    steps = [line["stage"] for line in read_lines(output / "bench.jsonl")]
    assert steps == [f"step_{name}{kind}" for kind in ("", "_plain") for name in TRAINING_STEPS]

    # the run that was killed went on: no step is missing, and none is there twice
    for name in ("quickstart", "sudoku_search", "sudoku_extreme_mlp"):
        curve = read_lines(output / f"{name}_curve.jsonl")
        assert [line["step"] for line in curve] == list(range(1, figures[name]["step"] + 1))
        assert "all/exact_accuracy" in curve[-1]
    assert "going on from step" in (work / "logs" / "quickstart.log").read_text()

    page = (output / "summary.md").read_text()
    for name in expected:
        assert f"\n| {name} | " in page
    best = figures["step_sudoku_extreme_mlp"]["train step/best_ms"]
    assert f"| sudoku_extreme_mlp, batch 768, compiled | {best:.4g} |" in page
    assert f"\n| {figures['quickstart']['step']} | " in page
