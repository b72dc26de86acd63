"""Symmetries of the LDT: they keep solutions solutions, can be undone, and depend on their seeds alone."""

import pytest
import torch

from dataset.tasks.sudoku.rules import BOXES, TOKEN_OFFSET, Box, obeys_rules
from models.lattice.symmetry import Symmetry, cell_permutations, draw_symmetries
from tests.models.small_lattice import MIDDLE, SMALL, board_of, boards, one_hot, tokens_of


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_valid_symmetries_keep_solutions_solutions(box: Box):
    _, solutions = boards(3, box, box.cells // 2)
    lattice = one_hot(torch.from_numpy(solutions), box.side)
    digits = torch.arange(box.side).roll(1).expand(len(lattice), -1)
    board = board_of(box)
    every = board.model_copy(update={"turns": list(range(8))})
    for index, permutation in enumerate(cell_permutations(every)):
        image = Symmetry(permutation.expand(len(lattice), -1), digits).apply(lattice)
        valid = obeys_rules(tokens_of(image).numpy() - TOKEN_OFFSET, box)
        assert valid.all() == (index in board.turns), index


def test_random_symmetries_are_undone():
    permutations = cell_permutations(board_of(MIDDLE))
    row_seeds = torch.arange(50)
    symmetry = draw_symmetries(7, row_seeds, permutations, 6, torch.arange(6))
    values = torch.randn(50, 36, 6, generator=torch.Generator().manual_seed(0))
    image = symmetry.apply(values)
    assert torch.equal(symmetry.undo(image), values)
    assert not torch.equal(image, values)
    assert torch.equal(image.flatten(1).sort(1).values, values.flatten(1).sort(1).values)


def test_draws_are_uniform_and_a_function_of_the_seeds():
    permutations, digits = cell_permutations(board_of(SMALL)), torch.arange(4)
    row_seeds = torch.arange(8000)
    symmetry = draw_symmetries(1, row_seeds, permutations, 4, digits)
    again = draw_symmetries(1, row_seeds[5:9], permutations, 4, digits)
    assert torch.equal(symmetry.cells[5:9], again.cells)
    assert torch.equal(symmetry.candidates[5:9], again.candidates)
    other = draw_symmetries(2, row_seeds, permutations, 4, digits)
    assert not torch.equal(symmetry.candidates, other.candidates)
    index = (symmetry.cells[:, None] == permutations).all(-1).long().argmax(1)
    assert (torch.bincount(index, minlength=8) - 1000).abs().max() < 150
    orders = (symmetry.candidates * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(orders) == 24
    assert (orders - 8000 / 24).abs().max() < 90
