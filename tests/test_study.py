"""study.py from end to end: a tiny study that is killed, goes on, fails, is damaged and changed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from studies.program import run_study
from studies.records import ROWS
from tests.runs import ROOT, TINY_ARCH, arguments, environment, write_sudoku
from tests.studies.small import write_study
from utils.errors import UserError

ARMS: dict[str, Any] = {"trm": [], "wide": ["arch.hidden_size=32"]}
SETTINGS = {**TINY_ARCH, "evaluators": "[]", "global_batch_size": 6, "lr": 1e-3, "lr_warmup_steps": 5, "device": "cpu",
            "checkpoint_every_steps": 2}  # fmt: skip


def small_study(folder: Path, **changes: Any) -> Path:
    """The file of a study of two arms x two seeds on 4x4 Sudokus."""
    data = folder / "data"
    if not data.exists():
        write_sudoku(data, groups=6, tests=5)
    base = [*arguments(**SETTINGS), f"data_paths=[{data}]"]
    values = {"base": base, "arms": ARMS, "seeds": 2, "steps": 30, "passes": 3, "equal": ["steps", "flops"], **changes}
    return write_study(folder / "small.yaml", **values)


@pytest.mark.thorough  # torch takes its time to load what counts operations
def test_what_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_study(small_study(tmp_path), tmp_path / "out", dry_run=True) == 0
    printed = capsys.readouterr().out
    names = [line.split()[0] for line in printed.splitlines() if "seed_" in line]
    assert names == [f"{arm}-seed_{seed}" for seed in (0, 1) for arm in ("trm/steps", "wide/steps", "wide/flops")]
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if "-seed_0" in line}
    assert rows["trm/steps-seed_0"][1] == rows["wide/steps-seed_0"][1] == "30"
    by_flops, baseline = rows["wide/flops-seed_0"], rows["trm/steps-seed_0"]
    assert int(by_flops[1]) < 30
    assert float(by_flops[3]) == pytest.approx(float(baseline[3]), rel=0.05)
    with pytest.raises(UserError, match="no run of this study has ended"):
        run_study(small_study(tmp_path), tmp_path / "out", table=True)
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    run_study(small_study(tmp_path), tmp_path / "out", commands=True, only="2/3")
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 2
    assert all("pretrain.py" in line and "load_checkpoint=latest" in line and "wide-steps" in line for line in commands)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"arms": {"a": [], "b": ["experiment=quickstrat"]}}, {}, "arms.b: .*quickstrat"),
        ({"arms": {"a": [], "b": ["lrr=1"]}}, {}, r"arms.b: .*\n  lrr: no such key. Did you mean 'lr'"),
        ({"arms": {"a": [], "b": ["arch.hiden_size=8"]}}, {}, r"arms.b: (.|\n)*hiden_size"),
        ({"arms": {"a": [], "b": ["lr=1e-3"]}}, {}, "arms.b computes the same as arms.a"),
        ({"base": ["data_paths=[nowhere]"]}, {}, "nowhere does not exist"),
        ({}, {"only": "3/2"}, "--only 3/2"),
        ({}, {"only": "x"}, "--only x"),
        ({}, {"jobs": 0}, "--jobs 0"),
        ({}, {"table": True, "dry_run": True}, "exclude one another"),
    ],
)
def test_what_is_refused_before_anything_is_run(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message):
        run_study(small_study(tmp_path, **changes), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def start_study(study: Path, out: Path, output: Path) -> "subprocess.Popen[bytes]":
    """The program, as a user starts it, with what it prints in a file."""
    command = [sys.executable, str(ROOT / "study.py"), str(study), "--folder", str(out)]
    with output.open("w") as file:
        return subprocess.Popen(command, cwd=study.parent, env=environment(), stdout=file, stderr=subprocess.STDOUT)


def steps_logged(run: Path) -> list[int]:
    log = run / "metrics.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_and_repeats_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study, out = small_study(tmp_path, equal="steps", steps=60), tmp_path / "out"
    first, second = out / "runs" / "trm" / "steps-seed_0", out / "runs" / "wide" / "steps-seed_0"
    process = start_study(study, out, tmp_path / "output.txt")
    try:
        while len(steps_logged(second)) < 10:  # in the midst of the second run
            assert process.poll() is None, (tmp_path / "output.txt").read_text()
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    assert json.loads(first.with_suffix(".json").read_text())["row"]["steps"] == 60

    # goes on, in this process
    status = run_study(study, out)
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert [path for path, changed in before.items() if path.stat().st_mtime_ns != changed] == []
    text = second.with_suffix(".txt").read_text()
    assert "going on from step" in text
    assert steps_logged(second) == list(range(1, 61))
    assert "trm/steps-seed_0: started" not in printed
    rows = [json.loads(line) for line in (out / ROWS).read_text().splitlines()]
    assert [(row["arm"], row["seed"], row["steps"]) for row in rows] == [
        ("trm", 0, 60), ("wide", 0, 60), ("trm", 1, 60), ("wide", 1, 60),
    ]  # fmt: skip
    assert {row["puzzles"] for row in rows} == {5}
    for name in ("table.md", "table.csv", "plot.png"):
        assert (out / name).stat().st_size > 200

    # a third time there is nothing to do, and the table alone suffices
    tables = (out / "table.md").read_text()
    assert run_study(study, out) == 0
    assert "started" not in capsys.readouterr().out
    for record in out.glob("runs/*/*.json"):
        record.unlink()  # as in a folder of which only runs.jsonl was kept
    assert run_study(study, out, table=True) == 0
    assert (out / "table.md").read_text() == tables

    # changed: refused before anything is run; a new arm that fails does not keep the table from being written
    run_study(study, out)  # which writes the records again
    with pytest.raises(UserError, match=r"eval_halt_max_steps: 3 before, 4 now \(trm/steps-seed_0 and 3 more\)"):
        run_study(small_study(tmp_path, equal="steps", steps=60, passes=4), out)
    capsys.readouterr()
    arms = {**ARMS, "wrong": ["global_batch_size=5", "grad_accum_steps=5", "load_config=3"]}
    with pytest.raises(UserError, match="arms.wrong"):
        run_study(small_study(tmp_path, equal="steps", steps=60, arms=arms), out)
    arms = {**ARMS, "wrong": ["augmentation=maze"]}
    assert run_study(small_study(tmp_path, equal="steps", steps=60, arms=arms, seeds=[0]), out) == 2
    ended = capsys.readouterr()
    assert "runs that have not ended: 1\n  wrong/steps-seed_0: error: augmentation=maze" in ended.err
    assert "one seed: no result" in (out / "table.md").read_text()
