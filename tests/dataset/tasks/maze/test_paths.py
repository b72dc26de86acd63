import numpy as np
import pytest

from dataset.tasks.maze.paths import label_mazes, path_lengths
from dataset.tasks.maze.rules import CHARACTERS, GOAL, PATH, SPACE, START, WALL
from tests.dataset.tasks.maze.plain_bfs import plain_label
from tests.paths import SHARED

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
