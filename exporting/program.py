"""A model as a program of torch.export, with the recursion inside."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch._higher_order_ops import scan
from torch.export import Dim, ExportedProgram

from evaluators.reasoner import Reasoner
from exporting.examples import example_values
from exporting.step import whole_step
from exporting.trace import BATCH, quiet, trace
from utils.constants import MAX_ACT_STEPS


def answer_program(reasoner: Reasoner) -> ExportedProgram:
    """The model as (inputs int64 [batch, seq], steps fp32 [steps], and ids int64 [batch] if it knows puzzles by their
    ids) -> (logits fp32 [steps, batch, seq, vocab], halting probability fp32 [steps, batch]).

    Only the length of `steps` counts: it is the number of ACT steps.
    """
    parts, examples = example_values(reasoner)
    step = whole_step(reasoner.head.model)
    traced = trace(step, [examples[name] for name in step.inputs]).module(check_guards=False)
    ids = [examples["puzzle_identifiers"]] if parts.reads_puzzle_ids else []
    batch, steps = {0: Dim(BATCH, min=1, max=1 << 20)}, {0: Dim("steps", min=1, max=MAX_ACT_STEPS)}
    with torch.no_grad(), quiet():
        return torch.export.export(
            _Answers(parts.start.module, traced),
            (examples["inputs"], torch.zeros(3), *ids),
            dynamic_shapes=(batch, steps, *([tuple(batch for _ in ids)] if ids else [])),
        )


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program to a file that torch.export.load reads.

    Raises:
        OSError: the file cannot be written.
    """
    with quiet(), path.open("wb") as file:
        torch.export.save(program, file)


class _Answers(nn.Module):
    """All steps of a model, of which each is the same traced program."""

    def __init__(self, start: nn.Module, step: nn.Module):
        super().__init__()
        self.start, self.step = start, step

    def forward(self, inputs: Tensor, steps: Tensor, *ids: Tensor) -> tuple[Tensor, Tensor]:
        first = self.start(inputs)

        def one(states: tuple[Tensor, ...], _: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
            logits, q_halt, *new = self.step(inputs, *ids, *states)
            return tuple(new), (logits, q_halt)

        _, (logits, q_halt) = scan(one, first if isinstance(first, tuple) else (first,), steps)
        return logits, q_halt.sigmoid()
