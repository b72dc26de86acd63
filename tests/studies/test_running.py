"""How runs are started, fail, stop and are found again, with processes that train nothing."""

import os
import signal
import sys
from pathlib import Path

import pytest

from studies import running
from studies.plan import PlannedRun
from studies.records import Records, Row
from studies.running import run_all
from studies.study_file import read_study
from tests.studies.small import make_rows, write_study
from utils.errors import DamagedFileError
from utils.exit_status import STOPPED

SEEDS = 5


def planned(seed: int) -> PlannedRun:
    return PlannedRun("trm", seed, ("steps",), (), {"seed": seed}, 4, 100, 8, None)


class Pretend:
    """Stands for pretrain.py: a shell command for each seed, by default one that leaves an evaluation."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **commands: str):
        study = read_study(write_study(folder / "s.yaml", seeds=SEEDS))
        self.rows, self.commands, self.started = make_rows(study, {"trm": 0.5}), commands, list[str]()
        self.records, self.said = Records(folder / "study"), list[str]()
        monkeypatch.setattr(running, "command", self._command)
        monkeypatch.setattr(running, "_PAUSE", 0.01)
        monkeypatch.setattr(running, "read_row", self._read_row)

    def _command(self, run: PlannedRun, folder: Path) -> list[str]:
        self.started.append(run.name)
        return ["sh", "-c", self.commands.get(f"seed_{run.seed}", f"mkdir -p {folder} && echo ok > {folder}/result")]

    def _read_row(self, run: PlannedRun, folder: Path) -> Row | None:
        if not (folder / "result").exists():
            return None
        if (folder / "result").read_text() != "ok\n":
            raise DamagedFileError("it is damaged.")
        return self.rows[run.seed]

    def run(self, jobs: int = 2) -> running.Outcome:
        self.started.clear()
        return run_all([planned(seed) for seed in range(SEEDS)], self.records, jobs, 0, self.said.append)


def test_failures_are_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failing = {"seed_0": "echo 'error: lr is wrong'; exit 2", "seed_2": "exit 0", "seed_3": "kill -9 $$"}
    pretend = Pretend(tmp_path, monkeypatch, **failing)
    outcome = pretend.run()
    assert outcome.done == ["trm/steps-seed_1", "trm/steps-seed_4"]
    assert [status for status, _ in outcome.failed.values()] == [2, 1, 1]
    reasons = [why for _, why in outcome.failed.values()]
    assert reasons[0].startswith("error: lr is wrong (status 2; see ")
    assert "without an evaluation" in reasons[1]
    assert "killed by signal 9" in reasons[2]
    assert outcome.status == 1
    # mended and started again: what has ended is not repeated
    pretend.commands = {"seed_0": failing["seed_0"]}
    outcome = pretend.run(jobs=1)
    assert pretend.started == ["trm/steps-seed_0", "trm/steps-seed_2", "trm/steps-seed_3"]
    assert (len(outcome.done), outcome.status) == (4, 2)
    pretend.commands = {}
    assert pretend.run().status == 0
    assert pretend.started == ["trm/steps-seed_0"]
    assert (pretend.run().status, pretend.started) == (0, [])


def test_a_signal_is_passed_on_and_nothing_else_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # asks the study to end before it has got round to noting that the run has begun
    waiting = f"trap 'exit {STOPPED}' TERM; kill -TERM {os.getpid()}; while :; do sleep 0.05; done"
    pretend = Pretend(tmp_path, monkeypatch, seed_1=waiting)
    before = signal.getsignal(signal.SIGTERM)
    outcome = pretend.run(jobs=1)
    assert (outcome.status, outcome.stopped, outcome.done) == (STOPPED, True, ["trm/steps-seed_0"])
    assert pretend.started == ["trm/steps-seed_0", "trm/steps-seed_1"]
    assert signal.getsignal(signal.SIGTERM) == before
    pretend.commands = {}
    assert len(pretend.run().done) == SEEDS
    assert len(pretend.started) == SEEDS - 1


def test_damaged_files_are_moved_away_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pretend = Pretend(tmp_path, monkeypatch)
    pretend.run()
    records = [tmp_path / "study" / "runs" / "trm" / f"steps-seed_{seed}.json" for seed in range(3)]
    records[0].write_text("{")  # the run itself is whole
    records[1].write_text("{")
    (records[1].with_suffix("") / "result").write_text("no\n")
    (records[2].with_suffix("") / "result").write_text("no\n")  # nobody asks for it any more
    outcome = pretend.run()
    assert (outcome.status, pretend.started) == (0, ["trm/steps-seed_1"])
    assert (records[1].parent / "steps-seed_1.damaged-1" / "result").exists()
    assert sum("damaged" in line for line in pretend.said) == 3
    assert all(pretend.records.row(planned(seed)) is not None for seed in range(SEEDS))


def test_a_run_of_another_launcher_is_noted_and_a_damaged_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pretend = Pretend(tmp_path, monkeypatch)
    folders = [pretend.records.run_folder(planned(seed)) for seed in (0, 1)]
    for folder, content in zip(folders, ("ok\n", "no\n"), strict=True):
        folder.mkdir(parents=True)
        (folder / "result").write_text(content)
    ended = [running.has_ended(planned(seed), pretend.records, pretend.said.append, mend=False) for seed in range(3)]
    assert ended == [True, False, False]
    assert pretend.records.row(planned(0)) == pretend.rows[0]
    assert (folders[1] / "result").exists()
    assert pretend.said == ["trm/steps-seed_1: it is damaged."]


def test_a_run_of_another_process_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pretend = Pretend(tmp_path, monkeypatch, seed_4="echo 'error: x is in use by another run: 7.'; exit 2")
    outcome = pretend.run()
    assert (outcome.elsewhere, outcome.status, len(outcome.done)) == (["trm/steps-seed_4"], 0, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="the signal of a parent that died is one of Linux")
def test_runs_end_with_a_study_that_is_killed(tmp_path: Path):
    mark = tmp_path / "ended"
    child = f"trap 'touch {mark}; exit' TERM; touch {tmp_path}/began; while :; do sleep 0.05; done"
    code = (
        "import ctypes, os, signal, subprocess, sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        f"end = lambda: ctypes.CDLL(None).prctl({running._SET_DEATH_SIGNAL}, signal.SIGTERM)\n"
        f"subprocess.Popen(['sh', '-c', {child!r}], preexec_fn=end)\n"
        f"while not os.path.exists({str(tmp_path / 'began')!r}): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code])
    for _ in range(200):
        if mark.exists():
            return
        signal.sigtimedwait([], 0.02)
    raise AssertionError("the child has not ended with its parent")
