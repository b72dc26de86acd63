import numpy as np
import pytest

from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import BOXES, Box, box_of, obeys_rules, parse_box
from utils.errors import UserError


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_rules(box: Box):
    def naive(values: np.ndarray) -> bool:
        grid = values.reshape(box.side, box.side)
        starts = [(r, c) for r in range(0, box.side, box.rows) for c in range(0, box.side, box.cols)]
        units = [*grid, *grid.T, *(grid[r : r + box.rows, c : c + box.cols].ravel() for r, c in starts)]
        return all(sorted(unit) == list(range(1, box.side + 1)) for unit in units)

    rng = np.random.default_rng(0)
    right = np.array([solution for _, solution in generate_puzzles(3, box, rng)])
    boards = np.concatenate([right, right[:1].repeat(40, axis=0)])
    for wrong in boards[3:]:  # exchange two cells, so that some units stay right
        a, b = rng.choice(box.cells, 2, replace=False)
        wrong[[a, b]] = wrong[[b, a]]
    latin = (np.add.outer(np.arange(box.side), np.arange(box.side)) % box.side + 1).reshape(1, -1)  # boxes wrong only
    boards = np.concatenate([boards, latin, np.zeros_like(latin), np.full_like(latin, 99), np.full_like(latin, -101)])
    assert obeys_rules(boards, box).tolist() == [naive(values) for values in boards]


def test_boxes_by_name_and_by_size():
    for box in BOXES:
        assert parse_box(str(box)) == box
        assert box_of(box.cells, box.vocab_size) == box
    with pytest.raises(UserError, match="allowed are 2x2, 2x3, 3x3"):
        parse_box("3x2")
    with pytest.raises(UserError, match="fit no Sudoku"):
        box_of(81, 12)
