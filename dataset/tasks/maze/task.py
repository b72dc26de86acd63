"""Mazes as a task."""

from typing import ClassVar

import numpy as np

from dataset.tasks.look import Look
from dataset.tasks.maze.augmentation import MazeAugmentation
from dataset.tasks.maze.look import MazeLook
from dataset.tasks.maze.paths import path_lengths
from dataset.tasks.maze.rules import GOAL, PATH, SPACE, START, grid_of
from dataset.tasks.task import Task


class Maze(Task):
    """Mazes of one height and width.

    Most mazes have many shortest paths, but token accuracy accepts only one of them. The checks:
        valid_path: the cells answered "o" are free cells, and together with S and G they form one path between the two,
            without branches, shortcuts or stray cells. The answers at S and G, and which other token is answered at
            the remaining cells, do not matter;
        shortest_path: in addition, the maze has no shorter path.

    Args:
        seq_len: number of cells of a maze.
        vocab_size: number of tokens.
        height: number of rows of a maze; None for square mazes.

    Raises:
        UserError: no mazes have these sizes.
    """

    name: ClassVar[str] = "maze"
    title: ClassVar[str] = "Maze"
    published: ClassVar[tuple[tuple[int, int], ...]] = ((900, 6),)
    checks: ClassVar[tuple[str, ...]] = ("valid_path", "shortest_path")
    builder: ClassVar[str | None] = "dataset.build_maze_dataset"

    def __init__(self, seq_len: int, vocab_size: int, height: int | None = None):
        super().__init__(seq_len, vocab_size)
        self.height, self.width = grid_of(seq_len, vocab_size, height)

    def check(self, inputs: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        """See `Task.check`."""
        mazes = inputs.reshape(-1, self.height, self.width)
        ends = (mazes == START) | (mazes == GOAL)
        marked = (answers.reshape(mazes.shape) == PATH) & ~ends
        off_walls = (~marked | (mazes == SPACE)).all(axis=(1, 2))
        # The shortest path over marked cells only visits all of them exactly if they form a path.
        moves = np.count_nonzero(marked, axis=(1, 2)) + 1
        valid = off_walls & (path_lengths(mazes, marked | ends) == moves)
        return {"valid_path": valid, "shortest_path": valid & (path_lengths(mazes) == moves)}

    def augmentation(self) -> MazeAugmentation:
        """See `Task.augmentation`."""
        return MazeAugmentation(self.height, self.width)

    def look(self) -> Look:
        """See `Task.look`."""
        return MazeLook(self.height, self.width)
