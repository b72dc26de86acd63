"""The interface of a task for the programs, the evaluators and the pictures.

A new task is a package `dataset/tasks/<name>/` with a subclass of `Task`. It needs a `name` and a `title`; everything
else has a default:

    published           sizes that identify older data sets, whose dataset.json does not name a task
    builder             the command that builds its data sets, for error messages
    checks, check       what `evaluators: [{name: <name>@<title>}]` reports
    augmentation        random symmetries for each training example, enabled with `augmentation: <name>`
    look                how its boards are displayed in the terminal and in pictures
"""

import inspect
from math import isqrt
from string import ascii_letters, digits
from typing import Any, ClassVar, Self

import numpy as np

from dataset.augmentation import Augmentation
from dataset.tasks.look import Look
from utils.errors import UserError


class Task:
    """A kind of puzzle; an instance is a task at one size.

    A subclass that has options or allows only certain sizes defines an `__init__` with `seq_len`, `vocab_size` and its
    options, and raises a `UserError` there if they are invalid.
    """

    name: ClassVar[str]  # name of the package
    title: ClassVar[str]  # prefix of its metrics
    published: ClassVar[tuple[tuple[int, int], ...]] = ()  # (seq_len, vocab_size), the best known one first
    checks: ClassVar[tuple[str, ...]] = ()  # keys of the result of `check`
    builder: ClassVar[str | None] = None  # module of the command that builds a data set
    builder_options: ClassVar[str] = ""  # its required options, apart from --output-dir

    def __init__(self, seq_len: int, vocab_size: int):
        self.seq_len, self.vocab_size = seq_len, vocab_size

    @classmethod
    def of(cls, seq_len: int, vocab_size: int, **options: Any) -> Self:
        """The task at the sizes of a data set.

        Raises:
            UserError: the task does not allow these sizes, or has no such option.
        """
        try:
            inspect.signature(cls).bind(seq_len, vocab_size, **options)
        except TypeError as error:
            raise UserError(f"task {cls.name}: {error}.") from None
        return cls(seq_len, vocab_size, **options)

    @classmethod
    def build_command(cls, output_dir: str) -> str | None:
        """A command that builds a data set in `output_dir`; None if the task has no builder."""
        if cls.builder is None:
            return None
        return f"python -m {cls.builder} --output-dir {output_dir} {cls.builder_options}".rstrip()

    def check(self, inputs: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        """For each of `checks`, whether each answer passes it, by the rules and without the label: bool [n].

        Args:
            inputs: tokens of the questions [n, seq_len].
            answers: tokens of the answers [n, seq_len].
        """
        return {}

    def augmentation(self) -> Augmentation:
        """The symmetries of the task at this size.

        Raises:
            UserError: the task has no augmentation.
        """
        raise UserError(f"augmentation={self.name}: the task {self.name} has no augmentation. Use augmentation=null.")

    def look(self) -> Look:
        """How to display boards; by default as characters in a square grid, or in one row if there is no square."""
        side = isqrt(self.seq_len)
        height, width = (side, side) if side**2 == self.seq_len else (1, self.seq_len)
        return Look(height, width, (" " + digits[1:] + ascii_letters)[: self.vocab_size])
