"""Sudoku with boxes of 2x2, 2x3 and 3x3 cells."""

from dataset.tasks.sudoku.task import Sudoku

__all__ = ["Sudoku"]
