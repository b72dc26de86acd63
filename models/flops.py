"""Counts the floating-point operations of a training step."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.factory import make_head
from utils.settings import ArchConfig


def flops_per_example(arch: ArchConfig, vocab_size: int, seq_len: int) -> int:
    """Floating-point operations of the matrix products of one ACT step of one example, forward and backward.

    They are counted on meta tensors, which is fast at any size. The count is that of the formulas: it includes neither
    elementwise operations nor anything that an implementation recomputes.
    """
    with torch.device("meta"):
        head = make_head(arch, vocab_size, seq_len, num_puzzle_identifiers=1, dtype="float32")
        tokens = torch.zeros(1, seq_len, dtype=torch.int32)
        batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": torch.zeros(1, dtype=torch.int32)}
        with FlopCounterMode(display=False) as counter:
            _, loss, _, _, _ = head(carry=head.initial_carry(batch), batch=batch)
            loss.backward()
    return counter.get_total_flops()
