"""Examples of the arguments and results of the parts of a step, from which their shapes and dtypes are known."""

import torch
from torch import Tensor

from evaluators.reasoner import Reasoner
from exporting.step import Part, StepParts, step_parts
from exporting.trace import ROWS

Examples = dict[str, Tensor]  # by name, [ROWS, ...] each


def example_values(reasoner: Reasoner) -> tuple[StepParts, Examples]:
    """The parts, and examples of their arguments and results by name."""
    parts = step_parts(reasoner.head.model)
    examples: Examples = {"inputs": torch.ones(ROWS, reasoner.task.seq_len, dtype=torch.int64)}
    if parts.reads_puzzle_ids:
        examples["puzzle_identifiers"] = torch.zeros(ROWS, dtype=torch.int64)
    examples |= call_part(parts.start, examples)
    examples["logits"] = torch.zeros(ROWS, reasoner.task.seq_len, reasoner.task.vocab_size)
    examples["answers"] = torch.zeros(ROWS, reasoner.task.seq_len, dtype=torch.int32)
    examples["q_halt_logits"] = torch.zeros(ROWS)
    return parts, examples


def call_part(part: Part, examples: Examples) -> Examples:
    """The results of a part by name, from arguments by name."""
    with torch.no_grad():
        results = part.module(*(examples[name] for name in part.inputs))
    return dict(zip(part.outputs, [results] if isinstance(results, Tensor) else results, strict=True))
