"""ARC from the Kaggle files to a submission: train in one process and in two, adapt to new tasks and predict them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.build_arc_dataset import Config, build
from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from tests.paths import SHARED
from tests.runs import TINY_ARCH, arguments, metrics, start

KAGGLE = SHARED / "data" / "arc-kaggle-combined"
PREFIX = str(KAGGLE / "arc-agi")
pytestmark = pytest.mark.skipif(not KAGGLE.exists(), reason="the ARC tasks are not here")

RUN = {
    **TINY_ARCH,
    "device": "cpu",
    "compile": False,
    "wandb_mode": "disabled",
    "show_example": False,
    "global_batch_size": 16,
    "lr_warmup_steps": 2,
    "lr": 1e-2,
    "arch.H_cycles": 1,
    "arch.num_heads": 1,
    "arch.halt_max_steps": 2,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ARC-AGI-1 with eight augmentations."""
    folder = tmp_path_factory.mktemp("arc") / "arc1-aug8"
    subsets = ["training", "evaluation", "concept"]
    build(
        Config(
            input_file_prefix=PREFIX,
            output_dir=folder,
            subsets=subsets,
            test_set_name="evaluation",
            num_aug=8,
        )
    )
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model trained for 20 steps, in one process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(data, folder, processes=0)
    return folder


def train(data: Path, folder: Path, processes: int) -> None:
    settings = {**RUN, "data_paths": [data], "checkpoint_path": folder, "max_steps": 20, "eval_max_examples": 64}
    start("pretrain.py", ["experiment=arc1", *arguments(**settings)], folder.parent, processes)


@pytest.mark.thorough
def test_trains_and_two_processes_equal_one(data: Path, trained: Path, tmp_path: Path):
    train(data, tmp_path / "two", processes=2)
    one, two = metrics(trained), metrics(tmp_path / "two")
    assert len(one) == 20
    assert one[-1]["train/lm_loss"] < one[0]["train/lm_loss"]
    for left, right in zip(one, two, strict=True):
        assert right["train/lm_loss"] == pytest.approx(left["train/lm_loss"], rel=1e-5)
        assert right["train/q_halt_loss"] == pytest.approx(left["train/q_halt_loss"], rel=1e-5, abs=1e-6)
    assert {key: one[-1][key] for key in one[-1] if key.startswith("ARC/")} == {
        key: two[-1][key] for key in two[-1] if key.startswith("ARC/")
    }
    submission = json.loads((trained / "evaluation_step_20" / "submission.json").read_text())
    assert len(submission) == 400


@pytest.mark.thorough
@pytest.mark.parametrize("freeze", [False, True])
def test_adapts_to_new_tasks(trained: Path, tmp_path: Path, freeze: bool):
    steps = 6 if freeze else 24
    challenges = json.loads((KAGGLE / "arc-agi_evaluation_challenges.json").read_text())
    names = sorted(challenges)[:8]
    (tmp_path / "tasks" / "mine").mkdir(parents=True)
    for name in names:
        (tmp_path / "tasks" / "mine" / f"{name}.json").write_text(json.dumps(challenges[name]))
    data = tmp_path / "new"
    build(
        Config(
            input_file_prefix=str(tmp_path / "tasks"),
            output_dir=data,
            subsets=["mine"],
            test_set_name="mine",
            num_aug=12,
        )
    )
    settings = {
        **RUN,
        "data_paths": [data],
        "checkpoint_path": tmp_path / "adapted",
        "load_checkpoint": trained / "step_20",
        "max_steps": steps,
        "ema": False,
        "freeze_weights": freeze,
        "puzzle_emb_lr": 0.1,
    }
    output = start("pretrain.py", ["experiment=arc_adapt", *arguments(**settings)], tmp_path)
    assert "all rows start at the mean" in output

    losses = [line["train/lm_loss"] for line in metrics(tmp_path / "adapted")]
    assert freeze or np.mean(losses[-8:]) < np.mean(losses[:8])
    before = torch.load(trained / "step_20")
    after = torch.load(tmp_path / "adapted" / f"step_{steps}")
    table = "_orig_mod.model.inner.puzzle_emb.weights"
    batches = TrainBatches(PuzzleSplit([data], "train"), 16, seed=0)
    touched = np.unique(np.concatenate([batches[step]["puzzle_identifiers"] for step in range(1, steps + 1)]))
    untouched = np.setdiff1d(np.arange(len(after[table])), touched)
    assert len(untouched) > 5
    mean = before[table].mean(0)
    assert torch.equal(after[table][untouched], mean.expand(len(untouched), -1))
    assert not torch.allclose(after[table], mean)
    same = [torch.equal(before[name], after[name]) for name in before if name.endswith("_proj.weight")]
    assert all(same) if freeze else not any(same)

    submission = json.loads((tmp_path / "adapted" / f"evaluation_step_{steps}" / "submission.json").read_text())
    assert sorted(submission) == names
    assert all(len(submission[name]) == len(challenges[name]["test"]) for name in names)
    assert len(list((tmp_path / "adapted" / f"evaluation_step_{steps}" / "arc_pictures").glob("*.png"))) == 8
