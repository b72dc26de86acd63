"""The length of a run and its evaluations, against the plain formula."""

from pathlib import Path
from typing import Any

import pytest

from dataset.opening import open_augmentation, plan_epochs
from dataset.puzzle_dataset import PuzzleSplit
from dataset.tasks import load_task
from tests.dataset.small import write_small
from tests.runs import write_sudoku
from utils.errors import UserError
from utils.hydra import compose
from utils.settings import PretrainConfig

GROUPS = [[2, 1], [3], [1, 1, 1]]  # 4.5 examples in an epoch


def config(**settings: Any) -> PretrainConfig:
    return compose("cfg_pretrain", [f"{key}={'null' if value is None else value}" for key, value in settings.items()])


@pytest.mark.parametrize("size", [1, 2, 7, 50])
@pytest.mark.parametrize(("interval", "first"), [(1, 0), (5, 0), (5, 3), (60, 0), (None, 0), (1, None), (2, 100)])
def test_evaluations_follow_every_interval(tmp_path: Path, size: int, interval: int | None, first: int | None):
    split = PuzzleSplit([write_small(tmp_path, GROUPS)], "train")
    total, evaluations = plan_epochs(
        config(epochs=60, eval_interval=interval, min_eval_interval=first, global_batch_size=size), split
    )
    per_epoch, every = 4.5 / size, interval or 60
    assert total == int(60 * per_epoch)
    expected = {int((index + 1) * every * per_epoch) for index in range(first or 0, 60 // every)}
    assert evaluations == expected & set(range(1, total + 1))


def test_very_many_epochs_are_planned_at_once(tmp_path: Path):
    split = PuzzleSplit([write_small(tmp_path, GROUPS)], "train")
    total, evaluations = plan_epochs(config(epochs=10**10, eval_interval=1, global_batch_size=9), split)
    assert total == 5 * 10**9
    assert total in evaluations


def test_the_symmetries_of_another_task_are_refused(tmp_path: Path):
    split = PuzzleSplit([write_sudoku(tmp_path / "data", groups=3, tests=1)], "train")  # 16 tokens: a 4x4 maze too
    with pytest.raises(UserError, match="augmentation=maze: .*data holds puzzles of the task sudoku.*=sudoku or"):
        open_augmentation("maze", split)
    symmetries = open_augmentation("sudoku", split)
    assert type(symmetries) is type(load_task("sudoku").of(16, 6).augmentation())


def test_data_without_a_task_take_the_symmetries_that_are_asked_for(tmp_path: Path):
    root = write_sudoku(tmp_path, groups=3, tests=1)
    path = root / "train" / "dataset.json"
    path.write_text(path.read_text().replace('"task": "sudoku"', '"task": null'))
    split = PuzzleSplit([root], "train")
    assert type(open_augmentation("maze", split)) is not type(open_augmentation("sudoku", split))
