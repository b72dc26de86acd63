"""Shortest paths of many mazes at once, by breadth-first search with one bit per cell.

Every maze of Maze-Hard has several shortest paths. The published label is the one that breadth-first search from S
finds if it tries the moves down, left, right, up in this order and keeps the first parent. This is the first shortest
path in the lexicographic order of these moves. Here it is computed from the distances to G, by a walk from S that
always takes the first move that gets closer to G.
"""

from collections.abc import Iterator

import numpy as np

from dataset.tasks.maze.rules import GOAL, MOVES, PATH, START, WALL

_WORD = 64


def layers(passable: np.ndarray, origin: np.ndarray) -> Iterator[np.ndarray]:
    """The passable cells exactly 0, 1, 2, ... moves from `origin`, as long as any of the n mazes has some.

    Both arguments are bool [n, height, width]. The results are uint64 [n, height, words], with one bit per cell and 64
    columns per word, see `packed`.
    """
    unseen = packed(passable)
    frontier = packed(origin) & unseen
    one, last = np.uint64(1), np.uint64(_WORD - 1)
    while frontier.any():
        yield frontier
        unseen &= ~frontier
        reached = (frontier << one) | (frontier >> one)
        if frontier.shape[2] > 1:
            reached[..., 1:] |= frontier[..., :-1] >> last
            reached[..., :-1] |= frontier[..., 1:] << last
        reached[:, 1:] |= frontier[:, :-1]
        reached[:, :-1] |= frontier[:, 1:]
        frontier = reached & unseen


def packed(cells: np.ndarray) -> np.ndarray:
    """bool [n, height, width] -> uint64 [n, height, words]; column c is bit c % 64 of word c // 64."""
    padded = np.pad(cells, ((0, 0), (0, 0), (0, -cells.shape[2] % _WORD)))
    return np.packbits(padded, axis=2, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def unpacked(words: np.ndarray, width: int) -> np.ndarray:
    """Inverse of `packed`: bool [..., height, width]."""
    octets = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=width, bitorder="little").view(np.bool_)


def path_lengths(mazes: np.ndarray, passable: np.ndarray | None = None) -> np.ndarray:
    """Number of moves on a shortest path from S to G: int64 [n], -1 if there is no path (or no S or G).

    Args:
        mazes: tokens [n, height, width].
        passable: bool [n, height, width], the cells that the path may use; None: all but walls and padding.
    """
    if passable is None:
        passable = mazes > WALL
    goal = packed(mazes == GOAL)
    lengths = np.full(len(mazes), -1)
    for distance, layer in enumerate(layers(passable, mazes == START)):
        lengths[(layer & goal).any(axis=(1, 2))] = distance
    return lengths


def label_mazes(inputs: np.ndarray) -> np.ndarray:
    """The published labels of mazes [n, height, width]: a copy with the path marked, S and G kept.

    Raises:
        ValueError: a maze has no path from S to G, or not exactly one S and one G.
    """
    if not len(inputs):
        return inputs.copy()
    mazes = np.pad(inputs, ((0, 0), (1, 1), (1, 1)))  # so that no move leads out of the array
    remainders, distances = _distances_to_goal(mazes)
    _walk(mazes, remainders, distances)
    return np.ascontiguousarray(mazes[:, 1:-1, 1:-1])


def goal_remainders(mazes: np.ndarray) -> np.ndarray:
    """The distance from each cell to G in moves, modulo 4: uint8 [n, height, width].

    It is 255 where G cannot be reached, and may be 255 where a cell is farther from G than S is.

    Raises:
        ValueError: a maze has no path from S to G, or not exactly one S and one G.
    """
    return _distances_to_goal(mazes)[0]


def _distances_to_goal(mazes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`goal_remainders`, and the distance from S to G in moves [n].

    The distances of neighbouring cells differ by one, so two bits distinguish closer from farther neighbours, and two
    bit planes store all distances.
    """
    for token, name in ((START, "S"), (GOAL, "G")):
        if (np.count_nonzero(mazes == token, axis=(1, 2)) != 1).any():
            raise ValueError(f"every maze must have one {name}")
    start = packed(mazes == START)
    distances = np.full(len(mazes), -1)
    reached = low = high = np.zeros_like(start)
    for distance, layer in enumerate(layers(mazes > WALL, mazes == GOAL)):
        reached = reached | layer
        if distance & 1:
            low = low | layer
        if distance & 2:
            high = high | layer
        distances[(layer & start).any(axis=(1, 2))] = distance
        if (distances >= 0).all():
            break
    if (distances < 0).any():
        raise ValueError(f"maze {int(np.argmin(distances))} has no way from S to G")
    width = mazes.shape[2]
    remainders = unpacked(low, width) + 2 * unpacked(high, width).astype(np.uint8)
    remainders[~unpacked(reached, width)] = 255
    return remainders, distances


def _walk(mazes: np.ndarray, remainders: np.ndarray, distances: np.ndarray) -> None:
    """Mark in `mazes` [n, height, width] the path from S that always takes the first move that gets closer to G."""
    cells, remainders = mazes.reshape(-1), remainders.reshape(-1)
    position = np.flatnonzero(cells == START)
    # With mazes sorted by decreasing distance, those whose walk continues always come first.
    order = np.argsort(-distances, kind="stable")
    position, distances = position[order], distances[order]
    for step in range(1, distances[0]):
        walking = np.searchsorted(-distances, -step)  # number of mazes with distances > step
        position, distances = position[:walking], distances[:walking]
        nearer = (distances - step) % 4
        following = position
        for down, right in reversed(MOVES):  # the first possible move is written last, so it wins
            neighbour = position + (down * mazes.shape[2] + right)
            following = np.where(remainders[neighbour] == nearer, neighbour, following)
        position = following
        cells[position] = PATH
