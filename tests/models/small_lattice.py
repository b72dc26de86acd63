"""A small LDT, with puzzles, for tests."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box
from models.lattice.board import Board, square_board
from models.lattice.candidates import Candidates
from models.lattice.loss_head import LatticeLossHead
from models.recursive_reasoning.ldt import LatticeDeductionTransformer

SMALL, MIDDLE = Box(2, 2), Box(2, 3)
CONFIG = {"hidden_size": 16, "num_heads": 2, "L_layers": 1, "n_loops": 2, "halt_max_steps": 3}


def small_ldt(box: Box = SMALL, **overrides: object) -> LatticeDeductionTransformer:
    """A model in training mode, the same at each call."""
    sizes = {"vocab_size": box.vocab_size, "seq_len": box.cells}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LatticeDeductionTransformer({**CONFIG, **sizes, **overrides})


def board_of(box: Box) -> Board:
    """The board of a Sudoku."""
    return square_board(box.cells, box.vocab_size)


def digits(number: int) -> Candidates:
    """The candidates of a Sudoku with so many digits: token 0 is padding, 1 a blank, 2 the first digit."""
    values = list(range(2, 2 + number))
    return Candidates.of(Board(rows=1, columns=1, allowed=[values, values, *([value] for value in values)]))


def lattice_of(tokens: Tensor, number: int) -> Tensor:
    """The lattice of a puzzle with so many digits."""
    return digits(number).lattice_of(tokens)


def one_hot(tokens: Tensor, number: int) -> Tensor:
    """The candidate of each cell, with so many digits."""
    return digits(number).one_hot(tokens)


def tokens_of(lattice: Tensor) -> Tensor:
    """Tokens of a lattice, with blanks for the cells that have no candidate, or several."""
    return digits(lattice.shape[-1]).tokens_of(lattice, torch.ones(lattice.shape[:-1], dtype=torch.int64))


def small_head(box: Box = SMALL, **overrides: object) -> LatticeLossHead:
    """The same in its loss head."""
    return LatticeLossHead(small_ldt(box, **overrides), "softmax_cross_entropy")


@cache
def boards(count: int, box: Box = SMALL, min_clues: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of puzzles with unique solutions, and of these solutions, [count, cells]."""
    found = list(generate_puzzles(count, box, np.random.default_rng(0), min_clues))
    puzzles, solutions = (np.stack([pair[index] for pair in found]) + TOKEN_OFFSET for index in (0, 1))
    return puzzles.astype(np.int64), solutions.astype(np.int64)


def small_batch(rows: int, seed: int = 0, box: Box = SMALL) -> dict[str, Tensor]:
    """Random examples out of a few."""
    puzzles, solutions = boards(12, box)
    chosen = np.random.default_rng(seed).integers(len(puzzles), size=rows)
    return {
        "inputs": torch.from_numpy(puzzles[chosen]),
        "labels": torch.from_numpy(solutions[chosen]),
        "puzzle_identifiers": torch.zeros(rows, dtype=torch.int64),
    }
