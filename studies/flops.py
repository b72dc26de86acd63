"""What a model costs: operations of a step in training and of a pass in evaluation, and parameters."""

from dataclasses import dataclass

import torch

from models.factory import count_parameters, make_head
from models.flops import flops_per_pass, training_flops_per_example
from utils.settings import ArchConfig


@dataclass(frozen=True)
class ModelCosts:
    """Floating-point operations of the matrix products for one example, counted as in `models.flops`.

    Attributes:
        training: of one ACT step, forward and backward; with a depth curriculum, the mean over the training.
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
        parameters = count_parameters(make_head(arch, vocab_size, seq_len, 1, dtype="float32"))
    training = round(training_flops_per_example(arch, vocab_size, seq_len))
    return ModelCosts(training, flops_per_pass(arch, vocab_size, seq_len), parameters)
