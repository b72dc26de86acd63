"""Tokens that stay on the device give the same batches, bit for bit, as those that are loaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.build_maze_dataset import Config as MazeConfig
from dataset.build_maze_dataset import build as build_mazes
from dataset.device_feed import bytes_of, device_batches, stays_on_device
from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from dataset.tasks import load_task
from tests.dataset.small import write_small
from tests.runs import write_sudoku
from utils.errors import UserError

CPU = torch.device("cpu")
DEVICES = [CPU, *([torch.device("cuda", 0)] if torch.cuda.is_available() else [])]
STEPS = range(3, 30)


def feed(
    batches: TrainBatches, resident: bool, device: torch.device = CPU, workers: int = 0
) -> list[dict[str, Tensor]]:
    return list(device_batches(batches, STEPS, device, resident, workers))


def check_same(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> None:
    assert len(one) == len(other) == len(STEPS)
    for left, right in zip(one, other, strict=True):
        assert set(left) == set(right) == {"inputs", "labels", "puzzle_identifiers"}
        for name in left:
            assert left[name].dtype == right[name].dtype == torch.int32
            assert torch.equal(left[name].cpu(), right[name].cpu())


def sudoku(tmp_path: Path, rank: int = 0, ranks: int = 1) -> TrainBatches:
    split = PuzzleSplit([write_sudoku(tmp_path, 9, 2)], "train")
    return TrainBatches(split, 8, 5, rank, ranks, load_task("sudoku").of(16, 6).augmentation())


@pytest.fixture(scope="module")
def mazes(tmp_path_factory: pytest.TempPathFactory) -> TrainBatches:
    root = tmp_path_factory.mktemp("data") / "maze"
    build_mazes(MazeConfig(output_dir=str(root), generate=12, test_size=1, height=8, width=8))
    split = PuzzleSplit([root], "train")
    return TrainBatches(split, 8, 5, augmentation=load_task("maze").of(64, 6).augmentation())


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_augmented_sudokus(tmp_path: Path, device: torch.device):
    batches = sudoku(tmp_path)
    resident = feed(batches, True, device)
    check_same(resident, feed(batches, False, device))
    assert all(batch["inputs"].device == device for batch in resident)
    for step, batch in zip(STEPS, resident, strict=True):
        assert np.array_equal(batch["inputs"].cpu().numpy(), batches[step]["inputs"])


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_augmented_mazes(mazes: TrainBatches, device: torch.device):
    check_same(feed(mazes, True, device), feed(mazes, False, device))


def test_loading_ahead_in_another_process(tmp_path: Path):
    batches = sudoku(tmp_path)
    check_same(feed(batches, False, workers=1), feed(batches, True))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_have_the_batch_of_one_process(tmp_path: Path, ranks: int):
    whole = feed(sudoku(tmp_path), True)
    parts = [feed(sudoku(tmp_path / str(rank), rank, ranks), True) for rank in range(ranks)]
    joined = [{name: torch.cat([p[name] for p in each]) for name in each[0]} for each in zip(*parts, strict=True)]
    check_same(joined, whole)


def test_several_data_sets_with_their_own_identifiers_and_ignored_labels(tmp_path: Path):
    groups = [[5, 1], [2], [1, 3, 2], [4]]
    roots = [write_small(tmp_path / str(i), groups, ignore_label_id=ignored) for i, ignored in enumerate((0, None, 3))]
    for split, dtype in (("1", np.int16), ("2", np.int32)):
        path = tmp_path / split / "train" / "all__labels.npy"
        labels = np.load(path).astype(dtype)
        labels[::3] = -100
        np.save(path, labels)
    batches = TrainBatches(PuzzleSplit(roots, "train"), 6, seed=1)
    check_same(feed(batches, True), feed(batches, False))


def test_what_the_tokens_take(tmp_path: Path, mazes: TrainBatches):
    batches = sudoku(tmp_path)
    assert bytes_of(batches) == 18 * (16 + 16 + 8)
    assert bytes_of(mazes) == 12 * (3 * 64 + 8)


def test_where_the_tokens_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    batches, cuda = sudoku(tmp_path), torch.device("cuda", 0)
    need = bytes_of(batches)

    def choice(setting, free: int, device: torch.device = cuda) -> bool:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10 * free))
        return stays_on_device(setting, batches, device)[0]

    assert choice("auto", 4 * need)
    assert not choice("auto", 4 * need - 1)
    assert choice(True, need)
    assert not choice(False, 4 * need)
    assert not choice("auto", 4 * need, CPU)
    assert choice(True, 0, CPU)
    with pytest.raises(UserError, match=r"data_on_device=true: the training data takes .* Use data_on_device=false"):
        choice(True, need - 1)
