import numpy as np
import pytest

from dataset.augment import Augmentation, MazeAugmentation, SudokuAugmentation, make_augmentation
from dataset.dihedral import dihedral_transform
from dataset.maze import generate_mazes, label_mazes
from dataset.shards import IGNORE_LABEL_ID
from dataset.sudoku import BOXES, TOKEN_OFFSET, Box, generate_puzzles
from tests.dataset.exact_cover import exact_solutions
from tests.dataset.plain_bfs import plain_label
from tests.dataset.symmetries import orbit
from utils.errors import UserError

SMALL, MIDDLE, LARGE = BOXES


def sudokus(box: Box, count: int) -> tuple[np.ndarray, np.ndarray]:
    boards = np.array(list(generate_puzzles(count, box, np.random.default_rng(0)))).astype(np.int32)
    return boards[:, 0] + TOKEN_OFFSET, boards[:, 1] + TOKEN_OFFSET


def mazes(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    inputs = np.array(list(generate_mazes(count, height, width, np.random.default_rng(0))), np.int32)
    return inputs.reshape(count, -1), label_mazes(inputs).reshape(count, -1)


def is_uniform(values: np.ndarray, kinds: int) -> bool:
    """Chi-square test: all of `kinds` rows of `values` [n, ...] are as frequent, within 4.5 deviations."""
    counts = np.unique(values.reshape(len(values), -1), axis=0, return_counts=True)[1]
    if len(counts) != kinds:
        return False
    expected = len(values) / kinds
    return ((counts - expected) ** 2 / expected).sum() < kinds - 1 + 4.5 * (2 * (kinds - 1)) ** 0.5


def test_sudoku_draws_are_uniform_over_the_group():
    n = 60_000
    draws = SudokuAugmentation(SMALL).draw(np.random.default_rng(0), n)
    assert is_uniform(draws["digits"], 24)
    lines = np.concatenate([draws["rows"], draws["columns"], draws["transpose"][:, None]], axis=1)
    assert is_uniform(lines, 8 * 8 * 2)
    both = np.concatenate([lines, draws["digits"]], axis=1)
    assert is_uniform(both, 8 * 8 * 2 * 24)
    draws = SudokuAugmentation(MIDDLE).draw(np.random.default_rng(0), n)
    assert is_uniform(draws["rows"], 48)
    assert is_uniform(draws["columns"], 72)
    assert is_uniform(draws["digits"], 720)
    assert not draws["transpose"].any()
    draws = SudokuAugmentation(LARGE).draw(np.random.default_rng(0), n)
    assert is_uniform(draws["rows"], 1296)
    assert is_uniform(draws["columns"], 1296)


def test_the_images_of_a_sudoku_are_its_whole_orbit():
    inputs, labels = sudokus(SMALL, 1)
    n = 60_000
    augmentation = SudokuAugmentation(SMALL)
    draws = augmentation.draw(np.random.default_rng(1), n)
    images, _ = augmentation.apply(inputs.repeat(n, axis=0), labels.repeat(n, axis=0), draws)
    found = {image.tobytes() for image in (images - TOKEN_OFFSET).astype(np.uint8)}
    assert found == orbit(inputs[0] - TOKEN_OFFSET, SMALL)


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_augmented_sudokus_have_the_augmented_solution(box: Box):
    inputs, labels = sudokus(box, 5)
    copies = {SMALL: 20, MIDDLE: 20, LARGE: 4}[box]
    inputs, labels = inputs.repeat(copies, axis=0), labels.repeat(copies, axis=0)
    augmentation = make_augmentation("sudoku", box.cells, box.vocab_size)
    new_inputs, new_labels = augmentation.apply(
        inputs, labels, augmentation.draw(np.random.default_rng(2), len(inputs))
    )
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
    draws = augmentation.draw(np.random.default_rng(0), 3)
    new_inputs, new_labels = augmentation.apply(inputs, labels, draws)
    _, new_masked = augmentation.apply(inputs, masked, draws)
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
    draws = augmentation.draw(np.random.default_rng(0), n)
    assert is_uniform(draws["transform"], len(transforms))
    new_inputs, new_labels = augmentation.apply(inputs, labels, draws)
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
    new_inputs, new_labels = augmentation.apply(inputs, labels, {"transform": np.array([1, 1, 1])})
    assert (new_inputs[1] == 0).all()
    assert (new_labels[1:] == IGNORE_LABEL_ID).all()
    assert (new_labels[0] > 0).all()


@pytest.mark.parametrize("name", ["sudoku", "maze"])
def test_a_row_depends_on_its_own_draws_only(name: str):
    augmentation: Augmentation
    if name == "sudoku":
        augmentation, (inputs, labels) = SudokuAugmentation(LARGE), sudokus(LARGE, 8)
    else:
        augmentation, (inputs, labels) = MazeAugmentation(9, 9), mazes(8, 9, 9)
    draws = augmentation.draw(np.random.default_rng(7), 8)
    again = augmentation.draw(np.random.default_rng(7), 8)
    new_inputs, new_labels = augmentation.apply(inputs, labels, draws)
    for rows in ([5], [0, 1, 2, 3], [7, 2]):
        part = {key: values[rows] for key, values in again.items()}
        part_inputs, part_labels = augmentation.apply(inputs[rows], labels[rows], part)
        assert np.array_equal(part_inputs, new_inputs[rows])
        assert np.array_equal(part_labels, new_labels[rows])


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
