"""Which weights and train states stay."""

import json
from pathlib import Path
from typing import Any

import pytest

from utils.retention import Retention, Scores
from utils.settings import ArchConfig, LossConfig, PretrainConfig

LOSS = LossConfig(name="losses@ACTLossHead", loss_type="stablemax_cross_entropy")
ARCH = ArchConfig(name="recursive_reasoning.trm@TinyRecursiveModel", loss=LOSS)
EVALUATED = {10: 0.5, 20: 0.9, 30: 0.7, 40: 0.9, 50: 0.1}


def run(folder: Path, settings: dict[str, Any]) -> tuple[set[int], set[int]]:
    """The steps of the weights and of the train states after a run of 53 steps that saves at every fifth."""
    retention = Retention(PretrainConfig(arch=ARCH, **settings), folder, lambda step: step in EVALUATED)
    with (folder / "metrics.jsonl").open("a", buffering=1) as log:
        for step in range(1, 54):
            score = {"all/exact_accuracy": EVALUATED[step]} if step in EVALUATED else {}
            log.write(json.dumps({"step": step, "train/lm_loss": 1.0, **score}) + "\n")
            if step % 5 == 0:
                (folder / f"step_{step}").touch()
                (folder / f"step_{step}_train_state.pt").touch()
                retention.apply()
    names = [path.name.removeprefix("step_") for path in folder.glob("step_*")]
    weights = {int(name) for name in names if name.isdigit()}
    states = {int(name.removesuffix("_train_state.pt")) for name in names if not name.isdigit()}
    return weights, states


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, {10, 20, 30, 40, 45, 50}),
        ({"keep_last": 2}, {40, 45, 50}),
        ({"keep_last": 3}, {30, 40, 45, 50}),
        ({"keep_best": 1}, {20, 45, 50}),  # of 20 and 40, which are equal, the earlier one
        ({"keep_best": 3}, {20, 30, 40, 45, 50}),
        ({"keep_best": 2, "keep_last": 1}, {20, 40, 45, 50}),
        ({"keep_best": 1, "keep_best_by": "train/lm_loss"}, {10, 45, 50}),
    ],
)
def test_weights_of_evaluations_stay_and_others_go_with_their_train_state(
    tmp_path: Path, settings: dict[str, Any], weights: set[int]
):
    (tmp_path / "step_3").touch()  # somebody else's: it has no train state
    assert run(tmp_path, settings) == (weights | {3}, {45, 50})


def test_as_many_train_states_as_asked_for_keep_their_weights(tmp_path: Path):
    assert run(tmp_path, {"keep_train_states": 4, "keep_last": 1}) == ({35, 40, 45, 50}, {35, 40, 45, 50})


def test_scores_are_read_as_they_come(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "eval/perplexity": 3.0}\n{"step": 2}\n{"step": 3, "eval/perpl')
    scores = Scores(path, "eval/perplexity")
    assert scores.read() == {1: -3.0}
    with path.open("a") as file:
        file.write('exity": 2.0}\n')
    assert scores.read() == {1: -3.0, 3: -2.0}
