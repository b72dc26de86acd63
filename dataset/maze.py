"""Mazes: tokens, the published shortest path, and a generator like Searchformer's (arXiv:2402.14083, section 4).

A maze is [height, width] of tokens (or its cells in one row): 0 pads, otherwise the index in `# SGo` plus 1.
The label is the maze with a shortest path from S to G marked "o". No Maze-Hard maze has only one shortest path; the
published label is the one that breadth-first search from S finds when it looks down, left, right, up and keeps the
first parent. That is the first shortest path in the alphabetical order of these moves, which is how it is found here,
for many mazes at once: distances to G first, then a walk from S that takes the first move that comes nearer.
"""

from collections.abc import Iterator
from math import isqrt

import numpy as np

from dataset.dihedral import dihedral_transform
from utils.errors import UserError

CHARACTERS = "# SGo"
PAD, WALL, SPACE, START, GOAL, PATH = range(6)
VOCAB_SIZE = 6
MIN_SIDE = 5
MOVES = ((1, 0), (0, -1), (0, 1), (-1, 0))  # down, left, right, up: (row, column)
_WORD = 64
_DRAWS_AT_ONCE = 1 << 19  # cells drawn together by the generator
_FRUITLESS_ROUNDS = 200  # draws in a row without a new maze before the generator gives up


def grid_of(seq_len: int, vocab_size: int, height: int | None = None) -> tuple[int, int]:
    """(height, width) of the mazes of a data set, square unless `height` is given.

    Raises:
        UserError: the sizes fit no maze.
    """
    if vocab_size != VOCAB_SIZE:
        raise UserError(
            f"vocab_size {vocab_size}: mazes have {VOCAB_SIZE} tokens. "
            "Choose a data set built with `python -m dataset.build_maze_dataset`."
        )
    if height is None:
        height = isqrt(seq_len)
        if height**2 != seq_len:
            raise UserError(f"seq_len {seq_len} is no square number: give the `height` of the mazes.")
    elif height < 1 or seq_len % height:
        raise UserError(f"mazes of {height} rows: seq_len {seq_len} must be a multiple of the height.")
    return height, seq_len // height


def transforms_of(height: int, width: int) -> tuple[int, ...]:
    """The dihedral transforms that keep the shape of a grid: all eight of a square, four of any other."""
    return tuple(range(8)) if height == width else (0, 2, 4, 5)


def transformed_cells(height: int, width: int) -> np.ndarray:
    """Source cell of each cell under each of `transforms_of`: int64 [transforms, height * width]."""
    cells = np.arange(height * width).reshape(height, width)
    return np.stack([dihedral_transform(cells, t).ravel() for t in transforms_of(height, width)])


def maze_keys(mazes: np.ndarray) -> list[bytes]:
    """One key per maze [n, height, width]: equal where a turn or a flip makes two mazes equal, else different."""
    n, height, width = mazes.shape
    flat = mazes.reshape(n, height * width).astype(np.uint8)
    images = [flat[:, cells] for cells in transformed_cells(height, width)]
    return [min(image[i].tobytes() for image in images) for i in range(n)]


def _layers(passable: np.ndarray, origin: np.ndarray) -> Iterator[np.ndarray]:
    """The passable cells 0, 1, 2, ... moves from `origin` (both bool [n, height, width]), while there are any.

    Of n mazes together, one bit per cell: uint64 [n, height, words], 64 columns to a word.
    """
    unseen = _packed(passable)
    frontier = _packed(origin) & unseen
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


def _packed(cells: np.ndarray) -> np.ndarray:
    """bool [n, height, width] -> uint64 [n, height, words]; column c is bit c % 64 of word c // 64."""
    padded = np.pad(cells, ((0, 0), (0, 0), (0, -cells.shape[2] % _WORD)))
    return np.packbits(padded, axis=2, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def _unpacked(words: np.ndarray, width: int) -> np.ndarray:
    """Inverse of `_packed`: bool [..., height, width]."""
    octets = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=width, bitorder="little").view(np.bool_)


def path_lengths(mazes: np.ndarray, passable: np.ndarray | None = None) -> np.ndarray:
    """Moves of the shortest way from S to G: int64 [n], -1 where there is none (or S or G is missing).

    Args:
        mazes: tokens [n, height, width].
        passable: bool [n, height, width], where the way may lead; all but walls (and padding) if None.
    """
    if passable is None:
        passable = mazes > WALL
    goal = _packed(mazes == GOAL)
    lengths = np.full(len(mazes), -1)
    for distance, layer in enumerate(_layers(passable, mazes == START)):
        lengths[(layer & goal).any(axis=(1, 2))] = distance
    return lengths


def label_mazes(inputs: np.ndarray) -> np.ndarray:
    """The published labels of mazes [n, height, width]: the same array with the path marked, S and G kept.

    Raises:
        ValueError: a maze has no way from S to G, or not one S and one G each.
    """
    if not len(inputs):
        return inputs.copy()
    mazes = np.pad(inputs, ((0, 0), (1, 1), (1, 1)))  # so that no move leaves the array
    remainders, distances = _distances_to_goal(mazes)
    _walk(mazes, remainders, distances)
    return np.ascontiguousarray(mazes[:, 1:-1, 1:-1])


def goal_remainders(mazes: np.ndarray) -> np.ndarray:
    """The moves from each cell to G modulo 4: uint8 [n, height, width].

    It is 255 where G is out of reach, and may be where a cell is farther from G than S is.

    Raises:
        ValueError: a maze has no way from S to G, or not one S and one G each.
    """
    return _distances_to_goal(mazes)[0]


def _distances_to_goal(mazes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`goal_remainders`, and the moves from S to G [n].

    Neighbours are one move nearer or farther, so two bits tell them apart, and two bit planes hold the whole field.
    """
    for token, name in ((START, "S"), (GOAL, "G")):
        if (np.count_nonzero(mazes == token, axis=(1, 2)) != 1).any():
            raise ValueError(f"every maze must have one {name}")
    start = _packed(mazes == START)
    distances = np.full(len(mazes), -1)
    reached = low = high = np.zeros_like(start)
    for distance, layer in enumerate(_layers(mazes > WALL, mazes == GOAL)):
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
    remainders = _unpacked(low, width) + 2 * _unpacked(high, width).astype(np.uint8)
    remainders[~_unpacked(reached, width)] = 255
    return remainders, distances


def _walk(mazes: np.ndarray, remainders: np.ndarray, distances: np.ndarray) -> None:
    """Mark in `mazes` [n, height, width] the way from S that takes the first move that comes nearer to G."""
    cells, remainders = mazes.reshape(-1), remainders.reshape(-1)
    position = np.flatnonzero(cells == START)
    # Sorted by distance, the mazes whose walk goes on are always the first ones.
    order = np.argsort(-distances, kind="stable")
    position, distances = position[order], distances[order]
    for step in range(1, distances[0]):
        walking = np.searchsorted(-distances, -step)  # those with distances > step
        position, distances = position[:walking], distances[:walking]
        nearer = (distances - step) % 4
        following = position
        for down, right in reversed(MOVES):  # the first possible move is written last
            neighbour = position + (down * mazes.shape[2] + right)
            following = np.where(remainders[neighbour] == nearer, neighbour, following)
        position = following
        cells[position] = PATH


def default_min_path(height: int, width: int) -> int:
    """The shortest path asked for where none is given: 109 for 30x30, as in Maze-Hard.

    Small grids keep Maze-Hard's share of the cells; grids larger than its 30x30 keep its ratio to the sides, because
    the longest ways of random mazes grow with the side rather than with the area.
    """
    return min(round(109 / 900 * height * width), round(109 / 60 * (height + width)))


def generate_mazes(
    count: int, height: int, width: int, rng: np.random.Generator, min_path: int | None = None
) -> Iterator[np.ndarray]:
    """`count` mazes, tokens uint8 [height, width], no two of them equivalent (see `maze_keys`).

    As in Searchformer, a share of walls between 30 and 50 percent is drawn, then the walls, then S and G; there is no
    border wall. S is drawn from all free cells and G from those at least `min_path` moves away.

    Raises:
        UserError: a side is too short, or no maze has so long a path.
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
    """Those of `n` random mazes [kept, height, width] that have cells `min_path` moves from S; G is one of them."""
    share = rng.uniform(0.3, 0.5, (n, 1, 1))
    walls = rng.integers(1 << 16, size=(n, height, width), dtype=np.uint16) < (share * (1 << 16)).astype(np.uint16)
    start = _one_of(~walls, rng)
    far_words = np.zeros_like(_packed(start))
    for distance, layer in enumerate(_layers(~walls, start)):
        if distance >= min_path:
            far_words |= layer
    kept = far_words.any(axis=(1, 2))
    mazes = np.where(walls[kept], WALL, SPACE).astype(np.uint8)
    mazes[start[kept]] = START
    mazes[_one_of(_unpacked(far_words[kept], width), rng)] = GOAL
    return mazes


def _one_of(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of each grid of bool [n, height, width] one true cell, uniformly; none where none is true."""
    flat = cells.reshape(len(cells), cells.shape[1] * cells.shape[2])
    counts = np.count_nonzero(flat, axis=1)
    rank = np.cumsum(counts) - counts + rng.integers(np.maximum(counts, 1))
    one = np.zeros_like(flat)
    one.reshape(-1)[np.flatnonzero(flat)[rank[counts > 0]]] = True
    return one.reshape(cells.shape)
