"""Naked and hidden singles, and contradictions: small cases that are written out, and no solution is lost."""

import numpy as np
import pytest

from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box
from dataset.tasks.sudoku.solver import solutions
from dataset.tasks.sudoku.task import Sudoku
from evaluators.propagation import Propagation

LINE = Propagation([[0, 1, 2]], 3)


def lattice(*cells: str) -> np.ndarray:
    """A lattice of one row from the candidates of each cell, letters a, b, ..."""
    return np.array([[[letter in cell for letter in "abcd"] for cell in cells]])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("a", "ab", "abc"), ("a", "b", "c")),  # naked singles, one after the other
        (("ab", "ab", "abc"), ("ab", "ab", "c")),  # a hidden single: three symbols for three cells
        (("ab", "ab", "abcd"), ("ab", "ab", "abcd")),  # four symbols for three cells: c need not stand anywhere
        (("ab", "abc", "bc"), ("ab", "abc", "bc")),
        (("a", "bcd", "bcd"), ("a", "bcd", "bcd")),
    ],
)
def test_what_follows(before: tuple[str, ...], after: tuple[str, ...]):
    closed, failed = LINE.close(lattice(*before))
    np.testing.assert_array_equal(closed, lattice(*after))
    assert not failed[0]


@pytest.mark.parametrize(
    "cells",
    [
        ("a", "a", "bcd"),  # twice the same symbol
        ("", "ab", "cd"),  # no candidate
        ("ab", "ab", "ab"),  # two symbols for three cells
    ],
)
def test_contradictions(cells: tuple[str, ...]):
    assert LINE.close(lattice(*cells))[1][0]


def test_two_symbols_that_need_the_same_cell_are_a_contradiction():
    crossed = Propagation([[0, 1, 2], [0, 3, 4]], 5)
    lattices = lattice("abc", "bc", "bc", "ac", "ac")  # a of the first unit and b of the second need cell 0
    assert crossed.close(lattices)[1][0]


def test_rows_do_not_mix():
    rows = np.concatenate([lattice("a", "a", "b"), lattice("a", "ab", "abc"), lattice("abcd", "abcd", "abcd")])
    closed, failed = LINE.close(rows)
    assert failed.tolist() == [True, False, False]
    np.testing.assert_array_equal(closed[1:], np.concatenate([lattice("a", "b", "c"), rows[2:]]))


def test_nothing_is_changed_in_place():
    rows = lattice("a", "ab", "abc")
    kept = rows.copy()
    LINE.close(rows)
    np.testing.assert_array_equal(rows, kept)


def test_without_units_nothing_follows_but_from_empty_cells():
    none = Propagation([], 2)
    closed, failed = none.close(np.concatenate([lattice("a", "a"), lattice("a", "")]))
    np.testing.assert_array_equal(closed[0], lattice("a", "a")[0])
    assert failed.tolist() == [False, True]


@pytest.mark.parametrize("box", [Box(2, 2), Box(2, 3)], ids=str)
def test_no_solution_is_lost_and_contradictions_have_none(box: Box):
    """On random boards with few clues, which may contradict each other, against all solutions of the exact solver."""
    rng, task = np.random.default_rng(0), Sudoku(box.cells, box.vocab_size)
    clues = rng.integers(1, box.side + 1, (150, box.cells))
    values = np.where(rng.random((150, box.cells)) < rng.uniform(0.2, 0.5, (150, 1)), clues, 0)
    symbols = np.arange(1, box.side + 1)
    lattices = (values[:, :, None] == 0) | (values[:, :, None] == symbols)
    closed, failed = Propagation(task.units(), box.cells).close(lattices)
    assert 20 < failed.sum() < 150
    for row, board in enumerate(values):
        found = [solution for _, solution in zip(range(300), solutions(board, box), strict=False)]
        assert not (failed[row] and found)
        for solution in found:
            assert closed[row][solution[:, None] == symbols].all()
    whole = (closed.sum(2) == 1).all(1) & ~failed
    boards = closed.argmax(2) + 1 + TOKEN_OFFSET
    assert task.check(values + TOKEN_OFFSET, boards)["solved"][whole].all()
