import numpy as np
import pytest
import torch

from dataset.dihedral import dihedral_transform
from dataset.shards import IGNORE_LABEL_ID
from dataset.tasks import load_task
from dataset.tasks.maze.augmentation import MazeAugmentation
from tests.dataset.tasks.augmented import apply, draw, is_uniform, mazes
from tests.dataset.tasks.maze.plain_bfs import plain_label

Tokens = tuple[np.ndarray, np.ndarray]


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
    augmentation = load_task("maze").of(36, 6).augmentation()
    new_inputs, new_labels = apply(augmentation, inputs, labels, {"transform": torch.tensor([1, 1, 1])})
    assert (new_inputs[1] == 0).all()
    assert (new_labels[1:] == IGNORE_LABEL_ID).all()
    assert (new_labels[0] > 0).all()
