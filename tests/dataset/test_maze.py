import numpy as np
import pytest

from dataset.maze import (
    CHARACTERS,
    GOAL,
    PATH,
    SPACE,
    START,
    WALL,
    default_min_path,
    generate_mazes,
    grid_of,
    label_mazes,
    maze_keys,
    path_lengths,
)
from tests.dataset.plain_bfs import plain_label
from tests.paths import SHARED
from utils.errors import UserError

HARD = SHARED / "data" / "maze-30x30-hard-1k"


def maze(*rows: str) -> np.ndarray:
    """Tokens [1, height, width]."""
    return np.array([[[CHARACTERS.index(character) + 1 for character in row] for row in rows]], np.uint8)


@pytest.mark.skipif(not HARD.exists(), reason="needs the shared data")
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_published_labels_are_reproduced(split: str):
    inputs, labels = (np.load(HARD / split / f"all__{name}.npy").reshape(-1, 30, 30) for name in ("inputs", "labels"))
    assert len(inputs) == 1000
    assert np.array_equal(label_mazes(inputs), labels)
    assert np.array_equal(path_lengths(inputs), np.count_nonzero(labels == PATH, axis=(1, 2)) + 1)
    for example, label in zip(inputs[::10], labels[::10], strict=True):
        plain = plain_label(example)
        assert plain is not None
        assert np.array_equal(plain, label)


@pytest.mark.parametrize("shape", [(5, 5), (5, 8), (12, 12), (30, 30), (7, 64), (6, 65), (9, 150)], ids=str)
def test_labels_are_those_of_plain_search(shape: tuple[int, int]):
    rng = np.random.default_rng(0)
    mazes = rng.choice([WALL, SPACE, SPACE, SPACE], size=(60, *shape)).astype(np.uint8)
    for grid in mazes:
        cells = rng.choice(grid.size, 2, replace=False)
        grid.ravel()[cells] = [START, GOAL]
    plain = [plain_label(grid) for grid in mazes]
    lengths = [-1 if label is None else np.count_nonzero(label == PATH) + 1 for label in plain]
    assert path_lengths(mazes).tolist() == lengths
    solvable = np.array(lengths) >= 0
    assert np.array_equal(label_mazes(mazes[solvable]), np.array([label for label in plain if label is not None]))


def test_down_then_left_then_right_then_up():
    empty = maze("    ", " S  ", "   G", "    ")
    assert np.array_equal(label_mazes(empty), maze("    ", " S  ", " ooG", "    "))
    assert np.array_equal(label_mazes(empty[:, ::-1]), maze("    ", "   G", " Soo", "    "))


def test_neighbours_have_no_cell_between_them():
    grid = maze("SG", "  ")
    assert np.array_equal(label_mazes(grid), grid)
    assert label_mazes(grid[:0]).shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (maze("S#G", "###"), "maze 0 has no way"),
        (maze("S  ", "  S"), "one S"),
        (maze("S  ", "   "), "one G"),
    ],
)
def test_broken_mazes_are_refused(grid: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        label_mazes(grid)


@pytest.mark.parametrize(("shape", "count"), [((5, 5), 60), ((6, 9), 60), ((20, 20), 60), ((30, 30), 4)], ids=str)
def test_generated_mazes(shape: tuple[int, int], count: int):
    mazes = np.array(list(generate_mazes(count, *shape, np.random.default_rng(0))))
    assert mazes.shape == (count, *shape)
    assert path_lengths(mazes).min() >= default_min_path(*shape)
    assert (np.count_nonzero(mazes == START, axis=(1, 2)) == 1).all()
    assert set(np.unique(mazes)) == {WALL, SPACE, START, GOAL}
    assert 0.25 < np.mean(mazes == WALL) < 0.5
    assert np.any(mazes[:, 0] != WALL)  # no border wall
    images = {grid.tobytes() for m in mazes for turn in range(4) for grid in (np.rot90(m, turn), np.rot90(m, turn).T)}
    symmetric = count * 8 - len(images)
    assert symmetric < count / 4  # nearly all have eight images of their own: none is another one's image
    assert len(set(maze_keys(mazes))) == count


def test_generation_is_reproducible():
    def made(seed: int) -> bytes:
        return np.array(list(generate_mazes(5, 8, 8, np.random.default_rng(seed)))).tobytes()

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_the_default_path_is_that_of_maze_hard():
    assert default_min_path(30, 30) == 109


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 4, 9), "at least 5"),
        ((1, 5, 5, np.random.default_rng(0), 24), "0 of 1 mazes"),
        ((1, 5, 5, np.random.default_rng(0), 1), "at least 2 moves"),
    ],
)
def test_impossible_wishes_are_refused(arguments: tuple, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dataset.maze._FRUITLESS_ROUNDS", 3)
    if len(arguments) == 3:
        arguments = (*arguments, np.random.default_rng(0))
    with pytest.raises(UserError, match=message):
        list(generate_mazes(*arguments))


def test_keys_are_the_same_for_images_only():
    rng = np.random.default_rng(0)
    square = rng.integers(1, 3, (2, 6, 6))
    images = np.array([image for turn in range(4) for t in (np.rot90(square[0], turn),) for image in (t, t.T)])
    assert len(set(maze_keys(images))) == 1
    assert maze_keys(square)[0] != maze_keys(square)[1]
    oblong = rng.integers(1, 3, (1, 5, 7))
    images = np.concatenate([oblong, oblong[:, ::-1], oblong[:, :, ::-1], oblong[:, ::-1, ::-1]])
    assert len(set(maze_keys(images))) == 1


def test_grids_by_size():
    assert grid_of(900, 6) == (30, 30)
    assert grid_of(54, 6, height=6) == (6, 9)
    for arguments, message in (((900, 12), "6 tokens"), ((54, 6), "no square"), ((54, 6, 7), "multiple")):
        with pytest.raises(UserError, match=message):
            grid_of(*arguments)
