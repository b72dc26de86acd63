"""What is exchanged with a task about single puzzles: questions, what is found out about them, and verdicts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

# what a person writes for a puzzle or an answer: a text, or a grid of numbers
Written = str | list[list[int]]
Status = Literal["solved", "wrong", "undecided"]


@dataclass(frozen=True, eq=False)
class Question:
    """A puzzle in tokens.

    Attributes:
        tokens: uint8 [seq_len].
        name: the name of the puzzle, by which a model with a puzzle embedding knows it; None: it has none.
        label: tokens of the solution, uint8 [seq_len], where it came with the puzzle.
    """

    tokens: np.ndarray
    name: str | None = None
    label: np.ndarray | None = None


@dataclass(frozen=True)
class Verdict:
    """What the rules of a task say of an answer.

    Attributes:
        status: `solved`: the answer is right; `wrong`: it is not; `undecided`: the puzzle has no solution, or there is
            no answer, or nothing to check it by.
        reason: why, as a clause without a full stop.
        checked: whether there was something to check the answer by.
    """

    status: Status
    reason: str
    checked: bool = True

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


@dataclass(frozen=True)
class Solutions:
    """What is known about the solutions of a question, before anybody has answered it.

    Attributes:
        number: `none`, `one` or `several`; `unknown` if nobody has found out.
        reason: for `none` and `unknown` why, as a clause without a full stop.
    """

    number: Literal["none", "one", "several", "unknown"]
    reason: str = ""
