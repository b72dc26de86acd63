"""Trajectories written out by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.rollouts.trajectories import Trajectories


def trajectories(answers: Sequence[Sequence[int]], **values: Any) -> Trajectories:
    """Rollouts of a puzzle with one cell; `answers` [rollouts, steps], and what is not given is 0."""
    tokens = np.array(answers, np.uint8)[..., None]
    shape = tokens.shape[:2]
    arrays: dict[str, Any] = {
        "halt": np.zeros(shape, np.float32),
        "confidence": np.zeros(shape, np.float32),
        "change": np.zeros(shape, np.float32),
        "halted_at": np.zeros(shape[0], np.int64),
        "taken": np.full(shape[0], shape[1]),
    }
    arrays |= {name: np.array(value, arrays[name].dtype) for name, value in values.items()}
    return Trajectories(tokens, **arrays)
