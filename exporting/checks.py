"""Comparing an exported model with the model that it was made from."""

import copy
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from evaluators.reasoner import Reasoner
from exporting.step import step_parts
from utils.errors import UserError

if TYPE_CHECKING:
    import onnxruntime

# Of logits; for logits above 1 in size a part of their size, as fp32 has no more than 7 digits.
TOLERANCE = 1e-4
# A step starts from the rounded state of the one before, so that differences grow, most where a model does not settle
# on an answer. Beyond TOLERANCE, an exported model may differ from its original by so many times what it changes to
# move every weight of the original by one unit in the last place.
ROUNDINGS = 100
_UNIT = 2.0**-23
HELD_OUT = "held_out.csv"  # in the folder of a model: puzzles that it was not trained on
# (inputs int64 [n, seq], steps) -> (logits fp32 [steps, n, seq, vocab], halting probability fp32 [steps, n])
Answers = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Comparison:
    """How an exported model compares with its original on the same puzzles.

    Attributes:
        puzzles: how many.
        steps: ACT steps.
        wrong: puzzles of which any answer, of any step, differs, except for ties.
        tied: puzzles that differ only in ties: where the original's logits of the two tokens are so near to each other
            that logits within `TOLERANCE` may have either order, as happens in models that were not trained.
        difference: the largest difference of two logits after the first step, as a part of the larger of 1 and the
            size of the logit.
        difference_of_all: the largest one after any step.
        unsettled: puzzles with a difference above `TOLERANCE` after a later step, because rounding grows from step to
            step there, in the original too.
        unexplained: puzzles with a larger difference than that.
        exact, exact_before: puzzles solved by the exported model and by the original; None: the task has no rules.
        seconds, seconds_before: time that they took.
        processor_seconds: processor time of the exported model, which other work on the machine hardly changes.
    """

    puzzles: int
    steps: int
    wrong: int
    tied: int
    difference: float
    difference_of_all: float
    unsettled: int
    unexplained: int
    exact: int | None
    exact_before: int | None
    seconds: float
    seconds_before: float
    processor_seconds: float

    @property
    def same(self) -> bool:
        """Whether the two are the same but for rounding."""
        close = self.difference <= TOLERANCE and not self.unexplained
        return not self.wrong and close and self.exact == self.exact_before

    @property
    def points_lost(self) -> float:
        """By how many percentage points the exported model solves less."""
        if self.exact is None or self.exact_before is None:
            return 0.0
        return 100 * (self.exact_before - self.exact) / self.puzzles

    def __str__(self) -> str:
        text = f"{self.puzzles} puzzles, {self.steps} steps: {self.wrong} with another answer, "
        text += f"logits within {self.difference:.1e} after the first step and {self.difference_of_all:.1e} after all"
        if self.tied:
            text += f" ({self.tied} puzzles differ in a tie of two tokens)"
        if self.unsettled:
            text += f" ({self.unsettled} puzzles above {TOLERANCE:.0e}, where rounding grows from step to step)"
        if self.unexplained:
            text += f" ({self.unexplained} of them more than rounding explains)"
        if self.exact is not None:
            text += f"; solved {self.exact} (before {self.exact_before})"
        return f"{text}; {self.puzzles / self.seconds:.1f} puzzles/s (before {self.puzzles / self.seconds_before:.1f})"


def sample_puzzles(reasoner: Reasoner, count: int) -> tuple[np.ndarray, str]:
    """Puzzles, int64 [count, seq], and where they come from.

    They come from `held_out.csv` beside the weights as far as it reaches, and then from the generator of the task. For
    a task without one they are random tokens, which compare computations but no accuracy.
    """
    task, rng = reasoner.task, np.random.default_rng(0)
    path = reasoner.origin.path.parent / HELD_OUT
    rows: list[np.ndarray] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            texts = [row["question"] for row in csv.DictReader(file) if row.get("question")]
        rows = [task.encode(text) for text in texts[:count]]
    source = f"{len(rows)} of {path.name}" if rows else ""
    try:
        made = [task.random_question(rng) for _ in range(count - len(rows))]
    except UserError:
        made = list(rng.integers(1, task.vocab_size, (count - len(rows), task.seq_len)))
        return np.stack([*rows, *made]).astype(np.int64), "random tokens"
    if made:
        source = f"{source} and {len(made)} generated" if source else f"{len(made)} generated"
    return np.stack([*rows, *made]).astype(np.int64), source


def original_answers(reasoner: Reasoner) -> Answers:
    """The answers of the model itself, in batches."""

    def answers(inputs: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        tokens, ids = torch.from_numpy(inputs), torch.zeros(len(inputs), dtype=torch.int64)
        data = {"inputs": tokens.to(reasoner.device), "puzzle_identifiers": ids.to(reasoner.device)}
        with torch.inference_mode():
            found = [outputs for _, outputs in reasoner.head.model.answer_steps(data, steps)]
        logits = torch.stack([outputs["logits"].float().cpu() for outputs in found])
        halt = torch.stack([outputs["q_halt_logits"].float().sigmoid().cpu() for outputs in found])
        return logits.numpy(), halt.numpy()

    return answers


def one_unit_off(reasoner: Reasoner) -> Reasoner:
    """The model with every weight moved by one unit in the last place of fp32, up or down at random."""
    head, generator = copy.deepcopy(reasoner.head), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in head.parameters():
            up = torch.rand(weight.shape, generator=generator) < 0.5
            weight.mul_(torch.where(up, 1 + _UNIT, 1 - _UNIT))
    return Reasoner(head, reasoner.task, reasoner.origin)


def compare(
    reasoner: Reasoner,
    exported: Answers,
    inputs: np.ndarray,
    steps: int,
    batch: int = 32,
    original: Answers | None = None,
) -> Comparison:
    """Compare an exported model with its original.

    Args:
        reasoner: the original.
        exported: the exported model.
        inputs: puzzles, int64 [n, seq].
        steps: ACT steps.
        batch: puzzles at once.
        original: the answers of the original; None: it computes them.
    """
    original = original or original_answers(reasoner)
    rounded: Answers | None = None
    wrong, tied, exact, exact_before, unsettled, unexplained = 0, 0, 0, 0, 0, 0
    differences = np.zeros(steps)
    seconds, seconds_before, processor_seconds = 0.0, 0.0, 0.0
    for start in range(0, len(inputs), batch):
        part = inputs[start : start + batch]
        begun = time.perf_counter()
        before, _ = original(part, steps)
        between, processor = time.perf_counter(), time.process_time()
        logits, _ = exported(part, steps)
        processor_seconds += time.process_time() - processor
        seconds_before += between - begun
        seconds += time.perf_counter() - between
        answers, answers_before = logits.argmax(-1), before.argmax(-1)
        scale = np.maximum(1, np.abs(before))
        differs = answers != answers_before
        other = (differs & ~_ties(before, scale, answers_before, answers)).any(axis=(0, 2))  # [n]
        wrong += int(other.sum())
        tied += int((differs.any(axis=(0, 2)) & ~other).sum())
        relative = np.abs(logits - before) / scale
        by_puzzle = relative.max(axis=(2, 3))  # [steps, n]
        differences = np.maximum(differences, by_puzzle.max(axis=1))
        if len(rows := np.flatnonzero((by_puzzle > TOLERANCE).any(axis=0))):
            rounded = rounded or original_answers(one_unit_off(reasoner))
            moved = np.abs(rounded(part[rows], steps)[0] - before[:, rows]) / np.maximum(1, np.abs(before[:, rows]))
            allowed = ROUNDINGS * np.maximum.accumulate(moved.max(axis=(2, 3)), axis=0)
            unsettled += len(rows)
            unexplained += int((by_puzzle[:, rows] > np.maximum(TOLERANCE, allowed)).any(axis=0).sum())
        exact += _solved(reasoner, part, answers[-1])
        exact_before += _solved(reasoner, part, answers_before[-1])
    rules = bool(reasoner.task.checks)
    return Comparison(
        puzzles=len(inputs),
        steps=steps,
        wrong=wrong,
        tied=tied,
        difference=float(differences[0]),
        difference_of_all=float(differences.max()),
        unsettled=unsettled,
        unexplained=unexplained,
        exact=exact if rules else None,
        exact_before=exact_before if rules else None,
        seconds=seconds,
        seconds_before=seconds_before,
        processor_seconds=processor_seconds,
    )


def _ties(logits: np.ndarray, scale: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where the logits of two tokens [..., seq] are so near that errors of `TOLERANCE * scale` may change the order."""

    def at(values: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, tokens[..., None], -1)[..., 0]

    return at(logits, one) - at(logits, other) <= TOLERANCE * (at(scale, one) + at(scale, other))


def _solved(reasoner: Reasoner, inputs: np.ndarray, answers: np.ndarray) -> int:
    task = reasoner.task
    if not task.checks:
        return 0
    return int(task.check(inputs, answers)[task.checks[-1]].sum())


def onnx_session(path: Path) -> "onnxruntime.InferenceSession":
    """An ONNX file, ready to run on as many threads as torch has."""
    import onnxruntime  # not installed everywhere

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_answers(reasoner: Reasoner, path: Path) -> Answers:
    """The answers of a file that `exporting.onnx_models.answer_model` has made."""
    session = onnx_session(path)
    reads_ids = step_parts(reasoner.head.model).reads_puzzle_ids

    def answers(inputs: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        feeds = {"inputs": inputs, "steps": np.array(steps)}
        if reads_ids:
            feeds["puzzle_identifiers"] = np.zeros(len(inputs), np.int64)
        logits, halt = session.run(["all_logits", "halt_probability"], feeds)
        return np.asarray(logits), np.asarray(halt)

    return answers


def program_answers(reasoner: Reasoner, path: Path) -> Answers:
    """The answers of a file that `exporting.program.save_program` has written."""
    program = torch.export.load(path).module()
    reads_ids = step_parts(reasoner.head.model).reads_puzzle_ids

    def answers(inputs: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        ids = [torch.zeros(len(inputs), dtype=torch.int64)] if reads_ids else []
        with torch.no_grad():
            logits, halt = program(torch.from_numpy(inputs), torch.zeros(steps), *ids)
        return logits.numpy(), halt.numpy()

    return answers
