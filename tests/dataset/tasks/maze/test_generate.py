import numpy as np
import pytest

from dataset.tasks.maze.generate import default_min_path, generate_mazes
from dataset.tasks.maze.paths import path_lengths
from dataset.tasks.maze.rules import GOAL, SPACE, START, WALL
from dataset.tasks.maze.symmetries import maze_keys
from utils.errors import UserError


@pytest.mark.parametrize(("shape", "count"), [((5, 5), 60), ((6, 9), 60), ((20, 20), 60), ((30, 30), 4)], ids=str)
def test_generated_mazes(shape: tuple[int, int], count: int):
    mazes = np.array(list(generate_mazes(count, *shape, np.random.default_rng(0))))
    assert mazes.shape == (count, *shape)
    assert path_lengths(mazes).min() >= default_min_path(*shape)
    assert (np.count_nonzero(mazes == START, axis=(1, 2)) == 1).all()
    assert set(np.unique(mazes)) == {WALL, SPACE, START, GOAL}
    assert 0.25 < np.mean(mazes == WALL) < 0.5
    assert np.any(mazes[:, 0] != WALL)  # no border wall
    images = {grid.tobytes() for m in mazes for turn in range(4) for grid in (np.rot90(m, turn), np.rot90(m, turn).T)}
    symmetric = count * 8 - len(images)
    assert symmetric < count / 4  # nearly all have eight images of their own: none is another one's image
    assert len(set(maze_keys(mazes))) == count


def test_generation_is_reproducible():
    def made(seed: int) -> bytes:
        return np.array(list(generate_mazes(5, 8, 8, np.random.default_rng(seed)))).tobytes()

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_the_default_path_is_that_of_maze_hard():
    assert default_min_path(30, 30) == 109


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 4, 9), "at least 5"),
        ((1, 5, 5, np.random.default_rng(0), 24), "0 of 1 mazes"),
        ((1, 5, 5, np.random.default_rng(0), 1), "at least 2 moves"),
    ],
)
def test_impossible_wishes_are_refused(arguments: tuple, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dataset.tasks.maze.generate._FRUITLESS_ROUNDS", 3)
    if len(arguments) == 3:
        arguments = (*arguments, np.random.default_rng(0))
    with pytest.raises(UserError, match=message):
        list(generate_mazes(*arguments))
