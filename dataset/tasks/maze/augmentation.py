"""The symmetries of mazes, drawn at random for each example."""

import numpy as np
import torch
from torch import Tensor

from dataset.augmentation import Draws
from dataset.tasks.maze.mark_paths import mark_paths
from dataset.tasks.maze.paths import goal_remainders
from dataset.tasks.maze.rules import PAD
from dataset.tasks.maze.symmetries import transformed_cells
from utils.counter_random import random_words


class MazeAugmentation:
    """Rotates and flips mazes, keeping the shape of the grid, and then recomputes the path.

    The label of a rotated maze is not the rotated label, because the published path is one of several shortest paths,
    chosen by the order of directions (see `dataset.tasks.maze.paths`).
    """

    prepares = True

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self._cells = torch.from_numpy(transformed_cells(height, width))

    def prepare(self, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The distances to G modulo 4, see `goal_remainders`; 255 in rows without a maze or without a label."""
        labelled = (inputs != PAD).any(axis=1) & (labels > PAD).any(axis=1)
        remainders = np.full(inputs.shape, 255, np.uint8)
        mazes = inputs[labelled].reshape(-1, self.height, self.width)
        remainders[labelled] = goal_remainders(mazes).reshape(len(mazes), -1)
        return remainders

    def draw(self, seed: int, rows: Tensor) -> dict[str, Tensor]:
        """See `Augmentation.draw`: int64 transform [n], indices into `dataset.tasks.maze.symmetries.transforms_of`."""
        return {"transform": random_words(seed, rows, 1)[:, 0] % len(self._cells)}

    def apply(self, inputs: Tensor, labels: Tensor, prepared: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor]:
        """See `Augmentation.apply`. Rows without a maze or without a label keep their labels."""
        assert prepared is not None
        self._cells = self._cells.to(inputs.device)
        source = self._cells[draws["transform"]]
        inputs, remainders = inputs.gather(1, source), prepared.gather(1, source)
        grid = (len(inputs), self.height, self.width)
        paths = mark_paths(inputs.view(grid), remainders.view(grid)).flatten(1)
        labelled = (inputs != PAD).any(1) & (labels > PAD).any(1)
        return inputs, torch.where(labelled[:, None], paths.to(labels.dtype), labels)
