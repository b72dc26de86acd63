"""Puzzles, and how an augmentation is applied to them."""

import numpy as np
import torch
from torch import Tensor

from dataset.augmentation import Augmentation, Draws
from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.paths import label_mazes
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box

Tokens = tuple[np.ndarray, np.ndarray]


def sudokus(box: Box, count: int) -> Tokens:
    boards = np.array(list(generate_puzzles(count, box, np.random.default_rng(0)))).astype(np.int32)
    return boards[:, 0] + TOKEN_OFFSET, boards[:, 1] + TOKEN_OFFSET


def mazes(count: int, height: int, width: int) -> Tokens:
    inputs = np.array(list(generate_mazes(count, height, width, np.random.default_rng(0))), np.int32)
    return inputs.reshape(count, -1), label_mazes(inputs).reshape(count, -1)


def draw(augmentation: Augmentation, seed: int, n: int) -> dict[str, Tensor]:
    """For the first n rows."""
    return augmentation.draw(seed, torch.arange(n))


def apply(augmentation: Augmentation, inputs: np.ndarray, labels: np.ndarray, draws: Draws) -> Tokens:
    """New tokens [n, seq_len] as numpy arrays."""
    prepared = augmentation.prepare(inputs, labels)
    assert augmentation.prepares == (prepared is not None)
    found = None if prepared is None else torch.from_numpy(prepared)
    new_inputs, new_labels = augmentation.apply(torch.from_numpy(inputs), torch.from_numpy(labels), found, draws)
    return new_inputs.numpy(), new_labels.numpy()


def is_uniform(values: Tensor, kinds: int) -> bool:
    """Chi-square test: all of `kinds` rows of `values` [n, ...] are as frequent, within 4.5 deviations."""
    counts = np.unique(values.numpy().reshape(len(values), -1), axis=0, return_counts=True)[1]
    if len(counts) != kinds:
        return False
    expected = len(values) / kinds
    return ((counts - expected) ** 2 / expected).sum() < kinds - 1 + 4.5 * (2 * (kinds - 1)) ** 0.5
