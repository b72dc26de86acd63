"""Tracing a part of a model: a program for any number of rows, made of torch's own operators alone."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from exporting.step import Part

ROWS = 2  # of the batch that is traced; torch would take a single row for a constant
BATCH = "batch"
_MOST_ROWS = 1 << 20


def trace(part: Part, arguments: Sequence[Tensor]) -> ExportedProgram:
    """Trace a part.

    Args:
        part: computes on the CPU, in float32.
        arguments: examples of its arguments, each with `ROWS` rows.
    """
    batch = Dim(BATCH, min=1, max=_MOST_ROWS)
    shapes: Any = tuple({0: batch} for _ in arguments)
    if part.takes_any_number:
        shapes = (shapes,)
    with torch.no_grad(), quiet():
        program = torch.export.export(part.module.eval(), tuple(arguments), dynamic_shapes=shapes)
        return program.run_decompositions({torch.ops.recursive_reasoning.attend_on_cpu.default: _attend})


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What `models.attention` computes with an operator of its own."""
    return torch.softmax(q @ k.mT, -1) @ v


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block torch does not warn about its own deprecations, nor about packages that it does without."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
