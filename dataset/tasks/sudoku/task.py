"""Sudoku as a task."""

from typing import ClassVar

import numpy as np

from dataset.tasks.look import Look
from dataset.tasks.sudoku.augmentation import SudokuAugmentation
from dataset.tasks.sudoku.look import SudokuLook
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, box_of, obeys_rules
from dataset.tasks.task import Task


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

    def augmentation(self) -> SudokuAugmentation:
        """See `Task.augmentation`."""
        return SudokuAugmentation(self.box)

    def look(self) -> Look:
        """See `Task.look`."""
        return SudokuLook(self.box)
