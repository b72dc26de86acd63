import numpy as np
import pytest
import torch

from dataset.augmentation import Augmentation
from dataset.tasks import load_task
from dataset.tasks.maze.augmentation import MazeAugmentation
from dataset.tasks.sudoku.augmentation import SudokuAugmentation
from dataset.tasks.sudoku.rules import BOXES
from tests.dataset.tasks.augmented import apply, draw, mazes, sudokus
from utils.errors import UserError

LARGE = BOXES[-1]


def eight_rows(name: str) -> tuple[Augmentation, np.ndarray, np.ndarray]:
    """The augmentation of a task, and inputs and labels [8, cells] for it."""
    if name == "sudoku":
        return SudokuAugmentation(LARGE), *sudokus(LARGE, 8)
    return MazeAugmentation(9, 9), *mazes(8, 9, 9)


@pytest.mark.parametrize("name", ["sudoku", "maze"])
def test_a_row_depends_on_its_own_place_only(name: str):
    augmentation, inputs, labels = eight_rows(name)
    new_inputs, new_labels = apply(augmentation, inputs, labels, draw(augmentation, 7, 8))
    for rows in ([5], [0, 1, 2, 3], [7, 2]):
        part = augmentation.draw(7, torch.tensor(rows))
        part_inputs, part_labels = apply(augmentation, inputs[rows], labels[rows], part)
        assert np.array_equal(part_inputs, new_inputs[rows])
        assert np.array_equal(part_labels, new_labels[rows])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["sudoku", "maze"])
def test_every_device_gives_the_same(name: str):
    augmentation, inputs, labels = eight_rows(name)
    expected = apply(augmentation, inputs, labels, draw(augmentation, 3, 8))
    prepared = augmentation.prepare(inputs, labels)
    tokens = [torch.from_numpy(x).cuda() for x in (inputs, labels)]
    there = None if prepared is None else torch.from_numpy(prepared).cuda()
    found = augmentation.apply(tokens[0], tokens[1], there, augmentation.draw(3, torch.arange(8, device="cuda")))
    assert all(np.array_equal(one.cpu().numpy(), other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "seq_len", "vocab_size", "message"),
    [
        ("sodoku", 81, 11, "Did you mean 'sudoku'"),
        ("sudoku", 81, 12, "fit no Sudoku"),
        ("maze", 900, 12, "6 tokens"),
        ("maze", 40, 6, "no square"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, seq_len: int, vocab_size: int, message: str):
    with pytest.raises(UserError, match=message):
        load_task(name, "augmentation").of(seq_len, vocab_size).augmentation()
