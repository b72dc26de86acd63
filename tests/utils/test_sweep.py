"""Sweeps whose jobs submitit starts in processes of their own: failures are named, tasks become ranks."""

import json
import os
from pathlib import Path

import pytest

from tests.runs import ROOT, outcome
from tests.utils.sweep_job import job
from utils.errors import UserError
from utils.hydra import hydra_main
from utils.settings import PretrainConfig
from utils.sweep import Failure, Failures, JobFailedError, check_launcher, lost_job, stopped, take_rank


@pytest.mark.thorough
def test_of_four_jobs_two_fail_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # the jobs find the program although they start elsewhere
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["-m", "hydra/launcher=submitit_local", "seed=1,2,3,4", f"run_name={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["program", *arguments, "hydra.sweep.dir=sweep"])
    with pytest.raises(SystemExit) as end:
        hydra_main("cfg_pretrain", PretrainConfig, job)
    assert end.value.code == 2
    processes = {(tmp_path / f"seed-{seed}").read_text() for seed in (1, 2)}
    assert len(processes | {str(os.getpid())}) == 3
    said = capsys.readouterr().err
    assert said[said.index("failed jobs of the sweep") :].splitlines() == [
        "failed jobs of the sweep: 2",
        f"  job 2 of the sweep: seed=3 run_name={tmp_path}: error: seed 3 is wrong",
        f"  job 3 of the sweep: seed=4 run_name={tmp_path}: stopped by a signal; load_checkpoint=latest goes on from "
        "its last checkpoint",
    ]
    assert json.loads((tmp_path / "sweep" / "2" / "failure.json").read_text())["status"] == 2


def test_only_the_failures_of_this_sweep_are_collected(tmp_path: Path):
    failures = Failures()
    for number, sweep in ((11, failures._sweep), (2, failures._sweep), (3, "another")):
        folder = tmp_path / "lr=1" / str(number)
        folder.mkdir(parents=True)
        content = {"sweep": sweep, "number": number, "job": f"job {number}", "message": "no", "status": 1}
        (folder / "failure.json").write_text(json.dumps(content))
    failures.collect(JobFailedError(str(tmp_path)))
    assert failures.by_name == {"job 2": Failure("no", 1), "job 11": Failure("no", 1)}
    assert list(failures.by_name) == ["job 2", "job 11"]


def test_tasks_become_ranks(monkeypatch: pytest.MonkeyPatch):
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is as it was after the test
        monkeypatch.delenv(name)
    take_rank()
    assert "RANK" not in os.environ
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    for name, value in {"JOB_ID": "77", "NTASKS": "2", "GLOBALID": "1", "LOCALID": "1"}.items():
        monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", value)
    take_rank()
    found = [os.environ[name] for name in names[:5]]
    assert found == ["1", "2", "1", "2", "localhost"]
    port = os.environ["MASTER_PORT"]
    take_rank()  # once
    assert os.environ["MASTER_PORT"] == port


def test_a_job_that_was_killed_is_named_with_its_log():
    from submitit.core.utils import FailedJobError, UncompletedJobError

    lost = UncompletedJobError("Job 9 (task: 0) with path a/9_0_result.pkl\nhas not produced any output (state: X)")
    failure = lost_job(lost)
    assert failure is not None
    assert "killed" in failure.message
    assert " a/9_0_log.err." in failure.message
    assert lost_job(FailedJobError("trace")) == Failure("trace", 1)
    assert lost_job(RuntimeError("another")) is None
    assert stopped(SystemExit(3)) == Failure("ended with status 3", 3)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("PATH", "")
    check_launcher(["-m", "hydra/launcher=submitit_local", "lr=1,2"])
    assert os.environ["PYTHONPATH"] == f"{ROOT}{os.pathsep}mine"
    with pytest.raises(UserError, match="no Slurm here"):
        check_launcher(["hydra/launcher=submitit_slurm"])
    with pytest.raises(UserError, match=r"scripts\.optuna_sweep"):
        check_launcher(["hydra/sweeper=optuna"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--extra cluster"):
        check_launcher(["hydra/launcher=submitit_local"])
    status, said = outcome("pretrain", ["-m", "hydra/launcher=submitit_local", "lr=1,2"])
    assert status == 2
    assert "--extra cluster" in said
