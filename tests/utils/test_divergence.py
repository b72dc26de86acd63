"""What counts as diverged, what is said and recorded about it, and going back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.distributed import Ranks
from utils.divergence import (
    EXPLODING_STEPS,
    MOST_SKIPS,
    Diverged,
    LossWatch,
    check_finite,
    explained_divergence,
    largest_loss,
    train_through,
)
from utils.errors import UserError
from utils.hydra import compose
from utils.run_folder import DIVERGENCES_FILE, RunPlan, skipped_steps
from utils.settings import PretrainConfig

NAN, INF = float("nan"), float("inf")


def config(**settings: Any) -> PretrainConfig:
    return compose("cfg_pretrain", [f"{key}={value}" for key, value in settings.items()])


# -- noticing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train/lm_loss", "train/q_halt_loss", "moe/balance_loss", "optim/grad_norm"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_loss_that_is_not_finite_is_noticed(name: str, value: float):
    watch = LossWatch(None)
    watch.check(6, {"train/lm_loss": 1.0})
    with pytest.raises(Diverged, match=f"{value} at step 7: training has diverged") as caught:
        watch.check(7, {"train/lm_loss": 1.0, name: value})
    assert (caught.value.first, caught.value.last) == (6, 7)


def test_other_metrics_and_steps_that_are_left_out_are_no_losses():
    watch = LossWatch(5.0)
    for step in range(1, 2 * EXPLODING_STEPS):
        watch.check(step, {"train/skipped": 1.0} if step % 2 else {"train/lm_loss": 4.0, "train/steps": NAN})


def test_a_loss_explodes_that_stays_above_the_limit():
    watch, limit = LossWatch(5.0), EXPLODING_STEPS
    for step in range(1, limit):
        watch.check(step, {"train/lm_loss": 6.0})
    watch.check(limit, {"train/lm_loss": 5.0})  # a peak, even a long one, may pass
    for step in range(limit + 1, 2 * limit):
        watch.check(step, {"train/lm_loss": 6.0})
    with pytest.raises(Diverged, match=f"the loss is 6 at step {2 * limit} and has been above 5 since") as caught:
        watch.check(2 * limit, {"train/lm_loss": 6.0})
    assert (caught.value.first, caught.value.last) == (limit, 2 * limit)


def test_the_limit_is_a_multiple_of_the_loss_of_guessing():
    assert largest_loss(config(divergence_factor=3), 10) == pytest.approx(3 * 2.302585)
    assert largest_loss(config(divergence_factor="null"), 10) is None


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_state_that_is_not_finite_is_named(value: float):
    tensors = {"a": torch.ones(3), "count": torch.ones(2, dtype=torch.int64), "none": torch.ones(0)}
    tensors |= {"b": torch.full((2, 3), -3e38), "c": torch.full((2, 3), 3e38, dtype=torch.bfloat16)}
    check_finite(4, tensors, torch.device("cpu"))
    tensors["b"][1, 2] = value
    with pytest.raises(Diverged, match="the state after step 4 is not saved, because b is not finite") as caught:
        check_finite(4, tensors, torch.device("cpu"))
    assert (caught.value.first, caught.value.last) == (4, 4)
    tensors["c"][0, 0] = NAN
    with pytest.raises(Diverged, match="because b is and 1 more tensors are not finite"):
        check_finite(4, tensors, torch.device("cpu"))


# -- explaining and going back -----------------------------------------------------------------------------------------


def names(step: int) -> Sequence[str]:
    return [f"row {10 * step + number}" for number in range(8)]


def explain(folder: Path, first: int = 8, last: int = 9, **settings: Any) -> Diverged:
    plan = RunPlan(folder, "project", "name", "id")
    with pytest.raises(Diverged) as caught, explained_divergence(config(**settings), plan, names, Ranks()):
        raise Diverged(first, last, f"the loss is nan at step {last}")
    return caught.value


def checkpoints(folder: Path, *steps: int) -> None:
    for step in steps:
        (folder / f"step_{step}").touch()
        (folder / f"step_{step}_train_state.pt").touch()


def test_the_message_names_step_examples_and_checkpoint(tmp_path: Path):
    checkpoints(tmp_path, 3, 6)
    (tmp_path / "step_7_train_state.pt").touch()  # without weights
    error = explain(tmp_path)
    state = tmp_path / "step_6_train_state.pt"
    for part in (
        "the loss is nan at step 9: training has diverged.\n",
        f"The batch of step 8 holds row 80, row 81, row 82, row 83, row 84, row 85 and 2 more, see {tmp_path}",
        "The batch of step 9 holds row 90, ",
        f"The last good checkpoint is {state}. Go on from it with load_checkpoint={state} and a lower lr",
        "or with on_divergence=skip",
    ):
        assert part in str(error)
    assert error.back_to is None
    (entry,) = json.loads((tmp_path / DIVERGENCES_FILE).read_text())
    assert entry["examples"] == {"8": names(8), "9": names(9)}
    assert skipped_steps(tmp_path) == frozenset()


def test_ruined_checkpoints_are_set_aside(tmp_path: Path):
    checkpoints(tmp_path, 3, 40, 120)
    error = explain(tmp_path, first=30, last=130)
    assert "Set aside as diverged_step_<N>: step_120, step_120_train_state.pt, step_40, step_40_train" in str(error)
    assert sorted(path.name for path in tmp_path.glob("*step*")) == [
        *sorted(f"diverged_step_{name}" for name in ("40", "40_train_state.pt", "120", "120_train_state.pt")),
        "step_3", "step_3_train_state.pt",
    ]  # fmt: skip


def test_without_a_checkpoint_it_stops(tmp_path: Path):
    error = explain(tmp_path, on_divergence="skip")
    assert "There is no checkpoint from before. Start again with a lower lr" in str(error)
    assert error.back_to is None


def test_it_goes_back_a_few_times_and_leaves_the_steps_out(tmp_path: Path):
    checkpoints(tmp_path, 3)
    for number in range(MOST_SKIPS):
        error = explain(tmp_path, 8 + 10 * number, 9 + 10 * number, on_divergence="skip")
        assert error.back_to == tmp_path / "step_3_train_state.pt"
    assert skipped_steps(tmp_path) == {8, 9, 18, 19, 28, 29, 38, 39, 48, 49}
    error = explain(tmp_path, 58, 59, on_divergence="skip")
    assert error.back_to is None
    assert f"It has gone back {MOST_SKIPS} times already." in str(error)
    assert len(skipped_steps(tmp_path)) == 10


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '[{"first": 1, "last": "2", "skipped": true}]'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str):
    (tmp_path / DIVERGENCES_FILE).write_text(content)
    with pytest.raises(UserError, match=rf"{DIVERGENCES_FILE}.*Remove it: then the run leaves out no steps"):
        skipped_steps(tmp_path)


def test_a_run_is_started_again_from_where_it_goes_back_to():
    loaded: list[str | None] = []
    said: list[str] = []

    def train(config: PretrainConfig) -> None:
        loaded.append(config.load_checkpoint)
        if len(loaded) < 3:
            raise Diverged(1, 2, "nan", back_to=Path(f"step_{len(loaded)}_train_state.pt"))

    train_through(train, config(on_divergence="skip"), said.append)
    assert loaded == [None, "step_1_train_state.pt", "step_2_train_state.pt"]
    assert len(said) == 2

    def hopeless(config: PretrainConfig) -> None:
        raise Diverged(1, 2, "nan")

    with pytest.raises(Diverged):
        train_through(hopeless, config(), said.append)
    assert len(said) == 2
