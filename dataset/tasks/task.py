"""The interface of a task for the programs, the evaluators and the pictures.

A new task is a package `dataset/tasks/<name>/` with a subclass of `Task`. It needs a `name` and a `title`; everything
else has a default:

    published           sizes that identify older data sets, whose dataset.json does not name a task
    builder             the command that builds its data sets, for error messages
    checks, check       what `evaluators: [{name: <name>@<title>}]` reports
    augmentation        random symmetries for each training example, enabled with `augmentation: <name>`
    look                how its boards are displayed in the terminal and in pictures
    notation, rows      how a person writes a puzzle and reads an answer (`encode`, `decode`, `grid`)
    solutions, verify   what is wrong with a question, and whether an answer to it is right, with the reason
    solve, generate     an exact solver, and random questions
"""

import inspect
from math import isqrt
from string import ascii_letters, digits
from typing import Any, ClassVar, Self

import numpy as np

from dataset.augmentation import Augmentation
from dataset.tasks.look import Look
from dataset.tasks.puzzle import Question, Solutions, Verdict, Written
from dataset.tasks.written import Notation, is_batch
from utils.errors import UserError


class Task:
    """A kind of puzzle; an instance is a task at one size.

    A subclass that has options or allows only certain sizes defines an `__init__` with `seq_len`, `vocab_size` and its
    options, and raises a `UserError` there if they are invalid.
    """

    name: ClassVar[str]  # name of the package
    title: ClassVar[str]  # prefix of its metrics
    published: ClassVar[tuple[tuple[int, int], ...]] = ()  # (seq_len, vocab_size), the best known one first
    checks: ClassVar[tuple[str, ...]] = ()  # keys of the result of `check`
    builder: ClassVar[str | None] = None  # module of the command that builds a data set
    builder_options: ClassVar[str] = ""  # its required options, apart from --output-dir

    def __init__(self, seq_len: int, vocab_size: int):
        self.seq_len, self.vocab_size = seq_len, vocab_size

    @classmethod
    def of(cls, seq_len: int, vocab_size: int, **options: Any) -> Self:
        """The task at the sizes of a data set.

        Raises:
            UserError: the task does not allow these sizes, or has no such option.
        """
        try:
            inspect.signature(cls).bind(seq_len, vocab_size, **options)
        except TypeError as error:
            raise UserError(f"task {cls.name}: {error}.") from None
        return cls(seq_len, vocab_size, **options)

    @classmethod
    def build_command(cls, output_dir: str) -> str | None:
        """A command that builds a data set in `output_dir`; None if the task has no builder."""
        if cls.builder is None:
            return None
        return f"python -m {cls.builder} --output-dir {output_dir} {cls.builder_options}".rstrip()

    def check(self, inputs: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        """For each of `checks`, whether each answer passes it, by the rules and without the label: bool [n].

        Args:
            inputs: tokens of the questions [n, seq_len].
            answers: tokens of the answers [n, seq_len].
        """
        return {}

    def augmentation(self) -> Augmentation:
        """The symmetries of the task at this size.

        Raises:
            UserError: the task has no augmentation.
        """
        raise UserError(f"augmentation={self.name}: the task {self.name} has no augmentation. Use augmentation=null.")

    def look(self) -> Look:
        """How to display boards; by default as characters in a square grid, or in one row if there is no square."""
        side = isqrt(self.seq_len)
        height, width = (side, side) if side**2 == self.seq_len else (1, self.seq_len)
        return Look(height, width, (" " + digits[1:] + ascii_letters)[: self.vocab_size])

    # -- what a person writes ------------------------------------------------------------------------------------------

    def notation(self) -> Notation:
        """How a person writes a question; by default the characters of `look`, or tokens as numbers."""
        look = self.look()
        characters = look.characters[: self.vocab_size]
        symbols = {character: token for token, character in reversed(list(enumerate(characters)))}
        name = f"a question of the task {self.name}"
        allowed = f"the characters {characters!r}, or the numbers 0 to {self.vocab_size - 1}, which are tokens"
        return Notation(name, look.height, look.width, symbols, self._token_of_number, allowed)

    def _token_of_number(self, number: int) -> int | None:
        return number if 0 <= number < self.vocab_size else None

    def is_batch(self, puzzle: Any) -> bool:
        """Whether `puzzle` is several puzzles rather than one."""
        look = self.look()
        return is_batch(puzzle, look.height, look.width)

    def encode(self, puzzle: Any) -> np.ndarray:
        """The tokens, uint8 [seq_len], of a question that a person gives: a text, nested lists or an array.

        Raises:
            UserError: this is no question of the task at this size.
        """
        return self.notation().read(puzzle)

    def questions(self, puzzle: Any, name: str | None = None) -> list[Question]:
        """The questions that a puzzle asks, by default one.

        Args:
            puzzle: see `encode`.
            name: the name of the puzzle, if it has one.

        Raises:
            UserError: see `encode`.
        """
        return [Question(self.encode(puzzle), name)]

    def rows(self, tokens: np.ndarray, question: np.ndarray | None = None) -> list[str]:
        """A question, or an answer, as lines of text.

        Args:
            tokens: [seq_len].
            question: for an answer, the tokens of its question, since a model need not repeat what was given.
        """
        look = self.look()
        board = np.asarray(tokens).reshape(look.height, look.width)
        return ["".join(look.character(int(token)) for token in row) for row in board]

    def decode(self, tokens: np.ndarray, question: np.ndarray | None = None) -> Written:
        """What a person writes for a question or an answer, in a form that `encode` reads; see `rows`."""
        return "".join(self.rows(tokens, question))

    def grid(self, tokens: np.ndarray, question: np.ndarray | None = None) -> np.ndarray:
        """A question or an answer as an array that `encode` reads, by default of characters; see `rows`."""
        return np.array([list(row) for row in self.rows(tokens, question)])

    # -- what the rules say --------------------------------------------------------------------------------------------

    def solutions(self, question: np.ndarray) -> Solutions:
        """How many solutions a question, tokens [seq_len], has. By default nobody knows."""
        return Solutions("unknown", f"the task {self.name} has no solver")

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """A solution, tokens [seq_len], by an exact method; None if there is none, or no such method."""
        return None

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """Whether an answer is right, by the rules if there are any, otherwise by the label if there is one.

        The rules are those of `check`, which must then have a result `solved`.

        Args:
            question, answer: tokens [seq_len].
            label: tokens of the solution, 0 where nothing is asked for; None: unknown.
        """
        if "solved" in self.checks:
            solved = bool(self.check(question[None], answer[None])["solved"][0])
            reason = "the answer obeys the rules" if solved else "the answer breaks the rules"
            return Verdict("solved" if solved else "wrong", reason)
        if label is None:
            return Verdict("undecided", f"the task {self.name} has no rules to check an answer by", False)
        wrong = int(np.count_nonzero((label != 0) & (answer != label)))
        if wrong:
            return Verdict("wrong", f"{wrong} cells differ from the solution that came with the puzzle")
        return Verdict("solved", "the answer is the solution that came with the puzzle")

    # -- examples, and models that know puzzles by name ----------------------------------------------------------------

    def generate(self, rng: np.random.Generator) -> np.ndarray:
        """A random question, tokens [seq_len].

        Raises:
            UserError: the task cannot generate questions.
        """
        raise UserError(f"the task {self.name} cannot make up a puzzle. Give one.")

    def unknown_name(self, name: str | None) -> UserError:
        """The error for a puzzle that a model with an embedding for each puzzle has not been trained on."""
        what = "a puzzle without a name" if name is None else f"the puzzle {name!r}"
        return UserError(
            f"{what}: this model has an embedding for each puzzle that it was trained on, and none for this one. "
            "Fine-tune it on the puzzle first: pretrain.py load_checkpoint=.../step_<N> data_paths=[DATA SET]."
        )
