"""Perfect mazes, in which one path leads from any free cell to any other: the kind of Maze-Unique (EqR, 2605.21488)."""

from collections.abc import Iterator

import numpy as np

from dataset.tasks.maze.rules import GOAL, MOVES, SPACE, START, WALL
from dataset.tasks.maze.symmetries import maze_keys
from utils.errors import UserError

_FRUITLESS_TRIALS = 2000  # mazes in a row without one that fits before the generator gives up
_SHORTEST, _LONGEST = 100 / 900, 140 / 900  # default path lengths, as shares of the cells: 100 to 140 moves for 30x30


def default_path_range(height: int, width: int) -> tuple[int, int]:
    """The default range of the number of moves from S to G: 100 to 140 for 30x30, as in Maze-Unique."""
    return max(2, round(_SHORTEST * height * width)), max(2, round(_LONGEST * height * width))


def generate_perfect_mazes(
    count: int,
    height: int,
    width: int,
    rng: np.random.Generator,
    min_path: int | None = None,
    max_path: int | None = None,
) -> Iterator[np.ndarray]:
    """`count` perfect mazes, tokens uint8 [height, width], no two of which are equivalent (see `maze_keys`).

    The rooms are the cells with odd row and column. A random depth-first search opens walls between rooms until all are
    connected. Then the number of moves is drawn, uniform in min_path .. max_path, and S and G that are so far apart.

    Raises:
        UserError: no such mazes are found.
    """
    shortest, longest = default_path_range(height, width)
    shortest = shortest if min_path is None else min_path
    longest = max(longest, shortest) if max_path is None else max_path
    if shortest < 2 or longest < shortest:
        raise UserError(f"--min-path {shortest} --max-path {longest}: at least 2 moves, and no more than --max-path.")
    seen: set[bytes] = set()
    fruitless = 0
    while len(seen) < count:
        maze = _with_ends(_carved(height, width, rng), int(rng.integers(shortest, longest + 1)), rng)
        key = b"" if maze is None else maze_keys(maze[None])[0]
        if maze is None or key in seen:
            fruitless += 1
            if fruitless == _FRUITLESS_TRIALS:
                raise UserError(
                    f"{len(seen)} of {count} perfect mazes of {height}x{width} made, and no other with a path of "
                    f"{shortest} to {longest} moves turns up. Ask for fewer mazes, another range of lengths, or larger "
                    "--height and --width."
                )
            continue
        fruitless = 0
        seen.add(key)
        yield maze


def _carved(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Walls and free cells of a random perfect maze, uint8 [height, width]."""
    maze = np.full((height, width), WALL, np.uint8)
    rows, columns = height // 2, width // 2
    room = (int(rng.integers(rows)), int(rng.integers(columns)))
    visited, trail = {room}, [room]
    maze[2 * room[0] + 1, 2 * room[1] + 1] = SPACE
    while trail:
        row, column = trail[-1]
        ahead = [
            (down, right)
            for down, right in MOVES
            if 0 <= row + down < rows and 0 <= column + right < columns and (row + down, column + right) not in visited
        ]
        if not ahead:
            trail.pop()
            continue
        down, right = ahead[int(rng.integers(len(ahead)))]
        maze[2 * row + 1 + down, 2 * column + 1 + right] = SPACE
        row, column = row + down, column + right
        maze[2 * row + 1, 2 * column + 1] = SPACE
        visited.add((row, column))
        trail.append((row, column))
    return maze


def _with_ends(maze: np.ndarray, moves: int, rng: np.random.Generator) -> np.ndarray | None:
    """`maze` with S in a random cell that has another so many moves away, and G there; None: there is no such cell."""
    free = np.argwhere(maze == SPACE)
    for start in rng.permutation(free):
        far = _cells_at(maze, (int(start[0]), int(start[1])), moves)
        if far:
            maze[tuple(start)] = START
            maze[far[int(rng.integers(len(far)))]] = GOAL
            return maze
    return None


def _cells_at(maze: np.ndarray, start: tuple[int, int], moves: int) -> list[tuple[int, int]]:
    """The free cells exactly `moves` moves from `start`."""
    height, width = maze.shape
    layer, seen = [start], {start}
    for _ in range(moves):
        following = []
        for row, column in layer:
            for down, right in MOVES:
                cell = (row + down, column + right)
                inside = 0 <= cell[0] < height and 0 <= cell[1] < width
                if inside and cell not in seen and maze[cell] == SPACE:
                    seen.add(cell)
                    following.append(cell)
        layer = following
    return layer
