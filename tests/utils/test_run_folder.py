"""Where a run writes and what it goes on from: every branch of the decision."""

import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from utils.checkpoint import save_train_state, save_weights, train_state_path, weights_path
from utils.errors import UserError
from utils.run_folder import RUNS, RunPlan, check_same_run, plan_run

OLD_RUN = {"project": "old-project", "name": "old-name", "wandb_id": "0123abcd"}


@pytest.fixture(autouse=True)
def work_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(load_checkpoint: str | Path | None = None, path: str | None = None, name: str | None = None) -> RunPlan:
    return plan_run(str(load_checkpoint) if load_checkpoint else None, path, "project", name, "trm")


def checkpoint(folder: str | Path, *steps: int, state: bool = True, age: float = 0) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        save_weights(folder, step, nn.Linear(1, 1))
        if state:
            save_train_state(folder, step, {"run": OLD_RUN}, keep=9)
            os.utime(train_state_path(folder, step), (1e9 - age, 1e9 - age))
    return folder


def is_new(found: RunPlan) -> bool:
    return found.resume is None and found.wandb_id != OLD_RUN["wandb_id"]


def goes_on(found: RunPlan, source: Path, step: int, folder: Path) -> bool:
    run = {"project": found.project, "name": found.name, "wandb_id": found.wandb_id}
    note = f"going on from step {step} of {source}"
    return (
        (found.folder, found.resume, found.note) == (folder, (source, step), note)
        and run == OLD_RUN
        and found.weights is None
    )


# -- a new run ---------------------------------------------------------------------------------------------------------


def test_a_new_run_gets_a_name_of_its_own():
    one, other = plan(), plan()
    for found in (one, other):
        assert is_new(found)
        assert found.weights is None
        assert found.name.startswith("trm-")
        assert found.folder == RUNS / "project" / found.name
    assert one.wandb_id != other.wandb_id
    assert one.name != other.name
    assert not RUNS.exists()  # a decision, nothing written


def test_names_and_folders_given_are_taken():
    assert plan(name="mine").folder == RUNS / "project" / "mine"
    found = plan(path="elsewhere", name="mine")
    assert (found.folder, found.name, found.project) == (Path("elsewhere"), "mine", "project")


def test_names_may_name_sub_folders():
    found = plan_run(None, None, "team/project", "group/mine", "trm")
    assert found.folder == RUNS / "team" / "project" / "group" / "mine"


@pytest.mark.parametrize("name", ["../mine", "/tmp/mine", "a/../../mine", "a//b", "a/"])
@pytest.mark.parametrize("load_checkpoint", [None, "latest"])
def test_names_that_lead_out_of_the_folder_of_runs_are_refused(name: str, load_checkpoint: str | None):
    with pytest.raises(UserError, match=f"run_name: '{name}' becomes a folder"):
        plan_run(load_checkpoint, None, "project", name, "trm")
    for run_name in ("mine", None):
        with pytest.raises(UserError, match=f"project_name: '{name}' becomes a folder"):
            plan_run(load_checkpoint, None, name, run_name, "trm")
    assert plan_run(load_checkpoint, "elsewhere", name, name, "trm").folder == Path("elsewhere")


@pytest.mark.parametrize("state", [True, False])
def test_a_new_run_does_not_write_over_an_old_one(state: bool):
    checkpoint(RUNS / "project" / "mine", 5, state=state)
    for arguments in ({"name": "mine"}, {"path": str(RUNS / "project" / "mine")}):
        with pytest.raises(UserError, match="mine already holds checkpoints.*load_checkpoint=latest"):
            plan(**arguments)
    assert is_new(plan(name="other"))


def test_a_folder_without_checkpoints_is_free():
    (RUNS / "project" / "mine").mkdir(parents=True)
    (RUNS / "project" / "mine" / "metrics.jsonl").touch()
    assert is_new(plan(name="mine"))


# -- latest ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{"name": "mine"}, {"path": str(RUNS / "project" / "mine")}])
def test_latest_of_a_run(arguments: dict[str, str]):
    folder = checkpoint(RUNS / "project" / "mine", 9, 10)
    checkpoint(RUNS / "project" / "newer", 99, age=-100)
    assert goes_on(plan("latest", **arguments), folder, 10, folder)


def test_latest_of_the_project_is_the_newest_run():
    checkpoint(RUNS / "project" / "a", 500, age=100)
    newest = checkpoint(RUNS / "project" / "b", 7, 8, age=50)
    checkpoint(RUNS / "project" / "c" / "deeper", 600, age=200)
    checkpoint(RUNS / "another-project" / "d", 700)
    assert goes_on(plan("latest"), newest, 8, newest)


@pytest.mark.parametrize("arguments", [{"name": "mine"}, {"path": "elsewhere"}, {}])
def test_latest_of_nothing_is_a_new_run(arguments: dict[str, str]):
    found = plan("latest", **arguments)
    assert is_new(found)
    assert found.note == f"no checkpoint in {found.folder} yet: a new run"
    assert found.folder == (Path("elsewhere") if "path" in arguments else RUNS / "project" / found.name)


def test_latest_skips_a_step_whose_weights_are_gone():
    folder = checkpoint(RUNS / "project" / "mine", 9, 10)
    weights_path(folder, 10).unlink()
    assert goes_on(plan("latest", name="mine"), folder, 9, folder)


def test_latest_of_weights_alone_is_refused():
    checkpoint(RUNS / "project" / "mine", 5, state=False)
    with pytest.raises(UserError, match="latest: .*mine holds weights, but no train state"):
        plan("latest", name="mine")


# -- a checkpoint given ------------------------------------------------------------------------------------------------


def test_a_folder_given():
    folder = checkpoint("run", 3, 20)
    assert goes_on(plan(folder), folder, 20, folder)
    assert goes_on(plan(folder, name="ignored"), folder, 20, folder)
    assert goes_on(plan(folder, path="new"), folder, 20, Path("new"))


def test_a_folder_without_train_state_is_refused():
    for folder in (checkpoint("weights", 3, state=False), checkpoint("empty")):
        with pytest.raises(UserError, match=rf"{folder}: there is no step_<N>_train_state\.pt in this folder"):
            plan(folder)


def test_a_train_state_given():
    folder = checkpoint("run", 3, 20)
    assert goes_on(plan(train_state_path(folder, 20)), folder, 20, folder)
    assert goes_on(plan(train_state_path(folder, 3), path="new"), folder, 3, Path("new"))
    with pytest.raises(UserError, match="holds step 20 too: going on from step 3 there would mix two runs"):
        plan(train_state_path(folder, 3))


@pytest.mark.parametrize("name", ["step_4_train_state.pt", "step_x_train_state.pt", "last_train_state.pt"])
def test_a_train_state_without_its_weights_is_refused(name: str):
    folder = checkpoint("run", 3)
    (folder / "step_3_train_state.pt").rename(folder / name)
    with pytest.raises(UserError, match=rf"{name}: the weights, step_.*, must lie beside it"):
        plan(folder / name)


def test_a_missing_or_broken_train_state_is_refused():
    folder = checkpoint("run", 3, 4, state=False)
    with pytest.raises(UserError, match="there is no file"):
        plan(train_state_path(folder, 3))
    train_state_path(folder, 4).write_bytes(b"")
    for given in (train_state_path(folder, 4), folder):
        with pytest.raises(UserError, match="corrupted or no checkpoint"):
            plan(given)


@pytest.mark.parametrize("run", [None, [], {"project": "p", "name": "n"}, {**OLD_RUN, "name": 1}])
def test_a_train_state_of_no_run_is_refused(run: Any):
    folder = checkpoint("run", 3)
    save_train_state(folder, 3, {"run": run}, keep=1)
    with pytest.raises(UserError, match=r"step_3_train_state\.pt does not say of which run it is"):
        plan(folder)


def test_weights_given_start_a_new_run():
    weights = weights_path(checkpoint("run", 3, state=False), 3)
    found = plan(weights, name="mine")
    assert is_new(found)
    assert (found.weights, found.folder) == (weights, RUNS / "project" / "mine")
    assert found.note == f"a new run from the weights {weights}"
    checkpoint("run", 3)
    assert plan(weights).note.endswith(f"(to go on with its run: load_checkpoint={weights}_train_state.pt)")


def test_a_new_run_from_weights_does_not_write_over_their_run():
    folder = checkpoint("run", 3)
    with pytest.raises(UserError, match="run already holds checkpoints"):
        plan(weights_path(folder, 3), path="run")


def test_going_on_elsewhere_does_not_write_over_another_run():
    folder = checkpoint("run", 3)
    checkpoint("other", 50)
    with pytest.raises(UserError, match="other already holds checkpoints"):
        plan(folder, path="other")
    with pytest.raises(UserError, match="other already holds checkpoints"):
        plan(train_state_path(folder, 3), path="other")


# -- the same run ------------------------------------------------------------------------------------------------------


def test_changes_on_which_the_state_depends_are_refused():
    before = {"lr": 1, "arch": {"hidden": 1}, "seed": 0}
    with pytest.raises(UserError) as caught:
        check_same_run(before, {"lr": 2, "arch": {"hidden": 2}}, ("arch", "seed"))
    assert str(caught.value).splitlines() == [
        "the checkpoint was made with other settings:",
        "  arch: {'hidden': 1} before, {'hidden': 2} now",
        "  seed: 0 before, None now",
        "A resumed run must keep them; load the weights alone (load_checkpoint=.../step_<N>) to start a new run with "
        "other settings.",
    ]


def test_a_run_may_become_longer_if_its_steps_so_far_stay_those_of_the_longer_run():
    before = {"epochs": 2, "lr_min_ratio": 1.0, "arch": {"depth_curriculum": []}}
    assert check_same_run(before, before | {"epochs": 4}, ("epochs",)) == ["epochs: 2 before, 4 now"]
    stages = before | {"arch": {"depth_curriculum": [{"until": 0.5, "H_cycles": 1, "L_cycles": 1}]}}
    with pytest.raises(UserError, match="epochs: 2 before, 4 now"):
        check_same_run(stages, stages | {"epochs": 4}, ("epochs",))


def test_other_changes_are_shown():
    before = {"lr": 1, "gone": 2, "same": {"a": [1]}, "seed": 0}
    now = {"lr": 3, "new": 4, "same": {"a": [1]}, "seed": 0}
    assert check_same_run(before, now, ("seed",)) == [
        "gone: 2 before, None now",
        "lr: 1 before, 3 now",
        "new: None before, 4 now",
    ]


def test_where_and_how_to_run_may_change_without_a_word():
    names = ("load_checkpoint", "run_name", "project_name", "checkpoint_path")
    free = (*names, "device", "wandb_mode", "num_workers", "token_cache")
    before: dict[str, Any] = dict.fromkeys(free, "a")
    now: dict[str, Any] = dict.fromkeys(free, "b")
    assert check_same_run(before, now, free) == []


def test_folders_of_data_may_be_spelt_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before = {"data_paths": ["data/x"], "data_paths_test": []}
    for spelling in ("data/x/", "./data/x", str(tmp_path / "data" / "x")):
        assert check_same_run(before, before | {"data_paths": [spelling]}, ("data_paths",)) == []
    with pytest.raises(UserError, match=r"data_paths: \['data/x'\] before, \['data/y'\] now"):
        check_same_run(before, before | {"data_paths": ["data/y"]}, ("data_paths",))


def test_a_dtype_left_to_the_machine_ties_no_run_to_it():
    auto, chosen = {"arch": {"forward_dtype": "auto"}}, {"arch": {"forward_dtype": "bfloat16"}}
    assert check_same_run(auto | {"resolved": {"forward_dtype": "bfloat16"}}, auto, ("arch",)) == []
    with pytest.raises(UserError, match="'auto'} before, {'forward_dtype': 'bfloat16'} now"):
        check_same_run(auto | {"resolved": {"forward_dtype": "bfloat16"}}, chosen, ("arch",))
    with pytest.raises(UserError, match="'bfloat16'} before, {'forward_dtype': 'auto'} now"):
        check_same_run(chosen | {"resolved": {"forward_dtype": "bfloat16"}}, auto, ("arch",))
    # earlier versions saved only what auto came to
    assert check_same_run(chosen, auto, ("arch",)) == []


@pytest.mark.parametrize("key", ["epochs", "max_sequences"])
def test_a_run_at_a_constant_rate_may_become_longer(key: str):
    before = {key: 10, "lr_min_ratio": 1.0}
    assert check_same_run(before, before | {key: 11}, (key,)) == [f"{key}: 10 before, 11 now"]
    for old, new in (
        ({}, {key: 9}),
        ({"lr_min_ratio": 0.1}, {key: 11, "lr_min_ratio": 0.1}),
        ({"lr_min_ratio": 0.1}, {key: 11}),
        ({}, {key: 11, "lr_min_ratio": 0.1}),
        ({"lr_warmup_ratio": 0.1}, {key: 11, "lr_warmup_ratio": 0.1}),
    ):
        with pytest.raises(UserError, match=f"{key}: 10 before"):
            check_same_run(before | old, before | new, (key,))
