import pytest

from dataset.tasks.maze.rules import grid_of
from utils.errors import UserError


def test_grids_by_size():
    assert grid_of(900, 6) == (30, 30)
    assert grid_of(54, 6, height=6) == (6, 9)
    for arguments, message in (((900, 12), "6 tokens"), ((54, 6), "no square"), ((54, 6, 7), "multiple")):
        with pytest.raises(UserError, match=message):
            grid_of(*arguments)
