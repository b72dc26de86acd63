"""The interface of a task for the programs, the evaluators and the pictures.

A task is a subclass of `Task`, in a file or package `dataset/tasks/<name>`, or in a file anywhere that is named on the
command line. It needs a `name` and a `title`; everything else has a default. docs/your_own_task.md explains the parts
that most tasks need:

    symbols, shape      the vocabulary and the size of a board; or an `__init__`, for a task of several sizes
    generate            random examples, of several difficulties; or `examples`, which reads them from files
    verify              whether an answer is right, whatever the label says, with the reason
    symmetries          changes under which a right answer stays right: augmentation, and which puzzles are equivalent

and these are for the others:

    published           sizes that identify older data sets, whose dataset.json does not name a task
    builder             the command that builds its data sets, for tasks with options of their own
    checks, check       what `evaluators: [{name: <name>@<title>}]` reports, as array operations on many answers at once
    augmentation        the symmetries as tensor operations on whole batches
    look                how its boards are displayed in the terminal and in pictures
    notation, rows      how a person writes a puzzle and reads an answer (`encode`, `decode`, `grid`)
    candidates, turns   which answers each cell may have, and how boards may be turned, for `arch=ldt`
    units               groups of cells in which no symbol may stand twice
    solutions, solve    what is wrong with a question, and an exact solver
    key                 the same for equivalent questions, so that none is both trained and tested on
"""

import inspect
from collections.abc import Iterable, Sequence
from math import isqrt
from pathlib import Path
from string import ascii_letters, digits
from typing import Any, ClassVar, Literal, Self

import numpy as np

from dataset.augmentation import Augmentation
from dataset.tasks.grid_symmetry import turns_of
from dataset.tasks.look import Look, SymbolLine, SymbolLook
from dataset.tasks.own_code import checked_tokens, generated, running, symmetries_of, verdict_of
from dataset.tasks.puzzle import Question, Solutions, Status, Verdict, Written
from dataset.tasks.symmetric import SymmetryAugmentation, key_of, same_answer
from dataset.tasks.symmetry import Symmetry
from dataset.tasks.written import Notation, is_batch, read_words
from utils.errors import UserError
from utils.text_files import shown

# a question or an answer as `generate` may give it: a text that `encode` reads, or tokens
Given = Any


class DoesNotFit(UserError):
    """A question or an answer that is right, but longer than the task at this size."""


class Task:
    """A kind of puzzle; an instance is a task at one size.

    A subclass that has options or allows several sizes defines an `__init__` with `seq_len`, `vocab_size` and its
    options, and raises a `UserError` there if they are invalid.
    """

    name: ClassVar[str]  # name of its file or package, if it lies in dataset/tasks
    title: ClassVar[str]  # prefix of its metrics
    data_name: ClassVar[str] = ""  # folder of its data sets below data/, if not its name
    symbols: ClassVar[Sequence[str]] = ""  # what tokens 1, 2, ... are written as, one character or word each
    shape: ClassVar[tuple[int, int] | None] = None  # rows and columns of a board; a sequence has one row
    blank: ClassVar[Sequence[str]] = ""  # the symbols of cells that are to be filled in, for pictures
    difficulties: ClassVar[Sequence[int]] = (1,)  # what `generate` may be asked for; their meaning is up to the task
    test_difficulties: ClassVar[Sequence[int]] = ()  # of test puzzles; empty: the same
    usual_size: ClassVar[tuple[int, int] | None] = None  # (seq_len, vocab_size) for a task without symbols and shape
    published: ClassVar[tuple[tuple[int, int], ...]] = ()  # (seq_len, vocab_size), the best known one first
    checks: ClassVar[tuple[str, ...]] = ()  # keys of the result of `check`
    solved_check: ClassVar[str] = "solved"  # the one of them that says whether an answer is right
    builder: ClassVar[str | None] = None  # module of the command that builds a data set
    builder_options: ClassVar[str] = ""  # its required options, apart from --output-dir

    def __init__(self, seq_len: int, vocab_size: int):
        self.seq_len, self.vocab_size = seq_len, vocab_size
        if self.shape is not None and self.symbols and (seq_len, vocab_size) != self.own_size():
            own, tokens = self.own_size()
            raise UserError(
                f"seq_len {seq_len} and vocab_size {vocab_size} are not those of the task {self.name}, {own} and "
                f"{tokens}. Choose a data set of this task, built with its present shape and symbols."
            )

    @property
    def token_dtype(self) -> type[np.uint8 | np.int32]:
        """What holds a token where many are kept."""
        return np.uint8 if self.vocab_size <= 256 else np.int32

    @classmethod
    def own_size(cls) -> tuple[int, int]:
        """(seq_len, vocab_size) of the task, of several the most usual one.

        Raises:
            UserError: the task does not say.
        """
        if cls.shape is not None and cls.symbols:
            return cls.shape[0] * cls.shape[1], len(cls.symbols) + 1
        if cls.usual_size is None and not cls.published:
            raise UserError(f"the task {cls.name} does not say how large its boards are: it needs shape and symbols.")
        return cls.usual_size or cls.published[0]

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
        """A command that builds a data set in `output_dir`; None if the task has neither builder nor examples."""
        if cls.builder is None and cls.makes_examples():
            return f"python -m dataset.build_task_dataset {cls.name} --output-dir {output_dir}"
        if cls.builder is None:
            return None
        return f"python -m {cls.builder} --output-dir {output_dir} {cls.builder_options}".rstrip()

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """The keys of the result of `judge`: `checks`, or if there are none but a `verify`, `solved` and `exact`."""
        return cls.checks or (("solved", "exact") if cls.verify is not Task.verify else ())

    def check(self, inputs: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        """For each of `checks`, whether each answer passes it, by the rules and without the label: bool [n].

        Args:
            inputs: tokens of the questions [n, seq_len].
            answers: tokens of the answers [n, seq_len].
        """
        return {}

    def judge(self, inputs: np.ndarray, answers: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """What the evaluator of the task reports of each answer, for each of `columns`: bool or fp64 [n].

        These are the results of `check`; or, without `checks`, what `verify` says: `solved`, any right answer, and
        `exact`, the answer of the label.

        Args:
            inputs: tokens of the questions [n, seq_len].
            answers: tokens of the answers [n, seq_len].
            labels: tokens of the labels [n, seq_len], 0 where nothing is asked for.
        """
        if self.checks or not self.columns():
            return self.check(inputs, answers)
        rows = list(zip(inputs, answers, labels, strict=True))
        solved = [verdict_of(self, q, a, label if label.any() else None).status == "solved" for q, a, label in rows]
        exact = [bool(label.any()) and same_answer(answer, label) for _, answer, label in rows]
        return {"solved": np.array(solved, np.bool_), "exact": np.array(exact, np.bool_)}

    def symmetries(self) -> Sequence[Symmetry]:
        """Changes of an example under which a right answer stays right; by default none.

        One choice of each, one after the other, must make every image of a puzzle that counts as equivalent.
        """
        return ()

    def augmentation(self) -> Augmentation:
        """The symmetries of the task at this size, drawn at random; by default those of `symmetries`.

        Raises:
            UserError: the task has no symmetries.
        """
        symmetries = symmetries_of(self)
        if not symmetries:
            raise UserError(
                f"augmentation={self.name}: the task {self.name} has no augmentation. Use augmentation=null."
            )
        return SymmetryAugmentation(self, symmetries)

    def key(self, question: np.ndarray) -> bytes:
        """A key of a question, tokens [seq_len]: the same for equivalent ones; see `dataset.tasks.symmetric.key_of`."""
        return key_of(self, question)

    def candidates(self) -> np.ndarray:
        """The answers that each cell may have, by its token in the question: bool [vocab_size, vocab_size].

        By default a cell that holds one of the symbols `blank` may have any other symbol, and the other cells keep
        theirs. A model that works on sets of candidates (`arch=ldt`) needs this.

        Raises:
            UserError: the task does not say.
        """
        if not self.blank or not self.symbols:
            raise UserError(
                f"the task {self.name} does not say which answers a cell may have, which arch=ldt needs to know. Give "
                "the task `symbols` and `blank`, or a method `candidates`; or use another architecture."
            )
        allowed = np.eye(self.vocab_size, dtype=np.bool_)
        blanks = [place for place, symbol in enumerate(self.symbols, start=1) if symbol in self.blank]
        allowed[blanks, 1:] = True
        allowed[:, blanks] = False
        return allowed

    def units(self) -> Sequence[Sequence[int]]:
        """Groups of cells in which no symbol may stand twice, such as the rows of a Sudoku; by default none."""
        return ()

    def turns(self) -> Sequence[int]:
        """The turns of the grid (`utils.grid_turns`) under which right answers stay right.

        By default those that the symmetries with `cells_only` make, as far as these can all be tried.

        Raises:
            UserError: a symmetry with `cells_only` does more than move cells.
        """
        look = self.look()
        return turns_of(self.name, self.symmetries(), (look.height, look.width), self.vocab_size)

    def look(self) -> Look:
        """How to display boards: by `symbols` and `shape`, or as characters in a square grid, or else in one row."""
        side = isqrt(self.seq_len)
        height, width = self.shape or ((side, side) if side**2 == self.seq_len else (1, self.seq_len))
        if self.symbols:
            return (SymbolLook if height > 1 else SymbolLine)(height, width, self.symbols, self.blank)
        return Look(height, width, (" " + digits[1:] + ascii_letters)[: self.vocab_size])

    # -- what a person writes ------------------------------------------------------------------------------------------

    def notation(self) -> Notation:
        """How a person writes a question; by default the characters of `look`, or tokens as numbers."""
        look = self.look()
        characters = "".join(look.characters[: self.vocab_size])
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
        if self._has_words:
            return read_words(puzzle, self.look().characters, self.seq_len, f"a question of the task {self.name}")
        return self.notation().read(puzzle)

    @property
    def _has_words(self) -> bool:
        """Whether symbols are written as words, with spaces between them."""
        return any(len(symbol) > 1 for symbol in self.symbols)

    def encode_answer(self, answer: Any, question: np.ndarray) -> np.ndarray:
        """The tokens, uint8 [seq_len], of an answer that a person gives, 0 where nothing is asked for.

        By default answers are written as questions are.

        Args:
            answer: a text, nested lists or an array.
            question: the tokens of its question, [seq_len].

        Raises:
            UserError: this is no answer of the task at this size.
        """
        return self.encode(answer)

    def example(self, question: Given, answer: Given) -> tuple[np.ndarray, np.ndarray]:
        """The tokens, uint8 [seq_len] each, of a question and its answer as `generate` or `examples` gives them.

        Args:
            question, answer: texts, see `encode` and `encode_answer`; or tokens, as an array or nested lists of
                numbers, of an answer 0 where nothing is asked for.

        Raises:
            UserError: they are none of the task at this size.
        """
        method = "examples" if type(self).examples is not Task.examples else "generate"
        if isinstance(question, str):
            with running(self, "encode", lambda: f", for the question {shown(question)}"):
                tokens = self.encode(question)
        else:
            tokens = self._given(question, method, "a question")
        if isinstance(answer, str):
            with running(self, "encode_answer", lambda: f", for the answer {shown(answer)}"):
                return tokens, self.encode_answer(answer, tokens)
        return tokens, self._given(answer, method, "an answer")

    def _given(self, tokens: Given, method: str, what: str) -> np.ndarray:
        def shape() -> tuple[int, int]:
            look = self.look()
            return look.height, look.width

        return checked_tokens(self, tokens, method, what, shape).reshape(-1).astype(np.uint8)

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
        between = " " if self._has_words else ""
        return [between.join(look.character(int(token)) for token in row) for row in board]

    def decode(self, tokens: np.ndarray, question: np.ndarray | None = None) -> Written:
        """What a person writes for a question or an answer, in a form that `encode` reads; see `rows`."""
        return (" " if self._has_words else "").join(self.rows(tokens, question))

    def grid(self, tokens: np.ndarray, question: np.ndarray | None = None) -> np.ndarray:
        """A question or an answer as an array that `encode` reads, by default of characters; see `rows`."""
        return np.array([row.split() if self._has_words else list(row) for row in self.rows(tokens, question)])

    # -- what the rules say --------------------------------------------------------------------------------------------

    def solutions(self, question: np.ndarray) -> Solutions:
        """How many solutions a question, tokens [seq_len], has. By default nobody knows."""
        return Solutions("unknown", f"the task {self.name} has no solver")

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """A solution, tokens [seq_len], by an exact method; None if there is none, or no such method."""
        return None

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """Whether an answer is right, by the rules if there are any, otherwise by the label if there is one.

        The rules are those of `check`, if one of its results is `solved_check`.

        Args:
            question, answer: tokens [seq_len].
            label: tokens of the solution, 0 where nothing is asked for; None: unknown.
        """
        if self.solved_check in self.checks:
            solved = bool(self.check(question[None], answer[None])[self.solved_check][0])
            reason = "the answer obeys the rules" if solved else "the answer breaks the rules"
            return Verdict("solved" if solved else "wrong", reason)
        if label is None:
            name = getattr(self, "name", "of these data")
            return Verdict("undecided", f"the task {name} has no rules to check an answer by", False)
        wrong = int(np.count_nonzero((label != 0) & (answer != label)))
        if wrong:
            return Verdict("wrong", f"{wrong} cells differ from the solution that came with the puzzle")
        return Verdict("solved", "the answer is the solution that came with the puzzle")

    def statuses(self, question: np.ndarray, answers: np.ndarray, label: np.ndarray | None = None) -> list[Status]:
        """What `verify` says of many answers, tokens [n, seq_len], to one question, without the reasons.

        The rules of `check` are applied to all of them at once; they call an answer to a question that has no solution
        wrong.
        """
        if self.solved_check in self.checks:
            solved = self.check(np.repeat(question[None], len(answers), 0), answers)[self.solved_check]
            return ["solved" if right else "wrong" for right in solved.tolist()]
        return [verdict_of(self, question, answer, label).status for answer in answers]

    # -- examples, and models that know puzzles by name ----------------------------------------------------------------

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[Given, Given]:
        """A random question and its answer, each a text that `encode` reads, or tokens; see `example`.

        Args:
            rng: the only source of randomness.
            difficulty: one of `difficulties` or `test_difficulties`.

        Raises:
            UserError: the task cannot generate questions.
        """
        raise UserError(f"the task {self.name} cannot make up a puzzle. Give one.")

    def examples(self, split: Literal["train", "test"]) -> Iterable[tuple[Given, Given]] | None:
        """All examples of a split, for a task that reads them from files instead of generating them; None: generated.

        See `generate` for the form of an example.
        """
        return None

    @classmethod
    def makes_examples(cls) -> bool:
        """Whether the task has examples: `generate` or `examples`."""
        return cls.generate is not Task.generate or cls.examples is not Task.examples

    def save_notes(self, root: Path) -> None:
        """Write what else is needed to judge the examples of a data set into its folder; by default nothing."""

    def load_notes(self, root: Path) -> None:
        """Read what `save_notes` wrote into the folder of a data set, before its answers are judged."""

    def random_example(self, rng: np.random.Generator, difficulty: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The tokens, uint8 [seq_len] each, of a random question and its answer; None: of any of the difficulties.

        Raises:
            UserError: the task cannot generate questions.
        """
        if difficulty is None:
            difficulty = self.difficulties[
                int(rng.integers(len(self.difficulties))) if len(self.difficulties) > 1 else 0
            ]
        return self.example(*generated(self, rng, difficulty))

    def random_question(self, rng: np.random.Generator) -> np.ndarray:
        """The tokens, uint8 [seq_len], of a random question.

        Raises:
            UserError: the task cannot generate questions.
        """
        return self.random_example(rng)[0]

    def unknown_name(self, name: str | None) -> UserError:
        """The error for a puzzle that a model with an embedding for each puzzle has not been trained on."""
        what = "a puzzle without a name" if name is None else f"the puzzle {name!r}"
        return UserError(
            f"{what}: this model has an embedding for each puzzle that it was trained on, and none for this one. "
            "Fine-tune it on the puzzle first: pretrain.py load_checkpoint=.../step_<N> data_paths=[DATA SET]."
        )
