"""The word problem of S5: the product of a sequence of permutations of five things, after each of its factors.

It is trained on words of at most 32 permutations and tested on 128, at a random place in a row of 128. The problem is
complete for NC1, so no network of fixed depth solves it for all lengths unless TC0 = NC1; a recursive one may.
"""

from itertools import permutations

import numpy as np

from dataset.tasks.puzzle import Verdict
from dataset.tasks.task import Task

ELEMENTS = np.array(list(permutations(range(5))))  # [120, 5]
NUMBERS = {tuple(element): number for number, element in enumerate(ELEMENTS.tolist())}
PRODUCTS = np.array([[NUMBERS[tuple(a[b].tolist())] for b in ELEMENTS] for a in ELEMENTS])  # first b, then a
ROOM = 128


def products(word: np.ndarray) -> np.ndarray:
    """The products of the first 1, 2, ... factors of a word; numbers of elements, [n] both."""
    found = np.empty_like(word)
    state = NUMBERS[0, 1, 2, 3, 4]
    for place, factor in enumerate(word):
        state = found[place] = PRODUCTS[factor, state]
    return found


class WordProblem(Task):
    """The word problem of S5; the difficulty is the length of a word. Token n is the n-th permutation."""

    name = "word_problem"
    title = "WordProblem"
    symbols = tuple("".join(str(thing + 1) for thing in element) for element in ELEMENTS)
    shape = (1, ROOM)
    difficulties = tuple(range(2, 33))
    test_difficulties = (128,)

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[np.ndarray, np.ndarray]:
        """A random word at a random place; the rest is padding, for which nothing is asked."""
        word = rng.integers(len(ELEMENTS), size=difficulty)
        start = int(rng.integers(ROOM - difficulty + 1))
        question, answer = np.zeros(ROOM, np.int64), np.zeros(ROOM, np.int64)
        question[start : start + difficulty] = word + 1
        answer[start : start + difficulty] = products(word) + 1
        return question, answer

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """All products, one after the other."""
        answer = question.copy()
        answer[question > 0] = products(question[question > 0].astype(np.int64) - 1) + 1
        return answer

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """All products must be right. What is answered at padding does not count."""
        wrong = np.flatnonzero((answer != self.solve(question)) & (question > 0))
        if len(wrong):
            place = int(np.count_nonzero(question[: wrong[0]])) + 1
            return Verdict("wrong", f"{len(wrong)} products are wrong, the first that of {place} factors")
        return Verdict("solved", "all products are right")
