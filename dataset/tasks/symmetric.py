"""What follows from the symmetries of a task: augmentation, equivalence of puzzles, and a check of the symmetries."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dataset.augmentation import Draws
from dataset.tasks.look import Look
from dataset.tasks.own_code import Stated, running, solution_of, symmetries_of, verdict_of, written
from dataset.tasks.symmetry import Symmetry, random_choice
from utils.counter_random import random_words
from utils.errors import UserError

MOST_TRIED = 512  # images of a puzzle that are compared to find its key
_CHECKED = 32  # examples that a symmetry is checked on before it is used
_NO_LABEL = 0

Example = tuple[np.ndarray, np.ndarray]  # tokens of a question and of its answer, each [seq_len]


class Symmetric(Stated, Protocol):
    """What is needed of a task here; see `dataset.tasks.task.Task`."""

    def look(self) -> Look: ...


def transformed(task: Symmetric, symmetry: Symmetry, choice: object, example: Example) -> Example:
    """An example after one of the changes of a symmetry.

    Raises:
        UserError: it must be labelled anew, and the task has no `solve`, or finds no solution.
    """
    question, answer = example
    moved = on_board(task, symmetry.apply, choice, question)
    if symmetry.answer == "kept":
        return moved, answer
    if symmetry.answer == "transformed":
        return moved, on_board(task, symmetry.apply, choice, answer)
    solved = solution_of(task, moved)
    if solved is None:
        raise UserError(
            f"the task {task.name}: its symmetry {symmetry.name!r} has the answer computed anew, and `solve` gives "
            f"none for {task.decode(moved)!r}. Write a `solve` that solves every question of the task."
        )
    return moved, np.asarray(solved, np.uint8)


def on_board(task: Symmetric, change: object, choice: object, tokens: np.ndarray) -> np.ndarray:
    """`change` of tokens [seq_len], as it is written for boards.

    Raises:
        UserError: the changed board has another shape.
    """
    look = task.look()
    assert callable(change)
    with running(task, "symmetries", lambda: f", for the board {written(task, tokens)}"):
        board = np.asarray(change(tokens.reshape(look.height, look.width), choice))
    if board.shape != (look.height, look.width):
        raise UserError(
            f"the task {task.name}: a symmetry makes a board of {board.shape} of one of {(look.height, look.width)}. "
            "It must keep the shape."
        )
    return board.reshape(-1).astype(np.uint8)


class SymmetryAugmentation:
    """Draws one choice of each symmetry of a task for each example, and applies them one after the other.

    The symmetries are Python functions of a single board, so they are applied on the CPU, some 10 microseconds each.
    A task with faster ones, as tensor operations on whole batches, overrides `Task.augmentation`.
    """

    prepares = False

    def __init__(self, task: Symmetric, symmetries: Sequence[Symmetry]):
        self.task, self.symmetries = task, symmetries

    def prepare(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """See `Augmentation.prepare`; nothing needs to be prepared."""

    def draw(self, seed: int, rows: Tensor) -> dict[str, Tensor]:
        """See `Augmentation.draw`: int64 choices [n, symmetries]."""
        sizes = torch.tensor([len(symmetry.choices) for symmetry in self.symmetries], device=rows.device)
        return {"choices": random_words(seed, rows, len(self.symmetries)) % sizes}

    def apply(self, inputs: Tensor, labels: Tensor, prepared: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor]:
        """See `Augmentation.apply`."""
        questions = inputs.cpu().numpy().astype(np.uint8)
        ignored = labels.min().clamp(max=_NO_LABEL)  # labels are ignored where they are 0, or negative in a batch
        answers = labels.clamp_min(_NO_LABEL).cpu().numpy().astype(np.uint8)
        new_inputs, new_labels = questions.copy(), answers.copy()
        for row, choices in enumerate(draws["choices"].tolist()):
            example = questions[row], answers[row]
            for symmetry, choice in zip(self.symmetries, choices, strict=True):
                example = transformed(self.task, symmetry, symmetry.choices[choice], example)
            new_inputs[row], new_labels[row] = example
        made = torch.from_numpy(new_labels).to(labels)
        return torch.from_numpy(new_inputs).to(inputs), torch.where(made == _NO_LABEL, ignored, made)


def key_of(task: Symmetric, question: np.ndarray) -> bytes:
    """A key that equivalent questions share: those that symmetries of the task make from one another.

    Symmetries with `canonical` come last, whatever their place; of the others all choices are tried if there are at
    most `MOST_TRIED` in all, and otherwise none: then only part of the equivalent questions share their key.
    """
    symmetries = symmetries_of(task)
    tried = [symmetry for symmetry in symmetries if symmetry.canonical is None]
    if not tries_all(symmetries):
        tried = []
    keys: list[bytes] = []
    for choices in product(*(range(len(symmetry.choices)) for symmetry in tried)):
        image = question
        for symmetry, choice in zip(tried, choices, strict=True):
            image = on_board(task, symmetry.apply, symmetry.choices[choice], image)
        for symmetry in symmetries:
            if symmetry.canonical is not None:
                canonical = symmetry.canonical
                image = on_board(task, lambda board, _, function=canonical: function(board), None, image)
        keys.append(image.tobytes())
    return min(keys)


def tries_all(symmetries: Sequence[Symmetry]) -> bool:
    """Whether the key of a question takes all symmetries into account."""
    return prod(len(symmetry.choices) for symmetry in symmetries if symmetry.canonical is None) <= MOST_TRIED


def broken_symmetries(task: Symmetric, examples: Sequence[Example], rng: np.random.Generator) -> Iterator[str]:
    """What is wrong with each symmetry of the task that is not one, with an example.

    A change must be undone exactly. A right answer must stay right by `verify`; and where the task has `solve`, whose
    answers are its labels, the answer must also be the label of the new question. That is more: the shortest path of a
    turned maze is a shortest path, but need not be the one of several that the labels have.
    """
    for symmetry in symmetries_of(task):
        for example in examples:
            choice = random_choice(symmetry.choices, rng)
            if (fault := _fault(task, symmetry, choice, example)) is not None:
                yield f"symmetry {symmetry.name!r}, {fault}"
                break


def _fault(task: Symmetric, symmetry: Symmetry, choice: object, example: Example) -> str | None:
    question, answer = example
    moved, label = transformed(task, symmetry, choice, example)
    shown = f"of {_written(task, question)} with the answer {_written(task, answer, question)}"
    if not np.array_equal(on_board(task, symmetry.undo, choice, moved), question):
        return f"undo: does not give back the question {shown}"
    if symmetry.answer == "transformed" and not np.array_equal(
        on_board(task, symmetry.undo, choice, label), np.asarray(answer)
    ):
        return f"undo: does not give back the answer {shown}"
    made = f"{shown} it makes {_written(task, moved)} with the answer {_written(task, label, moved)}"
    verdict = verdict_of(task, moved, label, label)
    if verdict.status != "solved":
        return f"the label stops being right: {made}, which is {verdict.status}: {verdict.reason}"
    before, after = solution_of(task, question), solution_of(task, moved)
    if before is None or after is None or not same_answer(before, answer) or same_answer(after, label):
        return None
    return (
        f"the label stops being the label: {made}, where `solve` gives {_written(task, after, moved)}. Give the "
        'symmetry answer="relabelled", so that the answer is computed anew'
    )


def same_answer(answer: np.ndarray, label: np.ndarray) -> bool:
    """Whether an answer equals a label wherever that asks for something."""
    asked = np.asarray(label) != _NO_LABEL
    return bool(np.array_equal(np.asarray(answer)[asked], np.asarray(label)[asked]))


def _written(task: Symmetric, tokens: np.ndarray, question: np.ndarray | None = None) -> str:
    return repr(task.decode(tokens, question))


def check_symmetries(task: Symmetric, inputs: np.ndarray, labels: np.ndarray, seed: int = 0) -> None:
    """Refuse symmetries that make labels wrong, on a sample of the examples [n, seq_len] that they are to be used on.

    Raises:
        UserError: one of them does; the message has the example.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(inputs))[:_CHECKED])
    examples = [(np.asarray(inputs[row]), np.asarray(labels[row])) for row in rows if np.any(labels[row])]
    for fault in broken_symmetries(task, examples, rng):
        raise UserError(f"the task {task.name}: {fault}. Correct the symmetry, or take it out of `symmetries`.")
