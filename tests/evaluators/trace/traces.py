"""Traces of small models, for tests."""

from typing import Any

import numpy as np

from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import parse_box
from dataset.tasks.sudoku.task import Sudoku
from evaluators.answers import HaltRule
from evaluators.trace.record import record
from evaluators.trace.trace import ARRAYS, VERSION, Trace
from models.losses import ACTLossHead
from tests.evaluators.small_reasoners import small_head

TASK = Sudoku(16, 6)


def puzzles(count: int) -> dict[str, np.ndarray]:
    """4x4 Sudokus as the inputs of a model."""
    found = list(generate_puzzles(count, parse_box("2x2"), np.random.default_rng(0), min_clues=7))
    inputs, labels = (np.stack([pair[side] for pair in found]).astype(np.int32) + 1 for side in (0, 1))
    return {"inputs": inputs, "labels": labels, "puzzle_identifiers": np.zeros(count, np.int32)}


def small_trace(count: int = 5, head: ACTLossHead | None = None, **options: Any) -> Trace:
    """The trace of an untrained model."""
    settings: dict[str, Any] = {"rule": HaltRule(0.5, False), "early_halting": True, **options}
    data = settings.pop("data", None) or puzzles(count)
    return record((head or small_head("sudoku")).eval(), data, TASK, {"name": "small", "task_options": {}}, **settings)


def made_trace(right: list[list[bool]], halted_at: list[int], early_halting: bool = True) -> Trace:
    """A trace without a model: whether each answer is right, [puzzles][steps], and where the halting rule stops."""
    n, steps = len(right), len(right[0])
    labels = puzzles(n)["labels"].astype(np.int16)
    answers = np.repeat(labels[:, None], steps, 1).astype(np.uint8)
    answers[~np.array(right), 0] = 0
    shapes = {"n": n, "steps": steps, "seq": 16, "latents": 1}
    arrays = {name: np.zeros([shapes[axis] for axis in axes], np.float32) for name, (axes, _) in ARRAYS.items()}
    arrays |= {
        "inputs": puzzles(n)["inputs"].astype(np.uint8),
        "labels": labels,
        "answers": answers,
        "right": np.array(right),
        "verdict": np.array(right).astype(np.int8),
        "halted_at": np.array(halted_at, np.int32),
        "index": np.arange(n),
    }
    about = {
        "format_version": VERSION, "task": "sudoku", "task_options": {}, "seq_len": 16, "vocab_size": 6, "name": "made",
        "latents": ["z_H"], "updates": [], "threshold": 0.5, "unchanged": False, "early_halting": early_halting,
    }  # fmt: skip
    return Trace(about, arrays, [])
