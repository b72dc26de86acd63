import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.augment import Augmentation, Draws, MazeAugmentation, SudokuAugmentation, make_augmentation
from dataset.dihedral import dihedral_transform
from dataset.maze import generate_mazes, label_mazes
from dataset.shards import IGNORE_LABEL_ID
from dataset.sudoku import BOXES, TOKEN_OFFSET, Box, generate_puzzles
from tests.dataset.exact_cover import exact_solutions
from tests.dataset.plain_bfs import plain_label
from tests.dataset.symmetries import orbit
from utils.errors import UserError

SMALL, MIDDLE, LARGE = BOXES
Tokens = tuple[np.ndarray, np.ndarray]


def sudokus(box: Box, count: int) -> Tokens:
    boards = np.array(list(generate_puzzles(count, box, np.random.default_rng(0)))).astype(np.int32)
    return boards[:, 0] + TOKEN_OFFSET, boards[:, 1] + TOKEN_OFFSET


def mazes(count: int, height: int, width: int) -> Tokens:
    inputs = np.array(list(generate_mazes(count, height, width, np.random.default_rng(0))), np.int32)
    return inputs.reshape(count, -1), label_mazes(inputs).reshape(count, -1)


def draw(augmentation: Augmentation, seed: int, n: int) -> dict[str, Tensor]:
    """For the first n rows."""
    return augmentation.draw(seed, torch.arange(n))


def apply(augmentation: Augmentation, inputs: np.ndarray, labels: np.ndarray, draws: Draws) -> Tokens:
    """New tokens [n, seq_len] as numpy arrays."""
    prepared = augmentation.prepare(inputs, labels)
    assert augmentation.prepares == (prepared is not None)
    found = None if prepared is None else torch.from_numpy(prepared)
    new_inputs, new_labels = augmentation.apply(torch.from_numpy(inputs), torch.from_numpy(labels), found, draws)
    return new_inputs.numpy(), new_labels.numpy()


def is_uniform(values: Tensor, kinds: int) -> bool:
    """Chi-square test: all of `kinds` rows of `values` [n, ...] are as frequent, within 4.5 deviations."""
    counts = np.unique(values.numpy().reshape(len(values), -1), axis=0, return_counts=True)[1]
    if len(counts) != kinds:
        return False
    expected = len(values) / kinds
    return ((counts - expected) ** 2 / expected).sum() < kinds - 1 + 4.5 * (2 * (kinds - 1)) ** 0.5


def test_sudoku_draws_are_uniform_over_the_group():
    n = 60_000
    draws = draw(SudokuAugmentation(SMALL), 0, n)
    assert is_uniform(draws["digits"], 24)
    lines = torch.cat([draws["rows"], draws["columns"], draws["transpose"][:, None]], dim=1)
    assert is_uniform(lines, 8 * 8 * 2)
    both = torch.cat([lines, draws["digits"]], dim=1)
    assert is_uniform(both, 8 * 8 * 2 * 24)
    draws = draw(SudokuAugmentation(MIDDLE), 0, n)
    assert is_uniform(draws["rows"], 48)
    assert is_uniform(draws["columns"], 72)
    assert is_uniform(draws["digits"], 720)
    assert not draws["transpose"].any()
    draws = draw(SudokuAugmentation(LARGE), 0, n)
    assert is_uniform(draws["rows"], 1296)
    assert is_uniform(draws["columns"], 1296)


def test_the_images_of_a_sudoku_are_its_whole_orbit():
    inputs, labels = sudokus(SMALL, 1)
    n = 60_000
    augmentation = SudokuAugmentation(SMALL)
    images, _ = apply(augmentation, inputs.repeat(n, axis=0), labels.repeat(n, axis=0), draw(augmentation, 1, n))
    images = (images - TOKEN_OFFSET).astype(np.uint8)
    expected = orbit(inputs[0] - TOKEN_OFFSET, SMALL)
    assert {image.tobytes() for image in images} == expected
    assert is_uniform(torch.from_numpy(images), len(expected))


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_augmented_sudokus_have_the_augmented_solution(box: Box):
    inputs, labels = sudokus(box, 5)
    copies = {SMALL: 20, MIDDLE: 20, LARGE: 4}[box]
    inputs, labels = inputs.repeat(copies, axis=0), labels.repeat(copies, axis=0)
    augmentation = make_augmentation("sudoku", box.cells, box.vocab_size)
    new_inputs, new_labels = apply(augmentation, inputs, labels, draw(augmentation, 2, len(inputs)))
    assert new_inputs.dtype == inputs.dtype
    assert new_labels.dtype == labels.dtype
    assert (new_inputs != inputs).any(axis=1).all()
    for puzzle, solution in zip(new_inputs - TOKEN_OFFSET, new_labels - TOKEN_OFFSET, strict=True):
        assert list(exact_solutions(puzzle, box)) == [solution.tolist()]


def test_ignored_labels_and_padding_of_a_sudoku_stay():
    inputs, labels = sudokus(LARGE, 3)
    masked = np.where(inputs > TOKEN_OFFSET, IGNORE_LABEL_ID, labels)  # nothing to learn where there is a clue
    inputs[2], masked[2] = 0, IGNORE_LABEL_ID  # fills up a batch
    augmentation = SudokuAugmentation(LARGE)
    draws = draw(augmentation, 0, 3)
    new_inputs, new_labels = apply(augmentation, inputs, labels, draws)
    _, new_masked = apply(augmentation, inputs, masked, draws)
    expected = np.where(new_inputs > TOKEN_OFFSET, IGNORE_LABEL_ID, new_labels)
    assert np.array_equal(new_masked[:2], expected[:2])
    assert (new_inputs[2] == 0).all()
    assert (new_masked[2] == IGNORE_LABEL_ID).all()


@pytest.mark.parametrize(("height", "width", "transforms"), [(7, 7, range(8)), (5, 8, (0, 2, 4, 5))])
def test_augmented_mazes_have_the_published_path(height: int, width: int, transforms: tuple[int, ...]):
    n = 4000
    inputs, labels = mazes(20, height, width)
    inputs, labels = inputs.repeat(n // 20, axis=0), labels.repeat(n // 20, axis=0)
    augmentation = MazeAugmentation(height, width)
    draws = draw(augmentation, 0, n)
    assert is_uniform(draws["transform"], len(transforms))
    new_inputs, new_labels = apply(augmentation, inputs, labels, draws)
    for i in range(0, n, 5):
        transform = transforms[int(draws["transform"][i])]
        turned = dihedral_transform(inputs[i].reshape(height, width), transform)
        assert np.array_equal(new_inputs[i].reshape(height, width), turned)
        plain = plain_label(turned)
        assert plain is not None
        assert np.array_equal(new_labels[i].reshape(height, width), plain)
        if transform == 0:
            assert np.array_equal(new_labels[i], labels[i])


def test_ignored_labels_and_padding_of_a_maze_stay():
    inputs, labels = mazes(3, 6, 6)
    inputs[1] = 0
    labels[1:] = IGNORE_LABEL_ID
    augmentation = make_augmentation("maze", 36, 6)
    new_inputs, new_labels = apply(augmentation, inputs, labels, {"transform": torch.tensor([1, 1, 1])})
    assert (new_inputs[1] == 0).all()
    assert (new_labels[1:] == IGNORE_LABEL_ID).all()
    assert (new_labels[0] > 0).all()


@pytest.mark.parametrize("name", ["sudoku", "maze"])
def test_a_row_depends_on_its_own_place_only(name: str):
    augmentation: Augmentation
    if name == "sudoku":
        augmentation, (inputs, labels) = SudokuAugmentation(LARGE), sudokus(LARGE, 8)
    else:
        augmentation, (inputs, labels) = MazeAugmentation(9, 9), mazes(8, 9, 9)
    new_inputs, new_labels = apply(augmentation, inputs, labels, draw(augmentation, 7, 8))
    for rows in ([5], [0, 1, 2, 3], [7, 2]):
        part = augmentation.draw(7, torch.tensor(rows))
        part_inputs, part_labels = apply(augmentation, inputs[rows], labels[rows], part)
        assert np.array_equal(part_inputs, new_inputs[rows])
        assert np.array_equal(part_labels, new_labels[rows])


def test_seeds_draw_differently():
    augmentation = SudokuAugmentation(LARGE)
    found = {str(draw(augmentation, seed, 4)["rows"].tolist()) for seed in range(-10, 10)}
    assert len(found) == 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["sudoku", "maze"])
def test_every_device_gives_the_same(name: str):
    augmentation: Augmentation
    if name == "sudoku":
        augmentation, (inputs, labels) = SudokuAugmentation(LARGE), sudokus(LARGE, 8)
    else:
        augmentation, (inputs, labels) = MazeAugmentation(9, 9), mazes(8, 9, 9)
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
        make_augmentation(name, seq_len, vocab_size)
