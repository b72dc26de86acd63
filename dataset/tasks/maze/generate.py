"""Random mazes in the style of Searchformer (arXiv:2402.14083, section 4)."""

from collections.abc import Iterator

import numpy as np

from dataset.tasks.maze.paths import layers, packed, unpacked
from dataset.tasks.maze.rules import GOAL, SPACE, START, WALL
from dataset.tasks.maze.symmetries import maze_keys
from utils.errors import UserError

MIN_SIDE = 5
_DRAWS_AT_ONCE = 1 << 19  # cells drawn at once
_FRUITLESS_ROUNDS = 200  # rounds in a row without a new maze before the generator gives up


def default_min_path(height: int, width: int) -> int:
    """The default minimum number of moves from S to G: 109 for 30x30, as in Maze-Hard.

    For smaller grids it is proportional to the area, for larger grids to the sides, because the longest paths in random
    mazes grow with the sides rather than with the area.
    """
    return min(round(109 / 900 * height * width), round(109 / 60 * (height + width)))


def generate_mazes(
    count: int, height: int, width: int, rng: np.random.Generator, min_path: int | None = None
) -> Iterator[np.ndarray]:
    """`count` mazes, tokens uint8 [height, width], no two of which are equivalent (see `maze_keys`).

    As in Searchformer, a wall density between 30 and 50 percent is drawn first, then the walls, then S and G; there is
    no border wall. S is drawn from all free cells, G from the cells at least `min_path` moves away from S.

    Raises:
        UserError: a side is too short, or no mazes with a long enough path are found.
    """
    if min(height, width) < MIN_SIDE:
        raise UserError(f"--height {height} --width {width}: mazes need at least {MIN_SIDE} rows and columns.")
    min_path = default_min_path(height, width) if min_path is None else min_path
    if min_path < 2:
        raise UserError(f"--min-path {min_path}: at least 2 moves, so that there is a path to mark.")
    seen: set[bytes] = set()
    fruitless = 0
    while True:
        made = len(seen)
        mazes = _draw(max(1, _DRAWS_AT_ONCE // (height * width)), height, width, rng, min_path)
        for maze, key in zip(mazes, maze_keys(mazes), strict=True):
            if len(seen) == count:
                return
            if key not in seen:
                seen.add(key)
                yield maze
        if len(seen) == count:
            return
        fruitless = fruitless + 1 if len(seen) == made else 0
        if fruitless == _FRUITLESS_ROUNDS:
            raise UserError(
                f"{made} of {count} mazes of {height}x{width} made, and no other with a path of {min_path} or more "
                "moves turns up. Ask for fewer mazes, a smaller --min-path, or larger --height and --width."
            )


def _draw(n: int, height: int, width: int, rng: np.random.Generator, min_path: int) -> np.ndarray:
    """Draw `n` random mazes, and keep those [kept, height, width] with room for G at least `min_path` moves from S."""
    share = rng.uniform(0.3, 0.5, (n, 1, 1))
    walls = rng.integers(1 << 16, size=(n, height, width), dtype=np.uint16) < (share * (1 << 16)).astype(np.uint16)
    start = _random_cell(~walls, rng)
    far_words = np.zeros_like(packed(start))
    for distance, layer in enumerate(layers(~walls, start)):
        if distance >= min_path:
            far_words |= layer
    kept = far_words.any(axis=(1, 2))
    mazes = np.where(walls[kept], WALL, SPACE).astype(np.uint8)
    mazes[start[kept]] = START
    mazes[_random_cell(unpacked(far_words[kept], width), rng)] = GOAL
    return mazes


def _random_cell(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One uniformly random true cell of each grid: bool [n, height, width]; no cell in grids without a true one."""
    flat = cells.reshape(len(cells), cells.shape[1] * cells.shape[2])
    counts = np.count_nonzero(flat, axis=1)
    rank = np.cumsum(counts) - counts + rng.integers(np.maximum(counts, 1))
    one = np.zeros_like(flat)
    one.reshape(-1)[np.flatnonzero(flat)[rank[counts > 0]]] = True
    return one.reshape(cells.shape)
