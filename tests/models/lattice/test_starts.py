"""Where training examples start: shares of the three kinds, hints that are true or not, and their targets."""

import torch
from torch import Tensor

from models.lattice.lattice import given_cells
from models.lattice.starts import draw_starts
from tests.models.small_lattice import MIDDLE, boards, lattice_of, one_hot

N = 4000


def starts(bare: float, wrong: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(puzzle, solution, start, target), lattices [N, cells, candidates] of one puzzle."""
    puzzles, solutions = (torch.from_numpy(tokens[:1]).expand(N, -1) for tokens in boards(1, MIDDLE))
    puzzle, solution = lattice_of(puzzles, MIDDLE.side), one_hot(solutions, MIDDLE.side)
    return puzzle, solution, *draw_starts(1, torch.arange(N), puzzle, solution, bare, wrong)


def test_bare_starts_are_the_puzzle():
    puzzle, solution, start, target = starts(bare=1.0, wrong=0.0)
    assert torch.equal(start, puzzle)
    assert torch.equal(target, solution)


def test_right_hints_fill_a_uniform_share_of_the_blanks():
    puzzle, solution, start, target = starts(bare=0.0, wrong=0.0)
    assert torch.equal(target, solution)
    hinted = given_cells(start) & ~given_cells(puzzle)
    assert torch.equal(start, torch.where(hinted[:, :, None], solution, puzzle))
    blanks = int((~given_cells(puzzle))[0].sum())
    counts = torch.bincount(hinted.sum(1), minlength=blanks)
    assert len(counts) == blanks  # never all of them, since the share is below 1 and rounded down
    assert (counts / N - 1 / blanks).abs().max() < 0.02
    # every blank is equally likely
    share = hinted[:, ~given_cells(puzzle)[0]].float().mean(0)
    assert (share - (blanks - 1) / 2 / blanks).abs().max() < 0.04


def test_wrong_hints_have_no_solution():
    puzzle, solution, start, target = starts(bare=0.0, wrong=1.0)
    assert not target.any()
    hinted = given_cells(start) & ~given_cells(puzzle)
    lied = hinted & ~(start & solution).any(-1)
    assert (lied.sum(1) >= 1).all()
    assert (hinted.sum(1) >= lied.sum(1)).all()
    assert (lied.sum(1) <= (0.3 * hinted.sum(1)).clamp_min(1)).all()
    blanks = (~given_cells(puzzle)).sum(1)
    assert (hinted.sum(1) >= (0.1 * blanks).floor().clamp_min(1)).all()
    assert lied.sum() > N  # more than the least number
    values = start[lied].long().argmax(-1)
    assert torch.bincount(values, minlength=MIDDLE.side).min() > 100


def test_the_three_kinds_have_their_shares():
    puzzle, _, start, target = starts(bare=0.2, wrong=0.25)
    lies = ~target.flatten(1).any(1)
    assert abs(lies.float().mean() - 0.25) < 0.02
    untouched = (start == puzzle).flatten(1).all(1)
    # right hints of which there are none look like a bare start
    blanks = int((~given_cells(puzzle))[0].sum())
    assert abs(untouched.float().mean() - (0.2 + 0.55 / blanks)) < 0.02


def test_a_full_board_has_no_hints():
    _, solutions = boards(1, MIDDLE)
    full = one_hot(torch.from_numpy(solutions), MIDDLE.side)
    start, target = draw_starts(1, torch.arange(1), full, full, 0.0, 1.0)
    assert torch.equal(start, full)
    assert torch.equal(target, full)
