"""How much arithmetic a training step is."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.factory import make_head
from utils.config import ArchConfig


def flops_per_example(arch: ArchConfig, vocab_size: int, seq_len: int) -> int:
    """Floating-point operations of the matrix products of one ACT step of one example, forward and backward.

    Counted on tensors without memory, so in a moment at any size. Neither elementwise work nor what an implementation
    computes twice is in it: it is what the formulas ask for.
    """
    with torch.device("meta"):
        head = make_head(arch, vocab_size, seq_len, num_puzzle_identifiers=1)
        tokens = torch.zeros(1, seq_len, dtype=torch.int32)
        batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": torch.zeros(1, dtype=torch.int32)}
        with FlopCounterMode(display=False) as counter:
            _, loss, _, _, _ = head(carry=head.initial_carry(batch), batch=batch)
            loss.backward()
    return counter.get_total_flops()
