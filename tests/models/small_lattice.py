"""A small LDT, with puzzles, for tests."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box
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
