"""Small Sudokus, and the evaluator that judges answers to them."""

import numpy as np
import torch

from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import BOXES, TOKEN_OFFSET, Box
from dataset.tasks.sudoku.task import Sudoku
from evaluators.rules import Rules

MIDDLE = BOXES[1]


def evaluator(box: Box = MIDDLE) -> Rules:
    """The evaluator of Sudokus with boxes of this shape."""
    return Rules(Sudoku.of(box.cells, box.vocab_size), pad_id=0)


def puzzles(count: int, box: Box = MIDDLE) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of generated puzzles and of their solutions, each int32 [count, cells]."""
    boards = np.array(list(generate_puzzles(count, box, np.random.default_rng(0)))).astype(np.int32) + TOKEN_OFFSET
    return torch.from_numpy(boards[:, 0].copy()), torch.from_numpy(boards[:, 1].copy())
