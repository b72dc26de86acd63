import numpy as np

from dataset.tasks.maze.symmetries import maze_keys


def test_keys_are_the_same_for_images_only():
    rng = np.random.default_rng(0)
    square = rng.integers(1, 3, (2, 6, 6))
    images = np.array([image for turn in range(4) for t in (np.rot90(square[0], turn),) for image in (t, t.T)])
    assert len(set(maze_keys(images))) == 1
    assert maze_keys(square)[0] != maze_keys(square)[1]
    oblong = rng.integers(1, 3, (1, 5, 7))
    images = np.concatenate([oblong, oblong[:, ::-1], oblong[:, :, ::-1], oblong[:, ::-1, ::-1]])
    assert len(set(maze_keys(images))) == 1
