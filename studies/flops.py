"""What a model costs: operations of a step in training and of a pass in evaluation, and parameters."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.factory import count_parameters, make_head
from models.flops import flops_per_example
from utils.settings import ArchConfig


@dataclass(frozen=True)
class ModelCosts:
    """Floating-point operations of the matrix products for one example, counted as in `models.flops`.

    Attributes:
        training: of one ACT step, forward and backward.
        evaluation: of one ACT step in evaluation.
        parameters: number of trained scalars, without a puzzle embedding.
    """

    training: int
    evaluation: int
    parameters: int


def model_costs(arch: ArchConfig, vocab_size: int, seq_len: int) -> ModelCosts:
    """Count the operations and the parameters of an architecture, on meta tensors.

    Args:
        arch: the architecture, complete (`models.factory.complete_arch`).
        vocab_size, seq_len: sizes of the data.
    """
    with torch.device("meta"):
        head = make_head(arch, vocab_size, seq_len, num_puzzle_identifiers=1, dtype="float32").eval()
        tokens = torch.zeros(1, seq_len, dtype=torch.int32)
        batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": torch.zeros(1, dtype=torch.int32)}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            next(iter(head.model.answer_steps(batch, 1)))
    training = flops_per_example(arch, vocab_size, seq_len)
    return ModelCosts(training, counter.get_total_flops(), count_parameters(head))
