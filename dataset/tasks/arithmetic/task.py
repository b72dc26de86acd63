"""Additions as a task."""

from typing import ClassVar

from dataset.tasks.arithmetic.look import ArithmeticLook
from dataset.tasks.arithmetic.rules import MAX_DIGITS, VOCAB_SIZE
from dataset.tasks.look import Look
from dataset.tasks.task import Task
from utils.errors import UserError


class Arithmetic(Task):
    """Additions of operands of one length.

    Raises:
        UserError: no additions have these sizes.
    """

    name: ClassVar[str] = "arithmetic"
    title: ClassVar[str] = "Arithmetic"
    builder: ClassVar[str | None] = "dataset.build_arithmetic_dataset"

    def __init__(self, seq_len: int, vocab_size: int):
        super().__init__(seq_len, vocab_size)
        if vocab_size != VOCAB_SIZE or seq_len not in range(6, 3 * MAX_DIGITS + 4, 3):
            raise UserError(
                f"seq_len {seq_len} and vocab_size {vocab_size} fit no additions: operands of n digits, 1 to "
                f"{MAX_DIGITS}, make 3n + 3 tokens, of a vocabulary of {VOCAB_SIZE}. "
                "Choose a data set built with `python -m dataset.build_arithmetic_dataset`."
            )

    def look(self) -> Look:
        """See `Task.look`."""
        return ArithmeticLook(self.seq_len)
