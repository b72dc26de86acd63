"""Paths by doubling against the walk of the builder, and against a plain search."""

import numpy as np
import pytest
import torch

from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.mark_paths import mark_paths
from dataset.tasks.maze.paths import goal_remainders, label_mazes
from dataset.tasks.maze.rules import GOAL, SPACE, START, WALL
from tests.dataset.tasks.maze.plain_bfs import plain_label


def marked(mazes: np.ndarray) -> np.ndarray:
    return mark_paths(torch.from_numpy(mazes), torch.from_numpy(goal_remainders(mazes))).numpy()


@pytest.mark.thorough
@pytest.mark.parametrize(("height", "width"), [(5, 5), (7, 12), (30, 30), (6, 70)])
def test_paths_are_those_of_the_builder(height: int, width: int):
    mazes = np.array(list(generate_mazes(60, height, width, np.random.default_rng(1))))
    assert np.array_equal(marked(mazes), label_mazes(mazes))
    plain = plain_label(mazes[0])
    assert plain is not None
    assert np.array_equal(marked(mazes[:1])[0], plain)


def test_the_longest_of_ways_and_the_shortest():
    snake = np.full((1, 9, 9), SPACE, np.uint8)
    snake[0, 1::4, :8] = snake[0, 3::4, 1:] = WALL
    snake[0, 0, 0], snake[0, 8, 8] = START, GOAL
    assert np.array_equal(marked(snake), label_mazes(snake))
    assert np.count_nonzero(marked(snake) != snake) > 9 * 4
    near = np.full((1, 5, 5), SPACE, np.uint8)
    near[0, 2, 2], near[0, 2, 3] = START, GOAL
    assert np.array_equal(marked(near), near)


def test_other_mazes_in_the_batch_do_not_matter():
    mazes = np.array(list(generate_mazes(12, 9, 9, np.random.default_rng(2))))
    alone = [marked(mazes[i : i + 1]) for i in range(12)]
    assert np.array_equal(np.concatenate(alone), marked(mazes))


def test_what_is_no_maze_is_refused():
    maze = np.full((1, 5, 5), SPACE, np.uint8)
    with pytest.raises(ValueError, match="one S"):
        goal_remainders(maze)
    maze[0, 0, 0], maze[0, 4, 4], maze[0, 3:, 3] = START, GOAL, WALL
    maze[0, 3, 4] = WALL
    with pytest.raises(ValueError, match="no way from S to G"):
        goal_remainders(maze)
