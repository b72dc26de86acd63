"""The model of a run behind docs/scale.md: its step, memory and checkpoint from counted operations and tensors.

What cannot be counted is fitted to measured runs. `scripts.scale` makes the tables from it, and `scripts.scale_check`
compares it with runs on a machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from models.flops import flops_per_example, flops_per_pass
from models.memory import StepMemory, step_memory
from utils.settings import ArchConfig, PretrainConfig


@dataclass(frozen=True)
class DataSize:
    """The sizes of a data set that a step depends on."""

    vocab_size: int
    seq_len: int
    puzzles: int  # rows of the puzzle table


@dataclass(frozen=True)
class Measured:
    """A run that was measured in one process.

    Attributes:
        config, data: what was run.
        step: seconds of a training step.
        memory: bytes at the peak of a step.
        forward: seconds of one forward pass of the batch without gradient, if they were measured.
        update: seconds of the optimizer and the averages, if they were measured.
    """

    config: PretrainConfig
    data: DataSize
    step: float
    memory: float
    forward: float | None = None
    update: float | None = None


@dataclass(frozen=True)
class Fitted:
    """What the measured runs say about a machine.

    Attributes:
        forward, backward: operations a second.
        step: seconds of a step that depend on nothing.
        memory: bytes that depend on nothing, such as those of the libraries' first use.
        activations: bytes at the peak of a step for each byte that is counted as kept for the backward pass.
        row: bytes at the peak of a step for each row of the batch, such as intermediate results of one layer, which do
            not grow with the number of layers that are kept.
    """

    forward: float
    backward: float
    step: float
    memory: float
    activations: float
    row: float = 0.0


@dataclass(frozen=True)
class Needs:
    """What each process of a run needs.

    Attributes:
        step: seconds that a step computes.
        memory: bytes at the peak of a step.
        puzzle_table, activations: bytes, parts of it.
        with_checkpoint: bytes at the peak while a checkpoint is written, if its copies lie in the same memory.
        checkpoint: bytes of both files.
    """

    step: float
    memory: float
    puzzle_table: int
    activations: float
    with_checkpoint: float
    checkpoint: int


def fit(known: Sequence[Measured]) -> Fitted:
    """Fit the machine to runs by least squares.

    One run is enough if its forward pass and its update were measured; its memory then has no constant part. A part for
    each row of the batch is found only if the runs differ in what they keep for a row.

    Raises:
        ValueError: the runs do not tell the rates and the constant apart.
    """
    found: list[tuple[float, float, float, float]] = []  # 10^12 operations forward, backward; updates; seconds
    for run in known:
        forward, backward = (operations / 1e12 for operations in _work(run.config, run.data, 1))
        found.append((forward, backward, 1, run.step))
        found += [(forward, 0, 0, run.forward)] if run.forward is not None else []
        found += [(0, 0, 1, run.update)] if run.update is not None else []
    parts, seconds = np.array(found)[:, :3], np.array(found)[:, 3]
    if np.linalg.matrix_rank(parts) < 3:
        raise ValueError("the measured runs do not tell the two rates and the constant part of a step apart")
    of_forward, of_backward, constant = np.linalg.lstsq(parts, seconds, rcond=None)[0].tolist()
    share, row, besides = _fit_memory(known)
    return Fitted(1e12 / of_forward, 1e12 / of_backward, constant, besides, share, row)


def _fit_memory(known: Sequence[Measured]) -> tuple[float, float, float]:
    """Bytes at the peak for each byte of the activations that are counted, for each row of the batch, and besides."""
    counted = [_counted_memory(run.config, run.data, 1) for run in known]
    rest = [run.memory - one.total + one.activations for run, one in zip(known, counted, strict=True)]
    if len(known) == 1:
        return rest[0] / counted[0].activations, 0.0, 0.0
    rows = [run.config.global_batch_size for run in known]
    # activations in MB, so that the columns are of a size
    parts = np.array([(one.activations / 1e6, count, 1) for one, count in zip(counted, rows, strict=True)])
    if np.linalg.matrix_rank(parts) < 3:
        share, besides = np.polyfit([one.activations for one in counted], rest, 1).tolist()
        return share, 0.0, besides
    share, row, besides = np.linalg.lstsq(parts, np.array(rest), rcond=None)[0].tolist()
    return share / 1e6, row, besides


def predict(config: PretrainConfig, data: DataSize, processes: int, machine: Fitted) -> Needs:
    """What a run needs whose batch is shared by so many processes, without their communication."""
    forward, backward = _work(config, data, processes)
    counted = _counted_memory(config, data, processes)
    activations = machine.activations * counted.activations
    rows = config.global_batch_size // processes
    memory = counted.total - counted.activations + activations + machine.memory + rows * machine.row
    return Needs(
        step=machine.step + forward / machine.forward + backward / machine.backward,
        memory=memory,
        puzzle_table=counted.puzzle_table,
        activations=activations,
        # what is copied finds room where the activations were, but for the puzzle table, which is one large piece
        with_checkpoint=memory + counted.puzzle_table,
        checkpoint=_checkpoint_bytes(config, data),
    )


def pass_seconds(config: PretrainConfig, data: DataSize, examples: int, machine: Fitted) -> float:
    """Seconds of so many forward passes of one example without gradient, that is ACT steps of an evaluation."""
    return examples * _operations(config, data)[0] / machine.forward


def parameter_bytes(config: PretrainConfig, data: DataSize) -> int:
    """Bytes of the dense parameters, and of their gradients."""
    return _counted_memory(config, data, 1).weights // (2 + _states(config))


def _checkpoint_bytes(config: PretrainConfig, data: DataSize) -> int:
    """Bytes of the two files: weights with the table; raw weights, averages, moments and the carry."""
    counted, parameters = _counted_memory(config, data, 1), parameter_bytes(config, data)
    carried = counted.states // 2 + config.global_batch_size * (2 * data.seq_len + 3) * 4
    return counted.puzzle_table + (2 + _states(config)) * parameters + carried


def _states(config: PretrainConfig) -> int:
    """Tensors of the size of the parameters that a run keeps besides them: two moments, and the averages."""
    return 2 * (config.optimizer is not None) + config.ema


def _work(config: PretrainConfig, data: DataSize, processes: int) -> tuple[float, float]:
    """Operations of a step of a process, forward and backward."""
    forward, backward = _operations(config, data)
    rows = config.global_batch_size // processes
    return rows * forward, rows * backward


def _operations(config: PretrainConfig, data: DataSize) -> tuple[int, int]:
    """Operations of one ACT step of one example, forward and backward."""
    return _traced_operations(config.arch.model_dump_json(), data.vocab_size, data.seq_len)


@cache
def _traced_operations(arch: str, vocab_size: int, seq_len: int) -> tuple[int, int]:
    config = ArchConfig.model_validate_json(arch)
    forward = flops_per_pass(config, vocab_size, seq_len)
    return forward, flops_per_example(config, vocab_size, seq_len) - forward


def _counted_memory(config: PretrainConfig, data: DataSize, processes: int) -> StepMemory:
    return _traced_memory(config.model_dump_json(), data.vocab_size, data.seq_len, data.puzzles, processes)


@cache
def _traced_memory(text: str, vocab_size: int, seq_len: int, puzzles: int, processes: int) -> StepMemory:
    config = PretrainConfig.model_validate_json(text)
    dtype, compiled = str(config.arch.own_keys["forward_dtype"]), config.compile is not False
    return step_memory(config, vocab_size, seq_len, puzzles, processes, dtype, compiled)
