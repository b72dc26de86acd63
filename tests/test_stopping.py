"""A signal ends a run after its step with a checkpoint, a sweep with it; time alone makes checkpoints."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.runs import metrics, outcome, tiny, write_sudoku
from tests.text_runs import tiny_text, write_text
from utils.checkpoint import latest_step, train_state_steps, weights_steps
from utils.exit_status import STOPPED
from utils.run_control import RunControl


def signal_at(step: int, folder: Path, number: int) -> threading.Thread:
    """A thread that signals this process once the run in `folder` has logged `step`."""

    def send() -> None:
        log = folder / "metrics.jsonl"
        while not log.exists() or log.read_text().count("\n") < step:
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def test_a_signal_ends_a_run_and_its_sweep_and_the_run_goes_on_where_it_was(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=18, tests=7)
    sweep = tiny(data, tmp_path / "run", epochs=100_000, eval_interval=None)
    sender = signal_at(3, tmp_path / "run-0", signal.SIGUSR1)
    status, output = outcome("pretrain", ["-m", *sweep, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'hydra'}"])
    sender.join()
    assert status == STOPPED, output
    step = metrics(tmp_path / "run-0")[-1]["step"]
    assert f"stopped after step {step} (SIGUSR1)" in output
    assert latest_step(tmp_path / "run-0") == step >= 3
    assert "job 1 of the sweep" not in output
    assert not (tmp_path / "run-1").exists()
    assert not (tmp_path / "run-0" / "run.lock").exists()

    run = tiny(data, tmp_path / "run-0", epochs=100_000, eval_interval=None, load_checkpoint="latest", seed=0)
    status, output = outcome("pretrain", [*run, f"max_steps={step + 4}"])
    assert (status, f"going on from step {step}" in output) == (0, True), output
    assert [line["step"] for line in metrics(tmp_path / "run-0")] == list(range(1, step + 5))
    assert not any(key.startswith("control/") for line in metrics(tmp_path / "run-0") for key in line)


def test_a_checkpoint_is_made_whenever_the_last_one_is_old_enough(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=18, tests=7)
    settings = {"max_steps": 8, "checkpoint_every_minutes": 1e-7, "epochs": 18, "eval_interval": 1}
    status, output = outcome("pretrain", tiny(data, tmp_path / "run", **settings, checkpoint_every_eval=False))
    assert status == 0, output
    assert train_state_steps(tmp_path / "run") == [7, 8]
    evaluated = [line["step"] for line in metrics(tmp_path / "run") if "all/exact_accuracy" in line]
    assert weights_steps(tmp_path / "run") == sorted({*evaluated, 7, 8}) != list(range(1, 9))


def signal_at_batch(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is signalled after each `number` batches of evaluations."""
    asked_to_end, batches = RunControl.asked_to_end, 0

    def asked(control: RunControl) -> bool:
        nonlocal batches
        batches += 1
        if batches % number == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            while not asked_to_end(control):
                time.sleep(0.005)
        return asked_to_end(control)

    monkeypatch.setattr(RunControl, "asked_to_end", asked)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("batches", "stops"), [(3, 2), (1, 8)])
def test_an_evaluation_is_broken_off_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int, stops: int
):
    """Two evaluations of four batches, one of them after the last step, with a signal after every so many batches."""
    data = write_sudoku(tmp_path / "data", groups=18, tests=7)
    settings = {"epochs": 4, "eval_interval": 2, "eval_batch_size": 2, "load_checkpoint": "latest"}
    alone, broken_off = tmp_path / "alone", tmp_path / "broken_off"
    assert outcome("pretrain", tiny(data, alone, **settings))[0] == 0
    last = latest_step(alone)

    signal_at_batch(batches, monkeypatch)
    for _ in range(stops):
        status, output = outcome("pretrain", tiny(data, broken_off, **settings))
        assert status == STOPPED, output
        step = latest_step(broken_off)
        assert f"stopped after step {step} (SIGTERM), with a checkpoint" in output
        assert metrics(broken_off)[-1]["step"] + 1 == step
        assert list((broken_off / f"evaluation_step_{step}" / "unfinished").iterdir())
    status, output = outcome("pretrain", tiny(data, broken_off, **settings))
    assert status == 0, output
    assert f"all: going on after batch {8 // batches * batches - 4} of 4" in output
    for name in ("metrics.jsonl", f"evaluation_step_{last}/results.json"):
        assert (broken_off / name).read_bytes() == (alone / name).read_bytes(), name
    assert files(broken_off) == files(alone)


def test_an_evaluation_of_text_is_broken_off_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = write_text(tmp_path / "text")
    alone, broken_off = tmp_path / "alone", tmp_path / "broken_off"
    assert outcome("pretrain_text", tiny_text(data, alone, load_checkpoint="latest"))[0] == 0
    with monkeypatch.context() as patch:
        signal_at_batch(1, patch)
        status, output = outcome("pretrain_text", tiny_text(data, broken_off, load_checkpoint="latest"))
    assert status == STOPPED, output
    assert metrics(broken_off)[-1]["step"] + 1 == latest_step(broken_off)
    assert outcome("pretrain_text", tiny_text(data, broken_off, load_checkpoint="latest"))[0] == 0
    assert (broken_off / "metrics.jsonl").read_bytes() == (alone / "metrics.jsonl").read_bytes()
