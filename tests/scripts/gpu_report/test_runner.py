"""One invocation after the other, with programs of a few milliseconds."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.gpu_report.__main__ import publish
from scripts.gpu_report.lines import append_line, read_lines
from scripts.gpu_report.programs import Lock, Program, start_interpreter, stop
from scripts.gpu_report.runner import Runner
from scripts.gpu_report.stage import Stage, read_json
from utils.errors import UserError


def script(text: str) -> Program:
    """A program that does what `text` says."""
    return Program("-c", (text,))


def stage(name: str, text: str = "", **more: Any) -> Stage:
    return Stage(name, f"title of {name}", script(text), needs=0.1, **more)


def run(stages: list[Stage], folder: Path, seconds: float = 60, retry: bool = False) -> bool:
    """One invocation; whether all stages have ended. The 5 seconds for its end come on top of `seconds`."""
    return Runner(stages, folder / "work", folder / "output", seconds + 5, start_interpreter).run(retry)


def ends(folder: Path) -> list[tuple[str, str]]:
    return [(line["stage"], line["status"]) for line in read_lines(folder / "output" / "stages.jsonl")]


def test_a_failed_stage_does_not_end_the_rest(tmp_path: Path):
    figures = tmp_path / "figures.json"
    stages = [
        stage("broken", "print('one'); raise SystemExit('no such kernel')"),
        stage("follows", after=("broken",)),
        stage("lacks", inputs=(tmp_path / "recorded",)),
        stage("unreadable", read=read_json(tmp_path / "nothing")),
        stage("slow", "import time; time.sleep(60)", limit=0.2),
        stage("good", f"open({str(figures)!r}, 'w').write('{{\"ms\": 2.5}}')", read=read_json(figures), output="bench"),
    ]
    assert run(stages, tmp_path)
    lines = {line["stage"]: line for line in read_lines(tmp_path / "output" / "stages.jsonl")}
    assert lines["broken"]["status"] == "failed"
    assert lines["broken"]["error"] == "exit status 1: one\nno such kernel"
    assert (lines["follows"]["status"], lines["follows"]["error"]) == (
        "skipped", "needs broken, which did not succeed",
    )  # fmt: skip
    assert (lines["lacks"]["status"], lines["lacks"]["error"]) == ("skipped", f"there is no {tmp_path / 'recorded'}")
    assert "FileNotFoundError" in lines["unreadable"]["error"]
    assert (lines["slow"]["status"], lines["slow"]["error"]) == ("failed", "took longer than 0 s")
    assert (lines["good"]["status"], lines["good"]["figures"]) == ("done", {"ms": 2.5})
    (bench,) = read_lines(tmp_path / "output" / "bench.jsonl")
    assert (bench["stage"], bench["ms"], bench["report"]) == ("good", 2.5, lines["good"]["report"])
    page = (tmp_path / "output" / "summary.md").read_text()
    assert "| broken | title of broken | failed | 0 | no such kernel |" in page
    assert "| good | title of good | done | 0 | ms 2.5 |" in page

    # another invocation has nothing to do; --retry runs what did not succeed
    assert run(stages, tmp_path)
    assert len(ends(tmp_path)) == len(stages)
    (tmp_path / "recorded").mkdir()
    mended = [replace(stages[0], program=script("")), *stages[1:]]
    assert run(mended, tmp_path, retry=True)
    assert ends(tmp_path)[len(stages) :] == [
        ("broken", "done"), ("follows", "done"), ("lacks", "done"), ("unreadable", "failed"), ("slow", "failed"),
    ]  # fmt: skip


def test_nothing_else_is_tried_without_a_machine(tmp_path: Path):
    stages = [stage("machine", "raise SystemExit(1)", essential=True), stage("next")]
    for _ in range(5):
        with pytest.raises(UserError, match="nothing else will work"):
            run(stages, tmp_path)
    assert run([replace(stages[0], program=script("")), stages[1]], tmp_path)
    assert ends(tmp_path)[-2:] == [("machine", "done"), ("next", "done")]


def test_a_stage_that_does_not_fit_waits_for_the_next_invocation(tmp_path: Path):
    stages = [replace(stage("long"), needs=30), stage("short")]
    assert not run(stages, tmp_path, seconds=20)
    assert ends(tmp_path) == [("short", "done")]
    assert run(stages, tmp_path, seconds=40)
    assert ends(tmp_path) == [("short", "done"), ("long", "done")]


def test_a_stage_that_is_stopped_three_times_has_failed(tmp_path: Path):
    stages = [stage("slow", "import time; time.sleep(60)"), stage("short")]
    for _ in range(3):
        assert not run(stages[:1], tmp_path, seconds=0.3)
    assert run(stages, tmp_path)
    assert ends(tmp_path) == [*[("slow", "stopped")] * 3, ("slow", "failed"), ("short", "done")]


TRAINING = """
import json, pathlib, time
run = pathlib.Path({run!r})
run.mkdir(exist_ok=True)
first = len((run / "metrics.jsonl").read_text().splitlines()) + 1 if (run / "metrics.jsonl").exists() else 1
with (run / "metrics.jsonl").open("a") as file:
    for step in range(first, {steps} + 1):
        evaluation = {{"all/exact_accuracy": step / 100}} if step % 10 == 0 else {{}}
        file.write(json.dumps({{"step": step, "train/lm_loss": 1 / step, **evaluation}}) + "\\n")
        file.flush()
        time.sleep(0.01)
"""


def training(folder: Path, steps: int, budget: float = 1000) -> Stage:
    text = TRAINING.format(run=str(folder / "run"), steps=steps)
    read = read_json(folder / "run" / "metrics.jsonl")
    return stage("training", text, run=folder / "run", every=4, budget=budget, read=read)


def test_a_training_run_goes_on_in_the_next_invocation(tmp_path: Path):
    stages = [training(tmp_path, steps=60), stage("short")]
    assert not run(stages, tmp_path, seconds=0.4)
    (first,) = read_lines(tmp_path / "output" / "stages.jsonl")
    assert first["status"] == "going on"
    assert 0 < first["figures"]["step"] < 60
    assert run(stages, tmp_path)
    assert ends(tmp_path) == [("training", "going on"), ("training", "done"), ("short", "done")]
    curve = read_lines(tmp_path / "output" / "training_curve.jsonl")
    assert [line["step"] for line in curve] == sorted({*range(4, 61, 4), *range(10, 61, 10)})
    assert curve[-1]["all/exact_accuracy"] == 0.6
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(curve))
    assert "| 60 | 0.0 | 0.01667 | 0.6 |" in (tmp_path / "output" / "summary.md").read_text()


def test_a_training_run_that_has_had_its_time_is_done(tmp_path: Path):
    assert run([training(tmp_path, steps=100_000, budget=0.3), replace(stage("next"), after=("training",))], tmp_path)
    assert ends(tmp_path) == [("training", "done"), ("next", "done")]


def test_one_report_at_a_time_and_no_program_of_a_killed_one(tmp_path: Path):
    path = tmp_path / "lock"
    code = (
        "import os, sys, time; from pathlib import Path; "
        "from scripts.gpu_report.programs import Lock, Program, start_interpreter; "
        f"path = Path({str(path)!r}); lock = Lock(path); "
        "child = start_interpreter(Program('-c', ('import time; time.sleep(60)',)), path.with_name('log'), lock); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    report = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert report.stdout is not None
    child = int(report.stdout.readline())
    try:
        with pytest.raises(UserError, match=f"process {report.pid} is making a report there"):
            Lock(path)
    finally:
        report.send_signal(signal.SIGKILL)
        report.communicate()
    os.kill(child, 0)  # it has survived its report
    with Lock(path):
        pass
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_program_is_stopped_with_its_children(tmp_path: Path):
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"
    with Lock(tmp_path / "lock") as lock:
        running = start_interpreter(script(code), log, lock)
        while not log.exists() or not log.read_text().strip():
            time.sleep(0.01)
        stop(running, grace=0.1)
    assert running.poll() == -signal.SIGKILL
    state = Path(f"/proc/{int(log.read_text())}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_the_lines_of_two_reports_stay_apart(tmp_path: Path):
    for name, loss in (("a", 0.5), ("b", 0.25)):
        line = {
            "report": name,
            "stage": "x",
            "title": "t",
            "status": "done",
            "date": name,
            "seconds": 60,
            "figures": {},
        }
        append_line(tmp_path / name / "stages.jsonl", line)
        append_line(
            tmp_path / name / "x_curve.jsonl", {"report": name, "seconds": 30, "step": 7, "train/lm_loss": loss}
        )
    for name in ("b", "a"):  # in any order
        publish(tmp_path / name, tmp_path / "all")
    page = (tmp_path / "all" / "summary.md").read_text()
    assert "| x | t | done | 60 |" in page
    assert "| 7 | 0.5 | 0.25 |" in page
    assert "| 7 | 0.5 | 0.5 |" not in page
    with pytest.raises(UserError, match="no stages.jsonl"):
        publish(tmp_path, tmp_path / "all")
