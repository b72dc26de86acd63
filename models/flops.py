"""Counts the floating-point operations of a training step, and of a pass of an evaluation."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.factory import make_head
from models.losses import ACTLossHead
from utils.settings import ArchConfig


def flops_per_example(arch: ArchConfig, vocab_size: int, seq_len: int) -> int:
    """Floating-point operations of the matrix products of one ACT step of one example, forward and backward.

    They are counted on meta tensors, which is fast at any size. The count is that of the formulas: it includes neither
    elementwise operations nor anything that an implementation recomputes.
    """
    with torch.device("meta"):
        head, batch = _head_and_batch(arch, vocab_size, seq_len)
        with FlopCounterMode(display=False) as counter:
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
