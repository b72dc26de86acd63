"""Estimates the device memory of a training step before anything is allocated."""

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from models.acceleration import Acceleration
from models.act import ACTModel
from models.factory import make_head
from models.sparse_embedding import table_traffic
from utils.machine import Machine
from utils.settings import ArchConfig, PretrainConfig

# What is left of the activations when the blocks are compiled, which keeps fewer intermediate values. Measured on an
# H100: 31.7 of 42.9 GB for TRM-MLP on Sudoku (docs/gpu/bench.jsonl).
COMPILED_SHARE = 0.75
_LARGE_TABLE = 1e8  # bytes from which a puzzle table is worth a line


class DataSizes(Protocol):
    """The fields of `dataset.json` that an estimate needs."""

    vocab_size: int
    seq_len: int


@dataclass(frozen=True)
class StepMemory:
    """What one training step needs on each device, in bytes.

    Attributes:
        weights: parameters with their gradients, the state of the optimizer and the averages.
        puzzle_table: the puzzle embedding; its gradients are those of the rows in a batch, and need next to nothing.
        states: the carried states of all slots, before and after the step.
        activations: what the forward pass of one micro-batch keeps for the backward pass.
    """

    weights: int
    puzzle_table: int
    states: int
    activations: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.puzzle_table + self.states + self.activations

    def warning(self, free: int, micro_batch: int, recomputes: bool) -> str | None:
        """What to say before the start if the step does not fit in `free` bytes; None if it fits."""
        if self.total <= free:
            return None
        ways = [] if recomputes else ["activation_checkpointing=true"]
        ways += ["grad_accum_steps=N"] if micro_batch > 1 else []
        return (
            f"warning: a training step needs about {_gb(self.total)}, of which {_gb(self.activations)} are activations "
            f"of {micro_batch} examples, and {_gb(free)} are free: it will probably run out of memory. "
            f"Ways out: {', '.join([*ways, 'more processes'])}."
        )

    def __str__(self) -> str:
        return (
            f"about {_gb(self.total)} a device (weights and optimizer {_gb(self.weights)}, puzzle table "
            f"{_gb(self.puzzle_table)}, states {_gb(self.states)}, activations {_gb(self.activations)})"
        )


def step_memory(
    config: PretrainConfig,
    vocab_size: int,
    seq_len: int,
    puzzles: int,
    processes: int,
    dtype: str,
    compiled: bool,
    kernels: bool = False,
) -> StepMemory:
    """The estimate for a run.

    The forward passes of one and of two examples are traced on meta tensors, which takes seconds and no memory, and
    every storage that autograd keeps is counted once.

    Args:
        config: the run.
        vocab_size, seq_len, puzzles: sizes of the data.
        processes: number of processes that share the batch.
        dtype: dtype of the recursion.
        compiled: whether the blocks are compiled.
        kernels: whether they use the kernels of `models/fused/gpu`, which keep less.
    """
    rows = config.global_batch_size // processes
    recompute, arch, share = config.activation_checkpointing, config.arch, 1.0
    if compiled and not recompute:
        share, arch = COMPILED_SHARE, _with_plain_unit(config.arch)
    one, two = (_trace(arch, vocab_size, seq_len, dtype, recompute, examples, kernels) for examples in (1, 2))
    per_example = (two.kept - one.kept) * share + two.kept_by_kernels - one.kept_by_kernels
    copies = 2 + 2 * (config.optimizer is not None) + config.ema  # weights and gradients; two moments; averages
    return StepMemory(
        weights=one.parameters * copies,
        puzzle_table=puzzles * config.arch.own_keys.get("puzzle_emb_ndim", 0) * 4,
        states=(two.states - one.states) * rows * 2,
        activations=round(per_example * rows / config.grad_accum_steps) + 2 * one.all_kept - two.all_kept,
    )


def say_memory(
    config: PretrainConfig,
    data: DataSizes,
    puzzles: int,
    processes: int,
    machine: Machine,
    acceleration: Acceleration,
    say: Callable[[str], None],
) -> None:
    """Say before the first step what a large puzzle table costs, and on GPUs what memory a step needs.

    On GPUs, also say whether that is more than there is.

    Args:
        config, data, puzzles, processes: see `step_memory`.
        machine: the device, and the dtype of the recursion.
        acceleration: how the blocks are computed.
        say: called with the line.
    """
    width = config.arch.own_keys.get("puzzle_emb_ndim", 0)
    if processes > 1 and puzzles * width * 4 > _LARGE_TABLE:
        traffic = table_traffic(config.global_batch_size, width)
        say(
            f"puzzle table: {puzzles:,} rows, {_gb(puzzles * width * 4)} in each process; "
            f"a step exchanges the gradients of the batch, {traffic / 1e6:.1f} MB"
        )
    if machine.device.type != "cuda":
        return
    kinds = (machine.dtype, acceleration.compiled, acceleration.fused)
    needs = step_memory(config, data.vocab_size, data.seq_len, puzzles, processes, *kinds)
    free = torch.cuda.mem_get_info(machine.device)[0] + torch.cuda.memory_allocated(machine.device)
    micro_batch = config.global_batch_size // processes // config.grad_accum_steps
    say(needs.warning(free, micro_batch, config.activation_checkpointing) or f"memory: {needs}")


@dataclass(frozen=True)
class _Traced:
    parameters: int  # bytes, as the following
    states: int
    kept: int
    kept_by_kernels: int

    @property
    def all_kept(self) -> int:
        return self.kept + self.kept_by_kernels


def _with_plain_unit(arch: ArchConfig) -> ArchConfig:
    """`arch` with SwiGLU as its gated unit: compiled, another unit keeps the gate and what it gates too, and no more.

    Measured with `rms_gate` on an H100: 22.9 GB, where SwiGLU's estimate is 22.7.
    """
    if "gated_unit" not in arch.own_keys:
        return arch
    return ArchConfig.model_validate(arch.model_dump() | {"gated_unit": "swiglu"})


def _trace(
    arch: ArchConfig, vocab_size: int, seq_len: int, dtype: str, recompute: bool, examples: int, kernels: bool
) -> _Traced:
    """What a forward pass of so many examples keeps."""
    with torch.device("meta"):
        head = make_head(arch, vocab_size, seq_len, num_puzzle_identifiers=1, recompute=recompute, dtype=dtype)
        tokens = torch.zeros(examples, seq_len, dtype=torch.int32)
        puzzles = torch.zeros(examples, dtype=torch.int32)
        batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": puzzles}
        carry = head.initial_carry(batch)
        positions = next(iter(carry.states.values())).shape[-2]
        kept: dict[int, Tensor] = {}
        by_kernels: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            # the fused attention of a GPU does not keep the scores; on meta tensors it is spelt out
            if tensor.dim() < 3 or tensor.shape[-2:] != (positions, positions):
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        if kernels:
            _count_kernels(head.model, by_kernels)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            _, loss, _, _, _ = head(carry=carry, batch=batch)
        del loss
    own = {tensor.untyped_storage()._cdata for tensor in (*head.parameters(), *head.buffers())}
    return _Traced(
        parameters=sum(p.nbytes for p in head.parameters()),
        states=sum(z.nbytes for z in carry.states.values()),
        kept=_bytes(kept, own | by_kernels.keys()),
        kept_by_kernels=_bytes(by_kernels, own),
    )


def _bytes(kept: dict[int, Tensor], but: Set[int]) -> int:
    """Bytes of the storages, by their address, but for some of them."""
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in but)


def _count_kernels(model: ACTModel, kept: dict[int, Tensor]) -> None:
    """Have the blocks of `model` use the kernels, and collect in `kept` what these keep for the backward pass."""
    from models.fused.gpu import convert, layers  # needs Triton, which there is wherever kernels are used

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    class Counted(layers.GPUSwiGLU):
        def sublayer(self, x: Tensor, eps: float) -> Tensor:
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                return super().sublayer(x, eps)

    convert.replace(convert.swiglu_layers(model), Counted)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
