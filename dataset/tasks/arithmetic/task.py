"""Additions as a task."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from dataset.tasks.arithmetic.look import ArithmeticLook
from dataset.tasks.arithmetic.rules import MAX_DIGITS, VOCAB_SIZE, encode
from dataset.tasks.look import Look
from dataset.tasks.puzzle import Solutions, Verdict
from dataset.tasks.symmetry import Symmetry, pair
from dataset.tasks.task import Task
from dataset.tasks.written import plain_value
from utils.errors import UserError
from utils.text_files import shown


class Arithmetic(Task):
    """Additions of operands of one length.

    Raises:
        UserError: no additions have these sizes.
    """

    name: ClassVar[str] = "arithmetic"
    title: ClassVar[str] = "Arithmetic"
    usual_size: ClassVar[tuple[int, int] | None] = (15, VOCAB_SIZE)
    builder: ClassVar[str | None] = "dataset.build_arithmetic_dataset"

    def __init__(self, seq_len: int, vocab_size: int):
        super().__init__(seq_len, vocab_size)
        if vocab_size != VOCAB_SIZE or seq_len not in range(6, 3 * MAX_DIGITS + 4, 3):
            raise UserError(
                f"seq_len {seq_len} and vocab_size {vocab_size} fit no additions: operands of n digits, 1 to "
                f"{MAX_DIGITS}, make 3n + 3 tokens, of a vocabulary of {VOCAB_SIZE}. "
                "Choose a data set built with `python -m dataset.build_arithmetic_dataset`."
            )

    def symmetries(self) -> Sequence[Symmetry]:
        """See `Task.symmetries`: the operands may change places."""
        first, second = slice(0, self.digits), slice(self.digits + 1, 2 * self.digits + 1)

        def swapped(board: np.ndarray) -> np.ndarray:
            moved = board.copy()
            moved[:, first], moved[:, second] = board[:, second], board[:, first]
            return moved

        return [pair("swap the operands", swapped, swapped, answer="kept")]

    def look(self) -> Look:
        """See `Task.look`."""
        return ArithmeticLook(self.seq_len)

    @property
    def digits(self) -> int:
        """Digits of an operand."""
        return self.seq_len // 3 - 1

    def is_batch(self, puzzle: Any) -> bool:
        """See `Task.is_batch`: a list is several additions, unless it is a pair of numbers."""
        value = plain_value(puzzle)
        return isinstance(value, list) and not all(isinstance(item, int) for item in value)

    def encode(self, puzzle: Any) -> np.ndarray:
        """See `Task.encode`: a text such as `12+34=`, or a pair of numbers."""
        value = plain_value(puzzle)
        if isinstance(value, list):
            value = "+".join(map(str, value)) if len(value) == 2 else None
        found = re.fullmatch(r"\s*([0-9]+)\s*\+\s*([0-9]+)\s*=?\s*", value) if isinstance(value, str) else None
        if found is None:
            raise UserError(
                f"an addition: got {shown(puzzle)}. Expected are two whole numbers with a plus between them, such as "
                "12+34, or a pair of numbers. Correct the addition."
            )
        operands = [text.lstrip("0") or "0" for text in found.groups()]
        if (longest := max(map(len, operands))) > self.digits:
            raise UserError(
                f"an addition: {shown(value)} has an operand of {longest} digits. This model adds numbers of at most "
                f"{self.digits}. Give smaller numbers, or load a model for longer ones."
            )
        return encode(np.array([[int(text) for text in operands]]), self.digits)[0][0]

    def encode_answer(self, answer: Any, question: np.ndarray) -> np.ndarray:
        """See `Task.encode_answer`: a whole number."""
        text = str(answer).strip()
        if not re.fullmatch("[0-9]+", text) or len(text.lstrip("0")) > self.digits + 1:
            raise UserError(
                f"a sum: got {shown(answer)}. Expected is a whole number of at most {self.digits + 1} digits."
            )
        label = np.zeros(self.seq_len, np.uint8)
        label[-self.digits - 1 :] = [int(digit) + 1 for digit in text.lstrip("0").zfill(self.digits + 1)]
        return label

    def rows(self, tokens: np.ndarray, question: np.ndarray | None = None) -> list[str]:
        """See `Task.rows`: of an answer the sum, without leading zeros."""
        if question is None:
            a, b = super().rows(tokens)[0].split("=")[0].split("+")
            return [f"{int(a)}+{int(b)}="]
        look = self.look()
        written = "".join(look.character(int(token)) for token in tokens[-self.digits - 1 :])
        return [written.lstrip("0") or "0"]

    def solutions(self, question: np.ndarray) -> Solutions:
        """See `Task.solutions`: always one."""
        return Solutions("one")

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Task.solve`: the sum."""
        return encode(self._operands(question)[None], self.digits)[1][0]

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Task.verify`."""
        right, given = self.solve(question), np.asarray(answer)[-self.digits - 1 :]
        assert right is not None
        if np.array_equal(given, right[-self.digits - 1 :]):
            return Verdict("solved", "the sum is right")
        return Verdict("wrong", f"the sum is {int(self._operands(question).sum())}")

    def generate(self, rng: np.random.Generator, difficulty: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """See `Task.generate`; there is one difficulty, which depends on the number of digits."""
        questions, labels = encode(rng.integers(10**self.digits, size=(1, 2)), self.digits)
        return questions[0], labels[0]

    def _operands(self, question: np.ndarray) -> np.ndarray:
        """The two numbers, int64 [2], of a question."""
        digits = np.asarray(question, np.int64)[: 2 * self.digits + 1]
        operands = np.stack([digits[: self.digits], digits[self.digits + 1 :]]) - 1
        return operands @ 10 ** np.arange(self.digits - 1, -1, -1)
