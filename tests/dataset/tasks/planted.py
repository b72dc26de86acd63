"""A task without a fault, and faults to plant in it."""

import numpy as np

from dataset.tasks.puzzle import Verdict
from dataset.tasks.symmetry import Symmetry, pair, renaming
from dataset.tasks.task import Task


class Rotation(Task):
    """The answer is the sequence moved one place to the right, round the end."""

    name = "rotation"
    title = "Rotation"
    symbols = "abcdef"
    shape = (1, 12)

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[str, str]:
        """A random sequence."""
        letters = "".join(rng.choice(list(self.symbols), 12))
        return letters, letters[-1] + letters[:-1]

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """The sequence, moved."""
        return np.roll(question, 1)

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """Each letter must be moved."""
        wrong = np.flatnonzero(np.roll(question, 1) != answer)
        return Verdict("wrong", f"place {wrong[0] + 1} is wrong") if len(wrong) else Verdict("solved", "all is right")

    def symmetries(self) -> list[Symmetry]:
        """Letters may be renamed, and the sequence may be moved."""
        return [
            renaming(range(1, 7)),
            Symmetry("move", lambda board, k: np.roll(board, k, 1), lambda board, k: np.roll(board, -k, 1), range(12)),
        ]


class WrongLabel(Rotation):
    """One label in four is wrong."""

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[str, str]:
        """See `Rotation.generate`."""
        question, answer = super().generate(rng, difficulty)
        return question, question if rng.integers(4) == 0 and question != answer else answer


class BrokenSymmetry(Rotation):
    """Reading backwards moves letters the other way."""

    def symmetries(self) -> list[Symmetry]:
        """See `Rotation.symmetries`."""
        return [pair("backwards", np.fliplr, np.fliplr)]


class BrokenUndo(Rotation):
    """The undo is the change once more."""

    def symmetries(self) -> list[Symmetry]:
        """See `Rotation.symmetries`."""
        return [
            Symmetry("move", lambda board, k: np.roll(board, k, 1), lambda board, k: np.roll(board, k, 1), range(12))
        ]


class AcceptsEverything(Rotation):
    """Every answer is right."""

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Rotation.verify`."""
        return Verdict("solved", "why not")


class Leak(Rotation):
    """The test sequences are training sequences with other letters."""

    def examples(self, split: str) -> list[tuple[str, str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Task.examples`."""
        rng = np.random.default_rng(3)
        found = [super(Leak, self).generate(rng, 1) for _ in range(300)]
        if split == "train":
            return found
        names = str.maketrans("abcdef", "bcdefa")
        return [(question.translate(names), answer.translate(names)) for question, answer in found[:5]] + [
            super(Leak, self).generate(rng, 1) for _ in range(50)
        ]


class LossyDecode(Rotation):
    """f is written as e."""

    def decode(self, tokens: np.ndarray, question: np.ndarray | None = None) -> str:
        """See `Task.decode`."""
        return str(super().decode(tokens, question)).replace("f", "e")


class Repeats(Rotation):
    """There are only four sequences."""

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[str, str]:
        """See `Rotation.generate`."""
        return super().generate(np.random.default_rng(int(rng.integers(4))), difficulty)


class OtherRandomness(Rotation):
    """The generator does not use the random numbers that it is given."""

    _own = np.random.default_rng(1)

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[str, str]:
        """See `Rotation.generate`."""
        return super().generate(self._own, difficulty)


class ConstantAnswer(Rotation):
    """Nearly all answers are the same."""

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[str, str]:
        """See `Rotation.generate`."""
        question, _ = super().generate(rng, difficulty)
        return question, "abcdefabcdef" if "aa" not in question else "babababababa"

    def solve(self, question: np.ndarray) -> None:
        """See `Task.solve`."""
        return None

    def symmetries(self) -> list[Symmetry]:
        """See `Rotation.symmetries`."""
        return []

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Rotation.verify`."""
        right = label is None or np.array_equal(answer, label)
        return Verdict("solved" if right else "wrong", "compared")


class Bool(Rotation):
    """`verify` does not give the reason."""

    def verify(self, question, answer, label=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Rotation.verify`."""
        return super().verify(question, answer, label).status == "solved"


class Crash(Rotation):
    """`verify` fails on some answers."""

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Rotation.verify`."""
        if answer[0] == answer[1] == 3:
            raise IndexError("no such place")
        return super().verify(question, answer, label)


class Unsolved(Rotation):
    """`solve` is wrong for some questions."""

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Rotation.solve`."""
        return question if question[0] == 2 else super().solve(question)


class OtherSolution(Rotation):
    """Any answer that begins with the right letter is right, and `solve` gives another one than the label."""

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Rotation.verify`."""
        return Verdict("solved" if answer[0] == question[-1] else "wrong", "the first letter was compared")

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Rotation.solve`."""
        return np.repeat(question[-1:], 12)


class NoSolution(Rotation):
    """`solve` gives no answer."""

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Rotation.solve`."""
        return None


class RandomSolution(Rotation):
    """`solve` draws random numbers of its own."""

    _own = np.random.default_rng(1)

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Rotation.solve`."""
        return self._own.permutation(question)


class SolvedInPlace(Rotation):
    """`solve` changes the question."""

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Rotation.solve`."""
        question[:] = np.roll(question, 1)
        return question


class SolveCrash(Rotation):
    """`solve` fails on some questions."""

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Rotation.solve`."""
        return super().solve(question) if question[0] != 2 else np.zeros(3)[question]


class SymmetryCrash(Rotation):
    """A change of a symmetry fails."""

    def symmetries(self) -> list[Symmetry]:
        """See `Rotation.symmetries`."""
        return [pair("too far", lambda board: board[:, 12], np.fliplr)]
