"""The benchmark command, started as a user would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "bench/train_step.py",
        "experiment=quickstart",
        "device=cpu",
        "compile=false",
        *arguments,
    ]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.thorough
def test_all_parts_and_a_trace(tmp_path: Path):
    output, trace = tmp_path / "figures.jsonl", tmp_path / "trace.json"
    done = bench(
        f"data_paths=[{tmp_path}/no-sudoku]", "global_batch_size=4", "repeats=2", "plain=[float32]", "seq_len=16",
        "vocab_size=6", "optimizer=adam_atan2", f"output={output}", f"trace={trace}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "random tokens, because" in done.stdout
    figures = json.loads(output.read_text())
    for name in ("train step", "plain eager step, float32", "evaluation, one ACT step", "optimizer and EMA", "data"):
        assert 0 < figures[f"{name}/best_ms"] <= figures[f"{name}/median_ms"]
    assert figures["share_best"] * figures["matmul_tflops"] == pytest.approx(figures["train step/tflops"])
    assert json.loads(trace.read_text())["traceEvents"]


@pytest.mark.thorough
def test_unknown_data_of_unknown_shape_is_refused():
    done = bench("data_paths=[nowhere/at-all]", "data_builder=null")
    assert done.returncode == 2
    assert "seq_len=" in done.stderr
    assert "Traceback" not in done.stderr
