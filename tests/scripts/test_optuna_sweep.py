"""Sweeps guided by Optuna: what is searched, what is found, and how they go on after failures and signals."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from scripts.optuna_sweep import Config, check_space, last_value, run_process, search_space, summary, sweep
from tests.runs import outcome, tiny, write_sudoku
from utils.errors import UserError
from utils.exit_status import STOPPED

optuna = pytest.importorskip("optuna")
METRIC = "all/exact_accuracy"


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    return dict(override.split("=", 1) for override in overrides)


def quick(
    score: Callable[[dict[str, str]], float], statuses: dict[int, list[int]], seen: list[list[str]]
) -> Callable[[Path, Sequence[str]], int]:
    """A trial that writes its score; of a number in `statuses`, its starts end with these first."""

    def run(folder: Path, overrides: Sequence[str]) -> int:
        seen.append([folder.name, *overrides])
        waiting = statuses.get(int(folder.name.split("_")[1]), [])
        if waiting and (status := waiting.pop(0)):
            return status
        folder.mkdir(exist_ok=True)
        lines = [{"step": 1, METRIC: 0.0}, {"step": 2, METRIC: score(settings_of(overrides))}, {"step": 3}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0

    return run


def distance(settings: dict[str, str]) -> float:
    """Best at a learning rate of 1e-3 with 64 hidden units."""
    return -abs(float(settings["lr"]) - 1e-3) - (0.01 if settings["arch.hidden_size"] == "128" else 0)


def test_what_is_searched():
    fixed, space = search_space(
        ["experiment=quickstart", "lr=log(1e-4,1e-2)", "arch.hidden_size=choice(64,128)", "seed=1,2", "arch=trm,hrm",
         "weight_decay=interval(0,1)", "arch.L_cycles=int(interval(1,8))", "epochs=range(10,50,10)",
         "eval_interval=null", "arch.expansion=int(log(1,16))"]
    )  # fmt: skip
    assert fixed == ["experiment=quickstart", "eval_interval=null"]
    kinds = optuna.distributions
    assert space == {
        "lr": kinds.FloatDistribution(1e-4, 1e-2, log=True),
        "arch.hidden_size": kinds.CategoricalDistribution(["64", "128"]),
        "seed": kinds.CategoricalDistribution(["1", "2"]),
        "arch": kinds.CategoricalDistribution(["trm", "hrm"]),
        "weight_decay": kinds.FloatDistribution(0, 1),
        "arch.L_cycles": kinds.IntDistribution(1, 8),
        "epochs": kinds.IntDistribution(10, 40, step=10),
        "arch.expansion": kinds.IntDistribution(1, 16, log=True),
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lr=1e-3"], "nothing is to be searched"),
        (["lr=log(0,1)"], "lr=tag"),
        (["lr=log(1"], "cannot be read"),
        (["lr=1,2", "checkpoint_path=x"], "a run folder of its own"),
        (["lr=1,2", "arhc.hidden_size=64,128"], "arhc: no such key"),
        (["epochs=10000,sixty"], "epochs='sixty'"),
        (["lr=interval(-1,1)"], "lr=-1"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_trial(overrides: list[str], message: str):
    with pytest.raises(UserError, match=message):
        check_space("cfg_pretrain", *search_space(overrides))


def test_the_better_half_is_found_and_a_failed_trial_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    overrides = ["experiment=quickstart", "lr=log(1e-5,1e-1)", "arch.hidden_size=choice(64,128)"]
    config, seen = Config(tmp_path / "s", overrides, trials=6), list[list[str]]()
    study = sweep(config, quick(distance, {1: [2]}, seen))
    assert len(seen) == 6
    assert seen[0][1] == "experiment=quickstart"
    assert seen[5][-3:] == [f"checkpoint_path={tmp_path}/s/trial_5", "run_name=s-5", "load_checkpoint=latest"]
    assert float(study.best_params["lr"]) < 1e-2
    assert study.best_params["arch.hidden_size"] == "64"
    lines = summary(study, config).splitlines()
    assert f"arch.hidden_size={study.best_params['arch.hidden_size']}" in lines[1]
    assert len(lines) == 1 + 5 + 2
    assert lines[-2:] == ["failed trials: 1", "  trial 1: status 2"]
    assert "trial 1: failed (status 2)" in capsys.readouterr().err
    # more trials of the same study
    sweep(Config(tmp_path / "s", overrides, trials=7), quick(distance, {}, seen))
    assert [name for name, *_ in seen[6:]] == ["trial_6"]
    with pytest.raises(UserError, match="has direction maximize, not minimize"):
        sweep(Config(tmp_path / "s", overrides, trials=7, minimize=True), quick(distance, {}, seen))


def test_a_stopped_trial_goes_on_with_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, seen = Config(tmp_path / "s", ["lr=log(1e-5,1e-1)", "arch.hidden_size=64,128"], trials=4), list[list[str]]()
    run = quick(distance, {2: [STOPPED]}, seen)
    with pytest.raises(SystemExit) as end:
        sweep(config, run)
    assert end.value.code == STOPPED

    def no_such_process(process: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr("os.kill", no_such_process)  # the one that was stopped has ended
    study = sweep(config, run)
    assert [name for name, *_ in seen] == ["trial_0", "trial_1", "trial_2", "trial_2", "trial_4"]
    assert seen[2] == seen[3]
    assert len(summary(study, config).splitlines()) == 1 + 4


def test_the_last_value_counts(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert last_value(path, "a") is None
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 3, "ab": 7}\n{"step": 3, "b": 2}\n')
    assert last_value(path, "a") == 3
    assert last_value(path, "c") is None


def test_a_trial_in_a_process_leaves_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.executable", "/bin/echo")
    run = run_process(Config(tmp_path, processes=2, config_name="cfg_pretrain"))
    assert run(tmp_path / "trial_0", ["lr=1"]) == 0
    text = (tmp_path / "trial_0.txt").read_text()
    assert "torch.distributed.run --standalone --nproc-per-node=2" in text
    assert text.endswith("pretrain.py --config-name cfg_pretrain lr=1\n")


@pytest.mark.thorough
def test_six_short_trainings_find_the_better_learning_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = write_sudoku(tmp_path / "data", groups=18, tests=4)
    own = [word for word in tiny(data, None, max_steps=25) if not word.startswith(("lr=", "checkpoint_path="))]
    said: list[str] = []

    def run(folder: Path, overrides: Sequence[str]) -> int:
        status, output = outcome("pretrain", list(overrides))
        said.append(output)
        return status

    overrides = [*own, "lr=log(1e-6,1e-1)"]
    study = sweep(Config(tmp_path / "s", overrides, trials=6, metric="train/lm_loss", minimize=True), run)
    losses = {trial.params["lr"]: trial.value or 0.0 for trial in study.get_trials()}
    assert len(losses) == 6, said
    by_loss = sorted(losses, key=lambda lr: losses[lr])
    assert 3e-4 < by_loss[0] < 1e-1
    assert min(by_loss[:3]) > min(by_loss[3:])
