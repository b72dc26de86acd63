"""Only the folder that an experiment names is built, and only by a builder of this program."""

import json
import sys
from pathlib import Path

import pytest

from dataset import build_task_dataset
from dataset.build_record import build_and_record
from dataset.building import build_missing_data, builder_modules
from dataset.shards import load_metadata
from dataset.task_choice import task_overrides
from dataset.tasks.arithmetic.build import Config as ArithmeticConfig
from dataset.tasks.arithmetic.build import build as build_arithmetic
from tests.runs import ROOT
from utils.errors import UserError
from utils.hydra import CONFIG_DIR, compose
from utils.settings import DataBuilderConfig

OWN = "data/sudoku-4x4"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def builder(**changes: str) -> DataBuilderConfig:
    options = {"output_dir": OWN, "generate": 6, "test_size": 2, "box": "2x2", "min_clues": 7}
    return DataBuilderConfig(module="dataset.build_sudoku_dataset", options=options | changes)


@pytest.mark.parametrize("spelling", [OWN, f"{OWN}/", f"./{OWN}", "absolute"])
def test_the_folder_of_the_experiment_is_built(tmp_path: Path, spelling: str):
    path = str(tmp_path / OWN) if spelling == "absolute" else spelling
    build_missing_data([path], [], builder())
    assert load_metadata(OWN, "train").total_groups == 6
    before = {file: file.stat().st_mtime_ns for file in Path(OWN).rglob("*")}
    build_missing_data([path], [path], builder())
    assert {file: file.stat().st_mtime_ns for file in Path(OWN).rglob("*")} == before


def test_a_misspelt_path_is_refused_with_the_right_one_and_the_way_to_build_it():
    with pytest.raises(UserError) as caught:
        build_missing_data(["data/sudoku-4x5"], [], builder())
    for part in (
        "data_paths: data/sudoku-4x5 does not exist",
        "Did you mean 'data/sudoku-4x4'?",
        "add data_builder.options.output_dir=data/sudoku-4x5 to build",
        "only data/sudoku-4x4 is built",
    ):
        assert part in str(caught.value)
    assert not Path("data").exists()
    build_missing_data(["data/sudoku-4x5"], [], builder(output_dir="data/sudoku-4x5"))
    assert load_metadata("data/sudoku-4x5", "train").total_groups == 6


def test_nothing_is_built_beside_a_path_that_is_missing():
    for paths, test_paths, key in (([OWN, "data/more"], [], "data_paths"), ([OWN], ["data/more"], "data_paths_test")):
        with pytest.raises(UserError, match=f"^{key}: data/more does not exist"):
            build_missing_data(paths, test_paths, builder())
    assert not Path("data").exists()


def test_without_a_builder_folders_beside_it_are_proposed_and_commands_shown():
    Path("data/mazes").mkdir(parents=True)
    with pytest.raises(UserError, match=r"(?s)Did you mean 'data/mazes'.*build_sudoku_dataset"):
        build_missing_data(["data/maze"], [], None)
    unnamed = DataBuilderConfig(module="dataset.build_sudoku_dataset")
    with pytest.raises(UserError, match=r"data_paths: data/x does not exist"):
        build_missing_data(["data/x"], [], unnamed)


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")))
def test_every_experiment_builds_the_data_that_it_trains_on(experiment: str):
    given = task_overrides(["task=question_answer"]) if experiment == "own_task" else []
    config = compose("cfg_pretrain", [f"experiment={experiment}", *given])
    if experiment == "arc_adapt":
        assert config.data_builder is None
        return
    assert config.data_builder is not None
    assert config.data_paths == [config.data_builder.options["output_dir"]]


def test_the_builders_are_the_commands_and_those_of_the_tasks():
    modules = builder_modules()
    for task in ("arc", "arithmetic", "maze", "sudoku"):
        assert f"dataset.build_{task}_dataset" in modules
        assert f"dataset.tasks.{task}.build" in modules


@pytest.mark.parametrize("module", ["dataset.build_arithmetic_dataset", "dataset.tasks.arithmetic.build"])
def test_what_is_missing_is_built(tmp_path: Path, module: str):
    options = {"output_dir": str(tmp_path / "sums"), "digits": 2, "train_size": 20, "test_size": 5}
    build_missing_data([str(tmp_path / "sums")], [], DataBuilderConfig(module=module, options=options))
    assert load_metadata(tmp_path / "sums", "train").task == "arithmetic"


@pytest.mark.parametrize("module", ["stranger", "dataset.building", "dataset.tasks.stranger.build", ".building", ""])
def test_other_modules_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    options = {"output_dir": str(tmp_path / "data")}
    with pytest.raises(
        UserError, match=f"data_builder.module='{module}': no such module of builders. There are dataset"
    ):
        build_missing_data([str(tmp_path / "data")], [], DataBuilderConfig(module=module, options=options))
    assert "stranger" not in sys.modules
    assert not (tmp_path / "data").exists()


def arithmetic(*given: str, **changes: int | bool) -> DataBuilderConfig:
    options = {"output_dir": "data/sums", "digits": 2, "train_size": 20, "test_size": 5}
    return DataBuilderConfig(
        module="dataset.build_arithmetic_dataset", options=options | changes, given=[*given, *changes]
    )


def build_sums(builder: DataBuilderConfig) -> None:
    build_missing_data(["data/sums"], [], builder)


def test_an_option_that_is_given_for_data_built_with_another_is_refused(capsys: pytest.CaptureFixture[str]):
    build_sums(arithmetic(train_size=20))
    with pytest.raises(UserError) as caught:
        build_sums(arithmetic(train_size=30))
    for part in (
        "data_builder.options.train_size=30: data/sums is there already and was built with train_size=20",
        "data_paths=[data/sums-train-size-30] data_builder.options.output_dir=data/sums-train-size-30",
        "or remove the folder, or leave the option out",
    ):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"seed=7: .* was built with seed=0"):  # a default that was recorded
        build_sums(arithmetic(seed=7))
    with pytest.raises(UserError, match="overwrite: data/sums is there already, and a run never replaces"):
        build_sums(arithmetic(overwrite=True))
    with pytest.raises(UserError, match=r"data_builder.options.trian_size: .*Did you mean 'train_size'"):
        build_sums(arithmetic(trian_size=20))
    capsys.readouterr()
    build_sums(arithmetic(train_size=20, test_size=5))
    assert capsys.readouterr().out == ""


def test_data_built_otherwise_are_used_where_nobody_has_given_an_option(capsys: pytest.CaptureFixture[str]):
    build_and_record(build_arithmetic, ArithmeticConfig(output_dir="data/sums", train_size=9, test_size=5, digits=2))
    capsys.readouterr()
    build_sums(arithmetic())
    said = "note: data/sums is used as it is: it was built with train_size=9, and the configuration has train_size=20"
    assert capsys.readouterr().out.startswith(said)
    with pytest.raises(UserError, match="train_size=20: data/sums is there already and was built with train_size=9"):
        build_sums(arithmetic("train_size"))
    Path("data/sums/build.json").unlink()  # built by an earlier version
    build_sums(arithmetic())
    assert capsys.readouterr().out == ""
    build_sums(arithmetic(train_size=30))
    assert "nobody knows whether it was with train_size=30" in capsys.readouterr().out
    Path("data/sums/build.json").write_text("[]")
    with pytest.raises(UserError, match=r"build.json: expected an object .* Remove it"):
        build_sums(arithmetic("train_size"))


@pytest.mark.usefixtures("nothing_is_given")
def test_options_on_the_command_line_are_the_ones_that_are_given(capsys: pytest.CaptureFixture[str]):
    task, size = f"task={ROOT / 'examples' / 'three_colouring.py'}", "data_builder.options.train_size"
    assert task_overrides(["lr=1", f"+{size}=3", "data_builder.options.output_dir=x", f"{size}=4"])[1] == (
        "data_builder.given=[train_size]"
    )
    for given, message in ((f"{size}=4", None), ("lr=1", None), (f"{size}=5", "was built with train_size=4")):
        config = compose("cfg_pretrain", task_overrides(["experiment=own_task", task, given]))
        assert "given" not in str(config.model_dump()["data_builder"])  # runs are compared without it
        if message is None:
            build_missing_data(config.data_paths, [], config.data_builder)
        else:
            with pytest.raises(UserError, match=message):
                build_missing_data(config.data_paths, [], config.data_builder)
    assert load_metadata("data/three_colouring", "train").total_groups == 4
    config = compose("cfg_pretrain", ["experiment=quickstart", "data_paths=[data/three_colouring]"])
    assert config.data_builder is not None
    build_missing_data(config.data_paths, [], config.data_builder.model_copy(update={"given": ["generate"]}))
    assert "is not among data_paths, so it is not built and not used" in capsys.readouterr().out


@pytest.mark.usefixtures("nothing_is_given")
@pytest.mark.parametrize("by_hand", [False, True])
def test_the_builder_of_a_task_records_its_own_options(by_hand: bool, monkeypatch: pytest.MonkeyPatch):
    sums = {"task": "arithmetic", "output_dir": "data/sums", "digits": 2, "train_size": 20, "test_size": 5}
    config = DataBuilderConfig(module="dataset.build_task_dataset", options=sums)
    if by_hand:
        words = ["--output-dir", "data/sums", "--digits", "2", "--train-size", "20", "--test-size", "5"]
        monkeypatch.setattr(sys, "argv", ["build_task_dataset", "arithmetic", *words])
        build_task_dataset.main()
    else:
        build_sums(config)
    recorded = json.loads(Path("data/sums/build.json").read_text())
    assert recorded == {"digits": 2, "train_size": 20, "test_size": 5, "seed": 0}
    with pytest.raises(UserError, match="seed=3: data/sums is there already and was built with seed=0"):
        build_sums(config.model_copy(update={"options": {**sums, "seed": 3}, "given": ["seed"]}))
