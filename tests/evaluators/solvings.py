"""Small puzzles and answers to them, written as text."""

import re

import numpy as np

from dataset.tasks.arc.look import ArcLook
from dataset.tasks.arithmetic.look import ArithmeticLook
from dataset.tasks.look import Look
from dataset.tasks.maze.look import MazeLook
from dataset.tasks.sudoku.look import SudokuLook
from dataset.tasks.sudoku.rules import BOXES
from evaluators.solving import Solving
from evaluators.terminal import in_terminal


def solving(look: Look, question: np.ndarray, solution: np.ndarray, answers: list[np.ndarray]) -> Solving:
    """Halting probabilities rise evenly from 0.25 to 0.75."""
    return Solving(look, question, solution, np.stack(answers), np.linspace(0.25, 0.75, len(answers)))


def sudoku_look(cells: int) -> SudokuLook:
    """Of boards with so many cells."""
    return SudokuLook(next(box for box in BOXES if box.cells == cells))


def sudoku(question: str, solution: str, *answers: str) -> Solving:
    """Cells are digits, `.` for a blank, `?` for a label that is not known."""

    def tokens(text: str) -> np.ndarray:
        return np.array([{".": 1, "?": -100}.get(c) or int(c) + 1 for c in text.replace(" ", "")])

    look = sudoku_look(len(tokens(question)))
    return solving(look, tokens(question), tokens(solution), [tokens(answer) for answer in answers])


QUESTION, SOLUTION = "1... ..3. .1.. ...2", "1234 4231 2143 3412"  # no valid Sudoku, which does not matter here


def maze(question: str, solution: str, *answers: str) -> Solving:
    """Rows are separated by `/`."""

    def tokens(text: str) -> np.ndarray:
        return np.array(["# SGo".index(c) + 1 for c in text.replace("/", "")])

    look = MazeLook(question.count("/") + 1, question.index("/"))
    return solving(look, tokens(question), tokens(solution), [tokens(answer) for answer in answers])


def arc(question: str, solution: str, *answers: str, side: int = 30) -> Solving:
    """Rows are separated by `/`, `-` is a cell outside the grid; all answers start at row 3, column 7."""

    def field(text: str, row: int = 3, col: int = 7) -> np.ndarray:
        cells = np.array([[1 if c == "-" else int(c) + 2 for c in line] for line in text.split("/")])
        height, width = cells.shape
        tokens = np.zeros((side, side), np.int64)
        tokens[row : row + height + 1, col : col + width + 1] = 1
        tokens[row + height : row + height + 1, col + width : col + width + 1] = 0
        tokens[row : row + height, col : col + width] = cells
        return tokens.ravel()

    labels = field(solution)
    outside = np.where(labels == 0, 5, 0)  # what the model says where nothing is asked
    answered = [np.where(labels == 0, outside, field(answer)) for answer in answers]
    return solving(ArcLook(side), field(question, 0, 4), np.where(labels == 0, -100, labels), answered)


def arithmetic(question: str, solution: str, *answers: str) -> Solving:
    def tokens(text: str) -> np.ndarray:
        return np.array(["_0123456789+=".index(c) for c in text])

    inputs = tokens(question)
    labels = np.where(inputs == 0, tokens(solution), -100)
    return solving(ArithmeticLook(len(inputs)), inputs, labels, [tokens(answer) for answer in answers])


SAMPLES = {
    "sudoku": sudoku(QUESTION, SOLUTION, "1.34 2231 2143 3411", SOLUTION, SOLUTION),
    "maze": maze("S  #/ # #/   G/#   ", "S  #/o# #/oooG/#   ", "So  / # #/oo G/#   ", "S  #/o# #/oooG/#   "),
    "arc": arc("0120", "12/34/56", "13/3-/56", "12/34/56"),
    "arithmetic": arithmetic("12+39=___", "12+39=051", "00000=041", "12+39=051"),
}


def plain(shown: Solving, width: int = 80, max_frames: int = 4) -> list[str]:
    return in_terminal(shown, color=False, max_frames=max_frames, width=width).split("\n")


def steps_shown(shown: Solving, max_frames: int) -> list[str]:
    return re.findall(r"steps? ([0-9-]+)", in_terminal(shown, color=False, max_frames=max_frames, width=20))


def boards(*numbers: int) -> Solving:
    """One answer per number: the board whose first `number` cells are right."""
    return sudoku("." * 16, "1" * 16, *("1" * right + "2" * (16 - right) for right in numbers))
