"""Futoshiki: fill a 4x4 square so that every row and column has each digit once and all signs between cells hold."""

from collections.abc import Callable
from functools import cache
from itertools import permutations

import numpy as np

from dataset.tasks.puzzle import Verdict
from dataset.tasks.symmetry import Symmetry, pair
from dataset.tasks.task import Task

SIDE = 4
SHAPE = (2 * SIDE - 1, 2 * SIDE - 1)  # between the cells there is room for signs
SYMBOLS = "1234. <>^v"  # `^` and `v` point to the smaller of two cells
DIGITS, BLANK, SPACE, LESS, MORE, UP, DOWN = range(1, 5), 5, 6, 7, 8, 9, 10  # tokens: places in SYMBOLS, from 1 on


@cache
def latin_squares() -> np.ndarray:
    """All 576 squares with each digit once in each row and column: [squares, 4, 4]."""
    lines = list(permutations(DIGITS))
    squares = [[line] for line in lines]
    for _ in range(SIDE - 1):
        squares = [[*square, line] for square in squares for line in lines if (np.array(square) != line).all()]
    return np.array(squares)


def holds(board: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Whether all signs of a board [7, 7] hold in each of the squares [n, 4, 4]: bool [n]."""
    right = np.ones(len(squares), np.bool_)
    for row, column in np.argwhere(board >= LESS):
        first = squares[:, row // 2, column // 2]
        second = squares[:, (row + 1) // 2, (column + 1) // 2]
        right &= (first < second) if board[row, column] in (LESS, UP) else (first > second)
    return right


def solutions(board: np.ndarray) -> np.ndarray:
    """The squares [n, 4, 4] that solve a board [7, 7]."""
    given, squares = board[::2, ::2], latin_squares()
    fits = ((given == BLANK) | (squares == given)).all(axis=(1, 2)) & holds(board, squares)
    return squares[fits]


def exchanged(board: np.ndarray, *pairs: tuple[int, int]) -> np.ndarray:
    """The board with the tokens of each pair exchanged."""
    names = np.arange(len(SYMBOLS) + 1)
    for one, other in pairs:
        names[[one, other]] = other, one
    return names[board]


class Futoshiki(Task):
    """Futoshiki of 4x4 cells; the difficulty is the number of digits that are not given."""

    name = "futoshiki"
    title = "Futoshiki"
    symbols = SYMBOLS
    shape = SHAPE
    blank = "."
    difficulties = (11, 12, 13)

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[np.ndarray, np.ndarray]:
        """A random square, with signs at random places until it is the only solution."""
        answer = np.full(SHAPE, SPACE)
        square = answer[::2, ::2] = rng.choice(latin_squares())
        cells = 2 * np.stack(np.divmod(rng.permutation(SIDE * SIDE)[:difficulty], SIDE))
        places = np.argwhere(np.indices(SHAPE).sum(axis=0) % 2 == 1)  # between two cells
        for row, column in rng.permutation(places):
            smaller_first = square[row // 2, column // 2] < square[(row + 1) // 2, (column + 1) // 2]
            answer[row, column] = ((MORE, LESS), (DOWN, UP))[row % 2][int(smaller_first)]
            question = answer.copy()
            question[tuple(cells)] = BLANK
            if len(solutions(question)) == 1:
                return question, answer
        return self.generate(rng, difficulty)  # all signs together leave several solutions

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """The first of all solutions."""
        board = question.reshape(SHAPE).copy()
        found = solutions(board)
        if not len(found):
            return None
        board[::2, ::2] = found[0]
        return board.reshape(-1)

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """Whether all that was given is kept, and every row, column and sign is right."""
        asked, board = question.reshape(SHAPE), answer.reshape(SHAPE)
        if ((asked != BLANK) & (board != asked)).any():
            return Verdict("wrong", "something that was given is changed")
        square = board[::2, ::2]
        for name, lines in (("row", square), ("column", square.T)):
            for number, line in enumerate(lines, start=1):
                if sorted(line) != list(DIGITS):
                    return Verdict("wrong", f"{name} {number} does not have each digit once")
        if not holds(board, square[None])[0]:
            return Verdict("wrong", "a sign does not hold")
        return Verdict("solved", "all rows, columns and signs are right")

    def units(self) -> list[list[int]]:
        """The rows and columns of digits."""
        cells = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)[::2, ::2]
        return np.concatenate((cells, cells.T)).tolist()

    def symmetries(self) -> list[Symmetry]:
        """Turns and flips, which turn the signs too, and counting the digits from the other end."""
        changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "transposed": lambda board: exchanged(board.T, (LESS, UP), (MORE, DOWN)),
            "mirrored": lambda board: exchanged(board[:, ::-1], (LESS, MORE)),
            "upside_down": lambda board: exchanged(board[::-1], (UP, DOWN)),
            "reversed_digits": lambda board: exchanged(board, (1, 4), (2, 3), (LESS, MORE), (UP, DOWN)),
        }
        return [pair(name, change, change) for name, change in changes.items()]
