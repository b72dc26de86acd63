"""A run whose weights become NaN: it stops with the checkpoint to load, or goes back and leaves the steps out."""

import math
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from models.training import SkippedStep, StepMetrics, TrainState
from tests.runs import metrics, outcome, tiny, write_sudoku

RUINED = 8  # the update of this step makes NaN of the weights


@pytest.fixture
def ruined(monkeypatch: pytest.MonkeyPatch) -> None:
    ruin(monkeypatch)


def ruin(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = TrainState.launch_step

    def launch_step(self: TrainState, *arguments: Any) -> StepMetrics | SkippedStep:
        result = launch(self, *arguments)
        if self.step == RUINED and self.step not in self.skipped:
            with torch.no_grad():
                next(iter(self.parameters.values())).fill_(math.nan)
        return result

    monkeypatch.setattr(TrainState, "launch_step", launch_step)


@pytest.mark.thorough
def test_a_run_goes_back_and_leaves_out_the_steps(tmp_path: Path, ruined: None):
    data, folder = write_sudoku(tmp_path / "data", groups=12, tests=5), tmp_path / "run"
    more = {"eval_interval": 20, "max_steps": 14, "keep_train_states": 9}
    arguments = tiny(data, folder, checkpoint_every_steps=3, **more)

    status, output = outcome("pretrain", arguments)
    assert status == 2
    state = folder / "step_6_train_state.pt"
    assert (
        f"the loss is nan at step 9: training has diverged.\nThe batch of step 8 holds {data}/train/all row" in output
    )
    assert f"Go on from it with load_checkpoint={state}" in output
    assert "Traceback" not in output

    status, output = outcome("pretrain", [*arguments, "load_checkpoint=latest", "on_divergence=skip"])
    assert status == 0, output
    assert f"goes back to {state} and leaves out steps 8 to 9" in output
    lines = metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, 15))
    assert [line["step"] for line in lines if "train/skipped" in line] == [8, 9]
    assert all(math.isfinite(value) for line in lines for value in line.values())

    # a resume from before leaves them out too, and computes the same
    whole = lines
    for step in (9, 12, 14):
        (folder / f"step_{step}").unlink()
        (folder / f"step_{step}_train_state.pt").unlink(missing_ok=True)
    status, output = outcome("pretrain", [*arguments, "load_checkpoint=latest"])
    assert status == 0, output
    assert metrics(folder) == whole


def rank_of_two(rank: int, port: int, arguments: list[str], folder: Path) -> None:
    """One of two ranks under a launcher without an agent; writes down what was printed."""
    with pytest.MonkeyPatch.context() as patch:
        ruin(patch)
        where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        for name, value in where.items():
            patch.setenv(name, str(value))
        status, output = outcome("pretrain", arguments)
    (folder / f"rank_{rank}.txt").write_text(f"{output}\nstatus {status}")


@pytest.mark.thorough
def test_several_ranks_go_back_together(tmp_path: Path):
    data, folder = write_sudoku(tmp_path / "data", groups=12, tests=5), tmp_path / "run"
    more = {"eval_interval": 20, "max_steps": 14, "frozen_rank_seconds": 100}
    arguments = tiny(data, folder, checkpoint_every_steps=3, on_divergence="skip", **more)
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    other = multiprocessing.get_context("spawn").Process(target=rank_of_two, args=(1, port, arguments, tmp_path))
    other.start()
    rank_of_two(0, port, arguments, tmp_path)
    other.join(300)

    printed = [(tmp_path / f"rank_{rank}.txt").read_text() for rank in range(2)]
    assert all(text.endswith("status 0") for text in printed), printed
    assert printed[0].count("leaves out steps 8 to 9") == 1
    lines = metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, 15))
    assert [line["step"] for line in lines if "train/skipped" in line] == [8, 9]
    assert all(math.isfinite(value) for line in lines for value in line.values())


@pytest.mark.thorough
def test_a_ruined_state_is_not_saved(tmp_path: Path, ruined: None):
    data, folder = write_sudoku(tmp_path / "data", groups=12, tests=5), tmp_path / "run"
    arguments = tiny(data, folder, checkpoint_every_steps=4, eval_interval=20, max_steps=14)
    status, output = outcome("pretrain", arguments)
    assert status == 2
    assert "the state after step 8 is not saved, because model.inner." in output
    assert sorted(path.name for path in folder.glob("*step_*")) == ["step_4", "step_4_train_state.pt"]
