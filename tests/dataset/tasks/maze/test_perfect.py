import numpy as np
import pytest

from dataset.tasks.maze.paths import path_lengths
from dataset.tasks.maze.perfect import default_path_range, generate_perfect_mazes
from dataset.tasks.maze.rules import SPACE, WALL
from dataset.tasks.maze.symmetries import maze_keys
from utils.errors import UserError


@pytest.mark.parametrize("shape", [(30, 30), (11, 15)], ids=str)
def test_one_path_leads_from_any_cell_to_any_other(shape: tuple[int, int]):
    mazes = np.array(list(generate_perfect_mazes(6, *shape, np.random.default_rng(0))))
    shortest, longest = default_path_range(*shape)
    lengths = path_lengths(mazes)
    assert lengths.min() >= shortest
    assert lengths.max() <= longest
    assert len(set(lengths.tolist())) > 2
    free = mazes >= SPACE
    # a connected graph with one edge less than cells is a tree; all cells are reached from each other if rooms are
    neighbours = np.count_nonzero(free[:, 1:] & free[:, :-1], axis=(1, 2))
    neighbours += np.count_nonzero(free[:, :, 1:] & free[:, :, :-1], axis=(1, 2))
    assert (neighbours == np.count_nonzero(free, axis=(1, 2)) - 1).all()
    assert free[:, 1::2, 1::2].all()
    assert (mazes[:, 0] == WALL).all()
    assert len(set(maze_keys(mazes))) == 6


def test_the_default_lengths_are_those_of_maze_unique():
    assert default_path_range(30, 30) == (100, 140)


@pytest.mark.parametrize("lengths", [(1, 5), (9, 8), (400, 500)], ids=str)
def test_impossible_lengths_are_refused(lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dataset.tasks.maze.perfect._FRUITLESS_TRIALS", 3)
    with pytest.raises(UserError, match="path"):
        list(generate_perfect_mazes(1, 9, 9, np.random.default_rng(0), *lengths))
