"""Sudoku as a task."""

import random
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from dataset.tasks.look import Look
from dataset.tasks.puzzle import Solutions, Verdict
from dataset.tasks.sudoku.augmentation import SudokuAugmentation
from dataset.tasks.sudoku.equivalence import canonical_keys
from dataset.tasks.sudoku.generate import generate_puzzle
from dataset.tasks.sudoku.look import SudokuLook
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, box_of, obeys_rules, repeated_digit, units_of
from dataset.tasks.sudoku.solver import solutions_within
from dataset.tasks.sudoku.symmetries import sudoku_symmetries
from dataset.tasks.symmetry import Symmetry
from dataset.tasks.task import Task
from dataset.tasks.written import Notation

_GUESSES = 20_000  # of the exact solver; the hardest known puzzles with one solution take a few hundred


class Sudoku(Task):
    """Sudoku with one box shape.

    The checks:
        valid: each row, column and box of the answer has every digit once, regardless of the clues;
        clues_kept: the answer keeps every clue;
        solved: both, which for a puzzle with a unique solution means that the answer is that solution.

    Raises:
        UserError: no Sudoku has these sizes.
    """

    name: ClassVar[str] = "sudoku"
    title: ClassVar[str] = "Sudoku"
    published: ClassVar[tuple[tuple[int, int], ...]] = ((81, 11), (36, 8))
    checks: ClassVar[tuple[str, ...]] = ("valid", "clues_kept", "solved")
    builder: ClassVar[str | None] = "dataset.build_sudoku_dataset"

    def __init__(self, seq_len: int, vocab_size: int):
        super().__init__(seq_len, vocab_size)
        self.box = box_of(seq_len, vocab_size)

    def check(self, inputs: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        """See `Task.check`."""
        valid = obeys_rules(answers.astype(np.int64) - TOKEN_OFFSET, self.box)
        kept = ((inputs <= TOKEN_OFFSET) | (inputs == answers)).all(axis=1)
        return {"valid": valid, "clues_kept": kept, "solved": valid & kept}

    def symmetries(self) -> Sequence[Symmetry]:
        """See `Task.symmetries`."""
        return sudoku_symmetries(self.box)

    def candidates(self) -> np.ndarray:
        """See `Task.candidates`: any digit in a blank."""
        allowed = np.eye(self.vocab_size, dtype=np.bool_)
        allowed[: TOKEN_OFFSET + 1] = True
        allowed[:, : TOKEN_OFFSET + 1] = False
        return allowed

    def units(self) -> Sequence[Sequence[int]]:
        """See `Task.units`: rows, columns and boxes."""
        return [unit for units in units_of(self.box).values() for unit in units]

    def turns(self) -> Sequence[int]:
        """See `Task.turns`: those that make boxes of boxes."""
        return range(8) if self.box.is_square else (0, 1, 4, 5)

    def key(self, question: np.ndarray) -> bytes:
        """See `Task.key`."""
        return canonical_keys(question[None] - np.uint8(TOKEN_OFFSET), self.box)[0]

    def augmentation(self) -> SudokuAugmentation:
        """See `Task.augmentation`: the symmetries, on whole batches."""
        return SudokuAugmentation(self.box)

    def look(self) -> Look:
        """See `Task.look`."""
        return SudokuLook(self.box)

    def notation(self) -> Notation:
        """See `Task.notation`: digits, with `.` or 0 for a blank; the lines of a frame do not count."""
        side = self.box.side
        symbols = {str(value): value + TOKEN_OFFSET for value in range(side + 1)}
        symbols |= dict.fromkeys("._*?", TOKEN_OFFSET)
        allowed = f"the digits 1 to {side}, and . or 0 for a blank"
        name = f"a Sudoku of {side}x{side}"
        return Notation(name, side, side, symbols, self._token_of_value, allowed, " \t,;|+-!", TOKEN_OFFSET)

    def _token_of_value(self, value: int) -> int | None:
        return value + TOKEN_OFFSET if 0 <= value <= self.box.side else None

    def grid(self, tokens: np.ndarray, question: np.ndarray | None = None) -> np.ndarray:
        """See `Task.grid`: the digits, int64 [side, side], with 0 for a blank."""
        values = np.maximum(np.asarray(tokens, np.int64) - TOKEN_OFFSET, 0)
        return values.reshape(self.box.side, self.box.side)

    def solutions(self, question: np.ndarray) -> Solutions:
        """See `Task.solutions`; found by the exact solver, unless that takes too many guesses."""
        values = question.astype(np.int64) - TOKEN_OFFSET
        if (twice := repeated_digit(values, self.box)) is not None:
            return Solutions("none", f"it has no solution, because {twice}")
        found = solutions_within(values, self.box, _GUESSES)
        if found is None:
            return Solutions("unknown", "the exact solver gave up on it")
        if not found:
            return Solutions("none", "it has no solution, although no two of its clues contradict each other")
        return Solutions("one" if len(found) == 1 else "several")

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Task.solve`; None also if the exact solver takes too many guesses."""
        found = solutions_within(question.astype(np.int64) - TOKEN_OFFSET, self.box, _GUESSES, limit=1)
        return found[0] + TOKEN_OFFSET if found else None

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Task.verify`."""
        solutions = self.solutions(question)
        if solutions.number == "none":
            return Verdict("undecided", solutions.reason)
        several = "; the puzzle has several solutions" if solutions.number == "several" else ""
        checks = {name: bool(passed[0]) for name, passed in self.check(question[None], answer[None]).items()}
        if checks["solved"]:
            which = ", as one of several solutions" if several else ""
            return Verdict("solved", f"every row, column and box has each digit once, and all clues are kept{which}")
        values = answer.astype(np.int64) - TOKEN_OFFSET
        if lost := int(np.count_nonzero((question > TOKEN_OFFSET) & (question != answer))):
            return Verdict("wrong", f"{lost} of the clues {'is' if lost == 1 else 'are'} not kept{several}")
        if blank := int(np.count_nonzero((values < 1) | (values > self.box.side))):
            return Verdict("wrong", f"{blank} {'cell is' if blank == 1 else 'cells are'} left open{several}")
        return Verdict("wrong", f"{repeated_digit(values, self.box)}{several}")

    def generate(self, rng: np.random.Generator, difficulty: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """See `Task.generate`: with one solution.

        Difficulty 1: as in a newspaper, with a third of the cells given; 2: no clue can be left out.
        """
        draws = random.Random(int(rng.integers(2**63)))
        min_clues = round(self.box.cells / 3) + 3 if difficulty < 2 else 0
        puzzle, solution = generate_puzzle(self.box, draws, min_clues=min_clues)
        boards = np.array([puzzle, solution], np.uint8) + np.uint8(TOKEN_OFFSET)
        return boards[0], boards[1]
