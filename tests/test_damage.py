"""A run with a damaged file: nothing is loaded as something else, and the run goes on from what is whole."""

import shutil
from pathlib import Path

import pytest

from tests.damage import STEPS, damage_all, make_run
from tests.runs import different, metrics, outcome, tiny
from utils.checkpoint import load_train_state, load_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("damage"))


@pytest.mark.thorough
def test_no_damage_loads_other_numbers(run: Path):
    report = damage_all(run, flips=30, cuts=15, seed=1)
    assert report.bad == []
    assert min(report.counts[name] for name in ("same", "older", "refused")) > 2


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["step_6", "step_6_train_state.pt"])
def test_a_run_goes_on_from_the_newest_whole_checkpoint_to_the_same_end(
    run: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    broken = Path(shutil.copytree(run, tmp_path / "run"))
    content = (broken / name).read_bytes()
    (broken / name).write_bytes(content[:-1])
    settings = {"max_steps": STEPS[-1], "checkpoint_every_steps": STEPS[0], "compile": False, "eval_interval": None}
    args = tiny(run.parent / "data", broken, **settings, load_checkpoint="latest")
    status, output = outcome("pretrain", args)
    assert status == 0, output
    assert f"{name} is corrupted" in output
    assert "so step 3 is taken instead of step 6; its files are kept as step_6.damaged and step_6_train_state" in output
    assert (broken / f"{name}.damaged").read_bytes() == content[:-1]
    assert different(load_weights(broken / "step_6"), load_weights(run / "step_6")) == []
    states = [load_train_state(folder / "step_6_train_state.pt") for folder in (broken, run)]
    for state in states:
        del state["config"], state["run"]
    assert different(*states) == []
    assert metrics(broken) == metrics(run)
