import numpy as np
import pytest
import torch

from dataset.shards import IGNORE_LABEL_ID
from dataset.tasks import load_task
from dataset.tasks.sudoku.augmentation import SudokuAugmentation
from dataset.tasks.sudoku.rules import BOXES, TOKEN_OFFSET, Box
from tests.dataset.tasks.augmented import apply, draw, is_uniform, sudokus
from tests.dataset.tasks.sudoku.exact_cover import exact_solutions
from tests.dataset.tasks.sudoku.symmetries import orbit

SMALL, MIDDLE, LARGE = BOXES
Tokens = tuple[np.ndarray, np.ndarray]


@pytest.mark.thorough
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
    augmentation = load_task("sudoku").of(box.cells, box.vocab_size).augmentation()
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


def test_seeds_draw_differently():
    augmentation = SudokuAugmentation(LARGE)
    found = {str(draw(augmentation, seed, 4)["rows"].tolist()) for seed in range(-10, 10)}
    assert len(found) == 20
