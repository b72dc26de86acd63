"""Lattices written out by hand: tokens, targets, a deduction step and decisions."""

import pytest
import torch
from torch import Tensor

from models.lattice.lattice import (
    choose_at_random,
    choose_most_certain,
    deduce,
    given_cells,
    in_conflict,
    pin,
    surviving,
)
from models.lattice.losses import lattice_losses
from models.lattice.network import HeadLogits
from tests.models.small_lattice import lattice_of, one_hot, tokens_of


def lattice(*rows: str) -> Tensor:
    """One lattice per row; a cell is written as its living candidates, or as - : "123 1 -"."""
    cells = [[[str(c) in cell for c in (1, 2, 3)] for cell in row.split()] for row in rows]
    return torch.tensor(cells)


def test_tokens_become_lattices_and_back():
    tokens = torch.tensor([[1, 2, 4, 0]])
    assert torch.equal(lattice_of(tokens, 3), lattice("123 1 3 123"))
    assert torch.equal(one_hot(torch.tensor([[1, 2, 4, -100]]), 3), lattice("- 1 3 -"))
    assert torch.equal(tokens_of(lattice("123 1 3 -")), torch.tensor([[1, 2, 4, 1]]))
    assert torch.equal(given_cells(lattice("123 1 3 -")), torch.tensor([[False, True, True, False]]))


def test_alpha_is_the_union_of_the_solutions_that_survive():
    solutions = torch.stack((lattice("1 2 3")[0], lattice("1 3 2")[0]))[None]
    before = lattice("1 23 23")
    found = [
        (lattice("123 123 123"), before),
        (lattice("12 23 13"), lattice("1 2 3")),  # only the first has the 3 of the last cell
        (lattice("23 123 123"), before),  # none survives
    ]
    for state, alpha in found:
        assert torch.equal(surviving(state, solutions, before), alpha)


def test_a_conflict_is_a_cell_without_a_candidate_of_alpha():
    alpha = lattice("1 2 3", "1 2 3", "1 2 3", "- - -")
    state = lattice("12 23 3", "12 13 3", "12 - 3", "12 23 3")
    asked = torch.ones(4, 3, dtype=torch.bool)
    assert in_conflict(state, alpha, asked).tolist() == [False, True, True, True]
    asked[1, 1] = asked[2, 2] = asked[3] = False  # what is not asked is in no conflict
    assert in_conflict(state, alpha, asked).tolist() == [False, False, True, False]


def logits_of(keep: list[list[list[float]]], conflict: list[float]) -> HeadLogits:
    values = torch.tensor(keep)
    return HeadLogits(values, values, torch.tensor(conflict))


def test_a_deduction_step():
    state = lattice("123 1 23", "12 3 2", "12 3 2", "12 3 2")
    kill, keep = -5.0, 5.0
    open_row = [[kill, keep, keep], [kill, kill, kill], [keep, keep, kill]]
    done_row, empty_row = [[keep, kill, keep], [keep] * 3, [kill] * 3], [[kill] * 3, [keep] * 3, [keep] * 3]
    logits = logits_of([open_row, done_row, empty_row, done_row], [-1.0, -1.0, -1.0, 1.0])
    given = torch.tensor([[False, True, False], [False, True, True], [False, True, False], [False, True, True]])
    found = deduce(state, given, logits, kill_threshold=0.1, conflict_threshold=0.6)
    # candidates of given cells are never killed, nor those that are dead already
    assert torch.equal(found.killed, lattice("1 - 3", "2 - -", "12 - -", "2 - -"))
    assert torch.equal(found.lattice, lattice("23 1 2", "1 3 2", "- 3 2", "1 3 2"))
    assert found.conflict.tolist() == [False, False, True, True]
    assert found.solved.tolist() == [False, True, False, False]
    assert found.undecided.tolist() == [True, False, False, False]


def test_deciding_a_cell():
    state = lattice("123 12", "123 12")
    rows, cells, candidates = torch.tensor([True, False]), torch.tensor([0, 1]), torch.tensor([1, 0])
    assert torch.equal(pin(state, rows, cells, candidates), lattice("2 12", "123 12"))


def test_random_decisions_have_the_right_probabilities():
    n, temperature = 20_000, 1.5
    logits = torch.tensor([[3.0, 9.0, 9.0], [1.0, -2.0, 0.5]])
    state = lattice("1 13")
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(n, 2 + 3, generator=generator).clamp_min(1e-7)
    repeated = state.expand(n, -1, -1), logits.expand(n, -1, -1)
    cells, candidates = choose_at_random(*repeated, temperature, noise[:, :2], noise[:, 2:])
    assert (cells == 1).all()  # the other cell is decided already
    expected = torch.softmax(torch.tensor([1.0, 0.5]) / temperature, 0)
    share = torch.bincount(candidates, minlength=3) / n
    torch.testing.assert_close(share, torch.tensor([expected[0], 0.0, expected[1]]), atol=0.01, rtol=0)

    open_cells = lattice("12 1 13 23").expand(n, -1, -1)
    noise = torch.rand(n, 4 + 3, generator=generator).clamp_min(1e-7)
    cells, candidates = choose_at_random(open_cells, torch.zeros(n, 4, 3), temperature, noise[:, :4], noise[:, 4:])
    share = torch.bincount(cells, minlength=4) / n
    torch.testing.assert_close(share, torch.tensor([1, 0, 1, 1]) / 3, atol=0.015, rtol=0)
    assert open_cells[torch.arange(n), cells, candidates].all()


def test_the_most_certain_cell_is_decided():
    logits = torch.tensor([[[9.0, 0.0, 0.0], [1.0, 4.0, 9.0], [2.0, 3.0, 2.5]]])
    # the first cell is decided already, and the best candidate of the second is dead
    assert [x.tolist() for x in choose_most_certain(lattice("1 12 23"), logits)] == [[1], [1]]
    # nothing is open, which must not give a number that is none
    assert choose_most_certain(lattice("1 - 2"), logits)[0].shape == (1,)


def test_losses_by_the_formula():
    generator = torch.Generator().manual_seed(0)
    loops, batch = 2, 3
    keep, digit = (torch.randn(loops, batch, 2, 3, generator=generator) for _ in range(2))
    conflict = torch.randn(loops, batch, generator=generator)
    state, alpha = lattice("123 12", "12 3", "12 23"), lattice("1 2", "1 3", "1 1")
    given, truth = given_cells(lattice("123 123", "123 3", "123 123")), torch.tensor([False, False, True])
    all_asked = torch.ones(3, 2, dtype=torch.bool)
    found = lattice_losses(HeadLogits(keep, digit, conflict), state, alpha, given, all_asked, truth, 4.0, 0.5)

    target = (state & alpha).float()
    expected = -(4 * target * keep.sigmoid().log() + 0.5 * (1 - target) * (-keep).sigmoid().log()).mean()
    torch.testing.assert_close(found.keep, expected)
    asked = [(0, 0, 0), (0, 1, 1), (1, 0, 0)]  # row, cell, candidate: not given, and not in a row with a conflict
    logs = torch.stack([digit[:, row, cell].log_softmax(-1)[:, value] for row, cell, value in asked])
    torch.testing.assert_close(found.digit, -logs.mean())
    expected = torch.nn.functional.binary_cross_entropy_with_logits(conflict, truth.float().expand(loops, -1))
    torch.testing.assert_close(found.conflict, expected)

    # cells that are not asked do not count, whatever is said of them
    part = torch.tensor([[True, False], [True, True], [True, True]])
    less = lattice_losses(HeadLogits(keep, digit, conflict), state, alpha, given, part, truth, 4.0, 0.5)
    each = -(4 * target * keep.sigmoid().log() + 0.5 * (1 - target) * (-keep).sigmoid().log())
    torch.testing.assert_close(less.keep, each[:, part].mean())
    torch.testing.assert_close(less.digit, -logs[[0, 2]].mean())


@pytest.mark.parametrize("empty", [True, False])
def test_cells_with_several_possible_candidates_are_not_asked(empty: bool):
    alpha = lattice("- -") if empty else lattice("12 13")
    zero = torch.zeros(1, 1, 2, 3)
    logits = HeadLogits(zero, zero, torch.zeros(1, 1))
    none, every = torch.zeros(1, 2).bool(), torch.ones(1, 2).bool()
    found = lattice_losses(logits, lattice("123 123"), alpha, none, every, torch.tensor([False]))
    assert found.digit == 0
