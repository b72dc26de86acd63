from itertools import combinations

import numpy as np
import pytest
import torch

from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.paths import label_mazes
from dataset.tasks.maze.rules import CHARACTERS, GOAL, PATH, SPACE, START, WALL
from dataset.tasks.maze.task import Maze
from evaluators.rules import Rules
from tests.dataset.tasks.maze.plain_bfs import plain_label
from utils.errors import UserError


def tokens(*rows: str) -> torch.Tensor:
    return torch.tensor([[CHARACTERS.index(character) + 1 for character in "".join(rows)]])


def judged(inputs: torch.Tensor, preds: torch.Tensor, height: int | None = None) -> tuple[float, float]:
    maze = Rules(Maze.of(inputs.shape[1], 6, height=height), pad_id=0)
    maze.update_batch({"inputs": inputs}, {"preds": preds})
    result = maze.result(None, 0, 1)
    assert result is not None
    return result["Maze/valid_path"], result["Maze/shortest_path"]


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (30, 30)], ids=str)
def test_labels_are_shortest_paths(shape: tuple[int, int]):
    mazes = np.array(list(generate_mazes(5, *shape, np.random.default_rng(0), min_path=8)))
    labels = torch.from_numpy(label_mazes(mazes)).flatten(1)
    assert judged(torch.from_numpy(mazes).flatten(1), labels, height=shape[0]) == (1.0, 1.0)


MAZE = ("S    ", " ### ", "     ", "     ", "    G")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (("S    ", "o### ", "o    ", "o    ", "ooooG"), (1, 1)),
        (("Soooo", " ###o", "    o", "    o", "    G"), (1, 1)),  # another shortest path than the label
        (("#    ", "o### ", "o    ", "o    ", "oooo "), (1, 1)),  # S and G do not have to be repeated,
        (("o####", "o####", "o####", "o####", "ooooo"), (1, 1)),  # nor do the other cells
        (("S ooo", "o###o", "o  oo", "ooooo", "    G"), (0, 0)),  # stray cells
        (("S    ", "o### ", "ooooo", "    o", "    G"), (1, 1)),
        (("S    ", "o### ", "o ooo", "ooo o", "    G"), (1, 0)),  # a detour
        (("S    ", "o### ", "o    ", "o   o", "ooooG"), (0, 0)),  # a stray cell
        (("S    ", "o### ", "oo   ", "oo   ", " oooG"), (0, 0)),  # a cell that is not needed
        (("So   ", "o### ", "o    ", "o    ", "ooooG"), (0, 0)),  # a branch
        (("S    ", "o### ", "o    ", "o    ", "oo oo"), (0, 0)),  # a gap
        (("S    ", "o#o# ", "o    ", "o    ", "ooooG"), (0, 0)),  # a wall is marked
        (("So   ", "#o###", " o   ", " o   ", " oooG"), (0, 0)),  # through a wall
        (MAZE, (0, 0)),
        (("ooooo",) * 5, (0, 0)),
    ],
)
def test_paths_are_told_from_other_marks(answer: tuple[str, ...], expected: tuple[int, int]):
    assert judged(tokens(*MAZE), tokens(*answer)) == expected


def test_every_marking_of_a_small_maze():
    """Against trying all orders of the marked cells: a path visits all of them, and there is no shorter way."""
    maze = np.array([[START, SPACE, SPACE], [SPACE, WALL, SPACE], [SPACE, SPACE, GOAL]])
    shortest = plain_label(maze)
    assert shortest is not None
    least = np.count_nonzero(shortest == PATH)
    cells = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    good = [{(0, 1), (0, 2), (1, 2)}, {(1, 0), (2, 0), (2, 1)}]
    for count in range(7):
        for marked in combinations(cells, count):
            answer = maze.copy()
            for cell in marked:
                answer[cell] = PATH
            expected = set(marked) in good
            assert judged(torch.from_numpy(maze).reshape(1, 9), torch.from_numpy(answer).reshape(1, 9)) == (
                expected,
                expected and count == least,
            )


def test_shares_are_over_mazes_and_padding_does_not_count():
    inputs = torch.cat([tokens(*MAZE)] * 3 + [torch.zeros(2, 25, dtype=torch.long)])
    right = tokens("S    ", "o### ", "o    ", "o    ", "ooooG")
    detour = tokens("S    ", "o### ", "o ooo", "ooo o", "    G")
    preds = torch.cat([right, detour, inputs[:1], right, right])
    assert judged(inputs, preds) == (2 / 3, 1 / 3)


def test_neighbours_need_no_mark():
    maze = tokens("SG", "  ")
    assert judged(maze, maze) == (1, 1)
    assert judged(maze, tokens("SG", "oo")) == (0, 0)


def test_another_task_or_shape_is_refused():
    with pytest.raises(UserError, match="6 tokens"):
        Maze.of(81, 11)
    with pytest.raises(UserError, match="no square"):
        Maze.of(54, 6)
