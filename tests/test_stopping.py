"""A signal ends a run after its step with a checkpoint, a sweep with it; time alone makes checkpoints."""

import os
import signal
import threading
import time
from pathlib import Path

from tests.runs import metrics, outcome, tiny, write_sudoku
from utils.checkpoint import latest_step, train_state_steps, weights_steps
from utils.exit_status import STOPPED


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
