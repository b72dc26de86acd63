"""Every architecture against recorded fp32 runs of the published code.

`RECORDED_RUNS=FOLDER uv run pytest tests/models/test_recorded_runs.py` reads the runs of another folder.
"""

from pathlib import Path

import pytest
import torch

from tests.models.recorded import ACT_KINDS, Recording, for_each_run
from tests.models.replay import Replay
from tests.models.replay_ldt import replay_search, replay_symmetries, replay_training
from tests.models.replay_starts import replay_starts
from utils.muon import Muon, orthogonal

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
# On a CPU the runs of these systems agree to 1e-5; those of the others amplify rounding more.
CLOSE = ("trm", "hrm", "transformers")


@pytest.mark.parametrize("device", DEVICES)
@for_each_run(*ACT_KINDS)
def test_agrees_with_the_recorded_run(run: Path, device: str):
    close = device == "cpu" and run.stem.startswith(CLOSE)
    recording = Recording(run, tolerance=1e-5 if close else 1e-4)
    replay = Replay(recording, device)
    replay.train()
    replay.evaluate()
    if "eval_plus2/all_finish" in recording.arrays:
        replay.evaluate("eval_plus2/", halt_max_steps=replay.model.config.halt_max_steps + 2)
    if "select/preds" in recording.arrays:
        replay_starts(recording)
    assert not recording.unchecked, f"recorded and not compared: {sorted(recording.unchecked)[:10]}"


LDT_KINDS = ("ldt", "ldt_rope_k2")


@for_each_run(*LDT_KINDS)
def test_training_of_the_ldt_agrees_with_the_recorded_run(run: Path):
    replay_training(run)


@for_each_run(*LDT_KINDS)
def test_symmetries_of_the_ldt_agree_with_the_recorded_run(run: Path):
    replay_symmetries(run)


@for_each_run(*LDT_KINDS)
def test_the_search_of_the_ldt_agrees_with_the_recorded_run(run: Path):
    replay_search(run)


@for_each_run("muon")
def test_muon_agrees_with_the_recorded_run(run: Path):
    recording = Recording(run, tolerance=1e-4)
    adamw, rates = recording.config["adamw"], recording.config["lrs"]
    parameters = {name: torch.nn.Parameter(value) for name, value in recording.under("init/").items()}
    optimizer = Muon(parameters.values(), rates[0], tuple(adamw["betas"]), adamw["weight_decay"])
    for step, rate in enumerate(rates, start=1):
        gradients = recording.under(f"step{step}/draw/grad/")
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        for name, parameter in parameters.items():
            recording.check(f"step{step}/weights/{name}", parameter)
            if parameter.ndim == 2:
                recording.check(f"step{step}/momentum/{name}", optimizer.state[parameter]["momentum_buffer"])
    gradients = recording.under("step1/draw/grad/")
    for key in [key for key in recording.unchecked if key.startswith("msign/")]:
        _, iterations, name = key.split("/")
        recording.check(key, orthogonal(gradients[name], int(iterations)))
    assert not recording.unchecked
