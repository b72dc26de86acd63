"""A run that is killed and resumed equals a run that was never killed, bit for bit."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import different, kill_at, metrics, outcome, refused, start, tiny, write_sudoku
from utils import machine
from utils.checkpoint import load_train_state, train_state_path, weights_path
from utils.config import read_yaml

STEPS = 60
# halting on q_halt > q_continue sets in at once, so slots soon stand at different steps
HALTING = {"arch.no_ACT_continue": False, "arch.halt_max_steps": 5}


@pytest.mark.thorough
@pytest.mark.parametrize("processes", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, processes: int):
    data = write_sudoku(tmp_path / "data", groups=18, tests=7)
    settings = {"checkpoint_every_steps": 7, "max_steps": STEPS, "grad_accum_steps": 1 if processes else 2, **HALTING}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start("pretrain.py", tiny(data, whole, **settings), tmp_path, processes)

    args = tiny(data, broken, **settings, load_checkpoint="latest")
    kill_at("pretrain.py", random.Random(processes).randrange(9, STEPS - 15), args, tmp_path, broken, processes)
    assert not weights_path(broken, STEPS).exists()
    output = start("pretrain.py", args, tmp_path, processes)
    assert "going on from step" in output

    assert (broken / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert [line["step"] for line in metrics(whole)] == list(range(1, STEPS + 1))
    assert different(torch.load(weights_path(whole, STEPS)), torch.load(weights_path(broken, STEPS))) == []
    one, two = (load_train_state(train_state_path(folder, STEPS)) for folder in (whole, broken))
    for state in (one, two):
        del state["run"], state["config"]  # names and folders differ
    assert len(one["carry"]["steps"].unique()) > 1  # slots in the middle of examples, at different steps
    assert different(one, two) == []


# of the architectures after TRM: their configuration, and what makes them as small as the others
FAMILY: dict[str, dict[str, Any]] = {
    "urm": {},
    "eqr": {"arch.puzzle_emb_ndim": 0},
    "se_rrm_sudoku": {"arch.head_dim": 8, "arch.head_dim_t": 8, "arch.num_heads_t": 1},
    "fprm": {"arch.n_backwards_L": 2, "arch.max_iter_eval": 8},
    "trm_wta": {"arch.num_chains": 3},
}
# noise and dropout of a training, which every process draws for itself
WITHOUT_CHANCE: dict[str, dict[str, Any]] = {"eqr": {"arch.noise_scale": 0}, "se_rrm_sudoku": {"arch.dropout": 0}}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FAMILY)
def test_the_family_in_two_processes_killed_and_resumed(tmp_path: Path, architecture: str):
    data = write_sudoku(tmp_path / "data", groups=18, tests=7)
    settings = {"arch": architecture, "checkpoint_every_steps": 5, "max_steps": 30, **FAMILY[architecture]}
    whole, broken, one = tmp_path / "whole", tmp_path / "broken", tmp_path / "one"
    start("pretrain.py", tiny(data, whole, **settings), tmp_path, processes=2)
    args = tiny(data, broken, **settings, load_checkpoint="latest")
    kill_at("pretrain.py", 12, args, tmp_path, broken, processes=2)
    assert "going on from step" in start("pretrain.py", args, tmp_path, processes=2)
    assert metrics(whole) == metrics(broken)
    assert different(torch.load(weights_path(whole, 30)), torch.load(weights_path(broken, 30))) == []

    two = whole
    if architecture in WITHOUT_CHANCE:
        two, settings = tmp_path / "two", settings | WITHOUT_CHANCE[architecture]
        start("pretrain.py", tiny(data, two, **settings), tmp_path, processes=2)
    start("pretrain.py", tiny(data, one, **settings), tmp_path)
    for left, right in zip(metrics(two), metrics(one), strict=True):
        assert left["train/lm_loss"] == pytest.approx(right["train/lm_loss"], rel=1e-4)


@pytest.mark.thorough
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=18, tests=7)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start("pretrain.py", tiny(data, whole, max_steps=30), tmp_path)
    start("pretrain.py", tiny(data, parts, max_steps=11), tmp_path)
    start("pretrain.py", tiny(data, parts, max_steps=30, load_checkpoint="latest"), tmp_path, processes=2)
    for one, two in zip(metrics(whole), metrics(parts), strict=True):
        assert one["train/lm_loss"] == pytest.approx(two["train/lm_loss"], rel=1e-5)
        assert one["train/count"] == two["train/count"]


def test_a_run_of_dtype_auto_goes_on_on_hardware_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    data = write_sudoku(tmp_path / "data", groups=18, tests=7)
    settings: dict[str, Any] = {"arch.forward_dtype": "auto", "project_name": "p", "load_checkpoint": "latest"}
    said: dict[str, str] = {}
    for dtype, last in (("bfloat16", 2), ("float32", 4)):
        monkeypatch.setattr(machine, "_has_bfloat16", lambda _, dtype=dtype: dtype == "bfloat16")
        status, said[dtype] = outcome("pretrain", tiny(data, None, **settings, max_steps=last, compile=False))
        assert status == 0, said[dtype]
        (folder,) = (tmp_path / "checkpoints" / "p").iterdir()  # `latest` has found the run
        saved = read_yaml(folder / "all_config.yaml")
        assert (saved["arch"]["forward_dtype"], saved["resolved"]["forward_dtype"]) == ("auto", dtype)
        assert load_train_state(train_state_path(folder, last))["carry"]["states"]["z_H"].dtype == getattr(torch, dtype)
    assert "note: forward_dtype was bfloat16 up to the checkpoint and is float32 from here" in said["float32"]
    assert "changed since" not in said["float32"]
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3, 4]
    status, output = outcome("evaluate", [f"load_checkpoint={folder / 'step_4'}", "device=cpu", "compile=false"])
    assert (status, "dtype: float32 (no fast bfloat16 here)" in output, "dropped" in output) == (0, True, False), output


@pytest.mark.thorough
def test_a_run_goes_on_with_moved_data_and_more_epochs_as_if_both_had_been_so(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=18, tests=7)
    settings = {"epochs": 6, "eval_interval": 3}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start("pretrain.py", tiny(data, whole, **settings), tmp_path)
    start("pretrain.py", tiny(data, parts, **settings | {"epochs": 3}), tmp_path)
    moved = tiny(data.rename(tmp_path / "moved"), parts, **settings, load_checkpoint="latest")
    output = start("pretrain.py", moved, tmp_path)
    assert "changed since the checkpoint: epochs: 3 before, 6 now" in output
    assert metrics(whole) == metrics(parts)
    status, output = outcome("pretrain", [*moved, "lr_min_ratio=0.1", "epochs=9"])
    assert (status, "epochs: 6 before, 9 now" in output) == (2, True)
    (parts / "train_data.json").unlink()
    (tmp_path / "moved").rename(data)
    refused("pretrain", tiny(data, parts, **settings, load_checkpoint="latest"), "data_paths: ", "moved'] before")
