"""train: every flag is an override of pretrain.py, and the three ways to start a run are one run."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from dataset.task_choice import task_overrides
from tests.runs import ROOT, metrics, start, tiny, write_sudoku
from tests.tiny_recursive_model.running import run
from tiny_recursive_model.training import Flags, command, overrides_of, train
from utils.errors import UserError
from utils.hydra import compose
from utils.settings import PretrainConfig


def composed(**flags: Any) -> PretrainConfig:
    given = Flags(**flags)
    return compose("cfg_pretrain", task_overrides(overrides_of(given)))


def options(config: PretrainConfig) -> dict[str, object]:
    assert config.data_builder is not None
    assert config.data_paths == [config.data_builder.options["output_dir"]]
    return config.data_builder.options


def test_flags_become_settings():
    config = composed(
        task="sudoku", grid_size=9, n_train=50, n_augmentations=4, epochs=7, batch_size=8, lr=0.01, seed=3
    )
    assert (config.epochs, config.global_batch_size, config.lr, config.seed) == (7, 8, 0.01, 3)
    assert config.eval_interval is None
    assert config.augmentation is None
    assert {key: options(config)[key] for key in ("generate", "num_aug", "box", "seed")} == {
        "generate": 50, "num_aug": 4, "box": "3x3", "seed": 3,
    }  # fmt: skip
    assert options(composed(n_train=50))["box"] == "2x3"
    assert options(composed(n_train=50))["output_dir"] != options(composed(n_train=60))["output_dir"]
    assert options(composed(n_train=50))["output_dir"] != options(composed(n_train=50, grid_size=4))["output_dir"]
    maze = options(composed(task="maze", grid_size=12, n_train=30, n_augmentations=7))
    assert (maze["height"], maze["width"], maze["generate"], maze["aug"]) == (12, 12, 30, True)
    added = composed(task="arithmetic", grid_size=3, n_train=40)
    assert (options(added)["digits"], options(added)["train_size"]) == (3, 40)
    assert composed(task="arc", epochs=5).evaluators[0].name == "arc@ARC"
    assert composed(overrides=["arch.hidden_size=32"]).arch.own_keys["hidden_size"] == 32
    plain = composed()
    expected = compose("cfg_pretrain", ["experiment=quickstart"])
    assert plain.model_dump(exclude={"checkpoint_path"}) == expected.model_dump(exclude={"checkpoint_path"})
    assert str(plain.checkpoint_path).startswith("checkpoints/tiny/sudoku-")


@pytest.mark.usefixtures("nothing_is_given")
def test_a_task_of_ones_own_has_the_flags_that_fit(monkeypatch: pytest.MonkeyPatch):
    file = str(ROOT / "examples" / "futoshiki.py")
    config = composed(task=file, n_train=30, seed=3, epochs=2)
    assert (options(config)["train_size"], options(config)["seed"]) == (30, 3)
    assert options(config)["task"] == "futoshiki"
    assert options(config)["output_dir"] == "data/tiny/futoshiki-train-size-30-seed-3"
    assert (config.epochs, config.evaluators[0].name, config.augmentation) == (2, "futoshiki@Futoshiki", "futoshiki")
    assert options(composed(task=file))["output_dir"] == "data/futoshiki"
    assert str(composed(task=file).checkpoint_path).startswith("checkpoints/tiny/futoshiki-")
    for flags, part in (({"grid_size": 5}, "--grid-size"), ({"n_augmentations": 2}, "--n-augmentations")):
        with pytest.raises(UserError, match=f"{part}: the task itself .* Leave the flag out"):
            composed(task=file, **flags)
    seen: list[PretrainConfig] = []  # by the command, which Hydra reads
    monkeypatch.setattr("pretrain.run", seen.append)
    status, output, _ = run(monkeypatch, "train", "--task", file, "--n-train", 30, "--output", "run")
    assert status == 0
    assert f"the same as: python pretrain.py task={file} experiment=own_task" in output
    assert seen == [composed(task=file, n_train=30, output="run")]
    with pytest.raises(UserError, match=r"--task 'sudoko'.*sudoku"):
        composed(task="sudoko")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"grid_size": 5}, "4, 6 or 9"),
        ({"task": "maze", "n_augmentations": 3}, "0 or 7"),
        ({"task": "arithmetic", "n_augmentations": 3}, "no symmetries"),
        ({"task": "arc", "n_train": 3}, "--n-train.*build_arc_dataset"),
    ],
)
def test_flags_that_do_not_fit(flags: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=message):
        composed(**flags)
    words = [f"--{key.replace('_', '-')}={value}" for key, value in flags.items()]
    assert run(monkeypatch, "train", *words)[0] == 2


def test_unknown_flags(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="there is no flag n_trian; there are task, epochs, n_train"):
        train("sudoku", n_trian=5)
    assert run(monkeypatch, "train", "--n-trian", 5)[0] == 2
    status, _, errors = run(monkeypatch, "train", "eval_intervall=5")
    assert status == 2
    assert "Did you mean 'eval_interval'" in errors


@pytest.mark.thorough
def test_three_ways_to_start_a_run_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = write_sudoku(tmp_path / "data", groups=6, tests=2, own_ids=False)
    settings = [item for item in tiny(data, None, max_steps=6) if not item.startswith(("checkpoint_path", "epochs"))]
    settings += ["data_builder=null", "eval_early_halting=false"]
    flags: dict[str, Any] = {"epochs": 20, "batch_size": 6, "seed": 4}
    reasoner = train("sudoku", overrides=settings, output=str(tmp_path / "python"), **flags)
    assert reasoner.task.seq_len == 16
    words = ["--epochs", "20", "--batch-size", "6", "--seed", "4", "--output", str(tmp_path / "command")]
    status, output, errors = run(monkeypatch, "train", *words, *settings)
    assert status == 0, errors
    line = next(line for line in output.splitlines() if line.startswith("the same as: "))
    printed = shlex.split(line.removeprefix("the same as: "))
    assert printed[:2] == ["python", "pretrain.py"]
    assert printed == shlex.split(
        command(overrides_of(Flags(output=str(tmp_path / "command"), overrides=settings, **flags)))
    )
    hydra = [word for word in printed[2:] if not word.startswith("checkpoint_path")]
    start("pretrain.py", [*hydra, f"checkpoint_path={tmp_path / 'hydra'}"], tmp_path)
    first, second, third = (metrics(tmp_path / name) for name in ("python", "command", "hydra"))
    assert len(first) == 6
    assert first == second == third
    assert all(line["train/lm_loss"] > 0 for line in first)
