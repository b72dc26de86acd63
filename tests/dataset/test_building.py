"""Only the folder that an experiment names is built, and only by a builder of this program."""

import sys
from pathlib import Path

import pytest

from dataset.building import build_missing_data, builder_modules
from dataset.shards import load_metadata
from dataset.task_choice import task_overrides
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
