"""The rules of a task as a function of many boards, which a search accepts or rejects."""

import numpy as np

from dataset.puzzle_dataset import PuzzleSplit
from dataset.tasks import task_of
from dataset.tasks.task import Task
from evaluators.search import Accept
from utils.errors import UserError


def has_rules(task: type[Task]) -> bool:
    """Whether the task can say that an answer is right without knowing a label."""
    return task.solved_check in task.checks or task.verify is not Task.verify


def accept_of(task: Task) -> Accept:
    """Which answers obey the rules and keep what is given, for a task with rules."""
    if task.solved_check in task.checks:
        return lambda questions, answers: task.check(questions, answers)[task.solved_check]

    def accept(questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        pairs = zip(questions, answers, strict=True)
        return np.array([task.verify(question, answer).status == "solved" for question, answer in pairs], np.bool_)

    return accept


def task_with_rules(split: PuzzleSplit) -> Task:
    """The task of the data, at their size.

    Raises:
        UserError: the task is unknown, or has no rules.
    """
    task = task_of(split.metadata)
    if task is None or not has_rules(task):
        raise UserError(
            f"{split.sources[0].root}: search needs a task whose rules say whether a board is solved; "
            f"the task of these data is {'unknown' if task is None else task.name}."
        )
    return task.of(split.metadata.seq_len, split.metadata.vocab_size)
