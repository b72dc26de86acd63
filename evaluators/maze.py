"""Mazes beyond token accuracy: does the marked path lead from S to G, and is it a shortest one?

Most mazes have many shortest paths, and token accuracy knows one of them only.
"""

from typing import ClassVar

import numpy as np

from dataset.maze import GOAL, PATH, SPACE, START, grid_of, path_lengths
from dataset.shards import PuzzleDatasetMetadata
from evaluators.counting import CountingEvaluator


class Maze(CountingEvaluator):
    """Shares of the mazes, as `Maze/<metric>`.

    valid_path: the cells predicted "o" are free, and with S and G of the maze they form one path between the two,
    without branches, shortcuts or stray cells. What is predicted at S and G, and which token stands at
    other cells, does not matter;
    shortest_path: moreover, no path of the maze is shorter.

    Args:
        data_path: folder of the data set.
        eval_metadata: its sizes.
        height: rows of a maze; None for square ones.

    Raises:
        UserError: the data set holds no mazes, or none of that height.
    """

    metrics: ClassVar[tuple[str, ...]] = ("valid_path", "shortest_path")

    def __init__(self, data_path: str, eval_metadata: PuzzleDatasetMetadata, height: int | None = None):
        super().__init__(data_path, eval_metadata)
        self.height, self.width = grid_of(eval_metadata.seq_len, eval_metadata.vocab_size, height)

    def judge(self, inputs: np.ndarray, preds: np.ndarray) -> dict[str, np.ndarray]:
        """See `CountingEvaluator.judge`."""
        mazes = inputs.reshape(-1, self.height, self.width)
        ends = (mazes == START) | (mazes == GOAL)
        marked = (preds.reshape(mazes.shape) == PATH) & ~ends
        off_walls = (~marked | (mazes == SPACE)).all(axis=(1, 2))
        # The shortest way over the marked cells alone visits all of them only if they are a path.
        moves = np.count_nonzero(marked, axis=(1, 2)) + 1
        valid = off_walls & (path_lengths(mazes, marked | ends) == moves)
        return {"valid_path": valid, "shortest_path": valid & (path_lengths(mazes) == moves)}
