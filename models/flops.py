"""Counts the floating-point operations of a training step, and of a pass of an evaluation."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.factory import make_head, model_config
from models.losses import ACTLossHead
from utils.settings import ArchConfig


def flops_per_example(arch: ArchConfig, vocab_size: int, seq_len: int) -> int:
    """Floating-point operations of the matrix products of one ACT step of one example, forward and backward.

    They are counted on meta tensors, which is fast at any size. The count is that of the formulas: it includes neither
    elementwise operations nor anything that an implementation recomputes.
    """
    return _flops(arch, vocab_size, seq_len, progress=1.0)


def training_flops_per_example(arch: ArchConfig, vocab_size: int, seq_len: int) -> float:
    """The same, as a mean over the training: with a depth curriculum its stages count by their share."""
    starts = [0.0, *(stage.until for stage in model_config(arch).depth_curriculum)]
    shares = [end - start for start, end in zip(starts, [*starts[1:], 1.0], strict=True)]
    return sum(share * _flops(arch, vocab_size, seq_len, start) for start, share in zip(starts, shares, strict=True))


def flops_of_run(arch: ArchConfig, vocab_size: int, seq_len: int, batch: int, steps: int) -> tuple[float, float]:
    """(operations of all steps of a run, operations of one step, or 0 if a depth curriculum makes them differ)."""
    mean = batch * training_flops_per_example(arch, vocab_size, seq_len)
    return steps * mean, 0.0 if model_config(arch).depth_curriculum else mean


def _flops(arch: ArchConfig, vocab_size: int, seq_len: int, progress: float) -> int:
    """See `flops_per_example`, with the depth after a share `progress` of the training."""
    with torch.device("meta"):
        head, batch = _head_and_batch(arch, vocab_size, seq_len)
        with FlopCounterMode(display=False) as counter, head.model.at_progress(progress):
            _, loss, _, _, _ = head(carry=head.initial_carry(batch), batch=batch)
            loss.backward()
    return counter.get_total_flops()


def flops_per_pass(arch: ArchConfig, vocab_size: int, seq_len: int) -> int:
    """Floating-point operations of the matrix products of one ACT step of one example in evaluation."""
    with torch.device("meta"), torch.no_grad():
        head, batch = _head_and_batch(arch, vocab_size, seq_len)
        head.eval()
        with FlopCounterMode(display=False) as counter:
            head.model(head.initial_carry(batch), batch)
    return counter.get_total_flops()


def _head_and_batch(arch: ArchConfig, vocab_size: int, seq_len: int) -> tuple[ACTLossHead, dict[str, torch.Tensor]]:
    head = make_head(arch, vocab_size, seq_len, num_puzzle_identifiers=1, dtype="float32")
    tokens = torch.zeros(1, seq_len, dtype=torch.int32)
    return head, {"inputs": tokens, "labels": tokens, "puzzle_identifiers": torch.zeros(1, dtype=torch.int32)}
