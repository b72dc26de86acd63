"""The rotations and flips of mazes."""

import numpy as np

from dataset.dihedral import dihedral_transform


def transforms_of(height: int, width: int) -> tuple[int, ...]:
    """The dihedral transforms that keep the shape of a grid: all eight for a square, otherwise four."""
    return tuple(range(8)) if height == width else (0, 2, 4, 5)


def transformed_cells(height: int, width: int) -> np.ndarray:
    """The source of each cell under each of `transforms_of`: int64 [transforms, height * width]."""
    cells = np.arange(height * width).reshape(height, width)
    return np.stack([dihedral_transform(cells, t).ravel() for t in transforms_of(height, width)])


def maze_keys(mazes: np.ndarray) -> list[bytes]:
    """One key per maze [n, height, width]; two keys are equal exactly if a rotation or flip makes the mazes equal."""
    n, height, width = mazes.shape
    flat = mazes.reshape(n, height * width).astype(np.uint8)
    images = [flat[:, cells] for cells in transformed_cells(height, width)]
    return [min(image[i].tobytes() for image in images) for i in range(n)]
