"""Calling the methods that a person has written for a task.

Whatever such a method raises or returns that cannot be used ends in a `UserError` that names the task, the method, the
file and its line, and the puzzle.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from dataset.tasks.puzzle import Verdict, Written
from dataset.tasks.symmetry import Symmetry
from utils.errors import UserError
from utils.text_files import shown

_BASE = "dataset.tasks.task"  # whose methods are the defaults
_ANSWERS = ("transformed", "kept", "relabelled")


class Stated(Protocol):
    """What is needed of a task here; see `dataset.tasks.task.Task`."""

    name: ClassVar[str]
    seq_len: int
    vocab_size: int

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[Any, Any]: ...

    def examples(self, split: Literal["train", "test"]) -> Iterable[tuple[Any, Any]] | None: ...

    def symmetries(self) -> Sequence[Symmetry]: ...

    def key(self, question: np.ndarray) -> bytes: ...

    def decode(self, tokens: np.ndarray, question: np.ndarray | None = None) -> Written: ...

    def solve(self, question: np.ndarray) -> np.ndarray | None: ...

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict: ...


class OwnCodeError(UserError):
    """A method of a task raised an exception, or returned something that cannot be used."""


@contextmanager
def running(task: Stated, method: str, of: Callable[[], str] = str) -> Iterator[None]:
    """Within the block a method of a task is called; exceptions of its code become an `OwnCodeError`.

    Args:
        task: the task.
        method: the name of the method.
        of: what it was called for, for the message.

    Raises:
        OwnCodeError: the code of the task raised an exception that is no `UserError`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_own(type(task), method):
            raise
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise OwnCodeError(
            f"the task {_name(task)}: `{method}` stopped with an error: {what}, at {_place(error, type(task))}"
            f"{of()}. Correct it there."
        ) from error


def _is_own(kind: type, method: str) -> bool:
    owner = next((cls for cls in kind.__mro__ if method in vars(cls)), None)
    return owner is not None and owner.__module__ != _BASE


def _place(error: BaseException, kind: type) -> str:
    """The file of a task, with the line of it at which an exception passed last."""
    files = {Path(file).absolute(): None for cls in kind.__mro__ if (file := _file(cls)) is not None}
    lines = [(file, line) for file, line in traceback_lines(error) if file in files]
    if lines:
        return f"{_shown(lines[-1][0])} line {lines[-1][1]}"
    return _shown(next(iter(files))) if files else f"the class {kind.__name__}"


def traceback_lines(error: BaseException) -> list[tuple[Path, int]]:
    """The files and lines that an exception passed, the one that raised it last."""
    found: list[tuple[Path, int]] = []
    trace = error.__traceback__
    while trace is not None:
        found.append((Path(trace.tb_frame.f_code.co_filename).absolute(), trace.tb_lineno))
        trace = trace.tb_next
    return found


def _file(kind: type) -> str | None:
    """The file in which a class of a task is written; None for those that all tasks share."""
    if kind.__module__ in (_BASE, "builtins", "typing"):
        return None
    try:
        return inspect.getsourcefile(kind)
    except (TypeError, OSError):
        return None


def _shown(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def where(task: Stated, method: str) -> str:
    """The task, the file that it is written in, and one of its methods, for the beginning of a message."""
    files = [file for cls in type(task).__mro__ if (file := _file(cls)) is not None]
    return f"the task {_name(task)}{f' ({_shown(Path(files[0]).absolute())})' if files else ''}: `{method}`"


def _name(task: Stated) -> str:
    return getattr(task, "name", "of these data")


def written(task: Stated, tokens: np.ndarray, question: np.ndarray | None = None) -> str:
    """What a person writes for tokens, for a message; the tokens themselves if `decode` fails."""
    try:
        return shown(task.decode(tokens, question), 200)
    except Exception:  # the code of a user, which may raise anything
        return f"the tokens {shown(np.asarray(tokens).tolist(), 200)}"


# -- the methods -------------------------------------------------------------------------------------------------------


def verdict_of(task: Stated, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
    """What `verify` says.

    Raises:
        UserError: it raised an exception, or does not return a `Verdict`.
    """

    def of() -> str:
        return f", for the question {written(task, question)} with the answer {written(task, answer, question)}"

    with running(task, "verify", of):
        verdict = task.verify(question, answer, label)
    if not isinstance(verdict, Verdict):
        raise OwnCodeError(
            f"{where(task, 'verify')} returns {shown(verdict)}, not a Verdict{of()}. It must return one, with "
            'the reason: Verdict("solved", "...") or Verdict("wrong", "...").'
        )
    return verdict


def solution_of(task: Stated, question: np.ndarray) -> np.ndarray | None:
    """What `solve` gives, tokens [seq_len]; None: no answer.

    Raises:
        UserError: it raised an exception, or gives something else than tokens.
    """
    with running(task, "solve", lambda: f", for the question {written(task, question)}"):
        found = task.solve(question)
    return None if found is None else checked_tokens(task, found, "solve", "an answer").reshape(-1)


def symmetries_of(task: Stated) -> Sequence[Symmetry]:
    """What `symmetries` gives.

    Raises:
        UserError: it raised an exception, or does not give a list of symmetries with choices.
    """
    with running(task, "symmetries"):
        found = task.symmetries()
    allowed = "It must return a list of what Symmetry, pair, renaming or turns_and_flips make (dataset.tasks.symmetry)."
    if not isinstance(found, list | tuple):
        raise OwnCodeError(f"{where(task, 'symmetries')} returns {shown(found)}. {allowed}")
    for one in found:
        if not isinstance(one, Symmetry):
            raise OwnCodeError(f"{where(task, 'symmetries')} returns {shown(one)} in its list. {allowed}")
        has_choices = hasattr(one.choices, "__len__") and hasattr(one.choices, "__getitem__")
        if not has_choices or not len(one.choices):
            raise OwnCodeError(
                f"{where(task, 'symmetries')}: the choices of {one.name!r} are {shown(one.choices)}. Expected is a "
                "list that is not empty, such as range(4), with the choice that changes nothing among them."
            )
        if one.answer not in _ANSWERS:
            raise OwnCodeError(
                f"{where(task, 'symmetries')}: {one.name!r} has answer={shown(one.answer)}. Allowed are "
                f"{', '.join(_ANSWERS)}."
            )
    return found


def key_of_question(task: Stated, question: np.ndarray) -> bytes:
    """What `key` gives.

    Raises:
        UserError: it raised an exception.
    """
    with running(task, "key", lambda: f", for the question {written(task, question)}"):
        return task.key(question)


def generated(task: Stated, rng: np.random.Generator, difficulty: int) -> tuple[Any, Any]:
    """A question and an answer of `generate`, not yet as tokens.

    Raises:
        UserError: it raised an exception, or does not return two things.
    """
    with running(task, "generate", lambda: f", for difficulty {difficulty}"):
        made = task.generate(rng, difficulty)
    return _checked_pair(task, made, "generate")


def generated_in_turn(task: Stated, difficulties: Sequence[int], rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    """Questions and answers of `generate` without end, of each difficulty in turn; see `generated`."""
    while True:
        for difficulty in difficulties:
            yield generated(task, rng, difficulty)


def examples_of(task: Stated, split: Literal["train", "test"]) -> Iterator[tuple[Any, Any]] | None:
    """The questions and answers of `examples`, not yet as tokens; None: they are generated.

    Raises:
        UserError: now or as they are read: it raised an exception, or gives something else than pairs.
    """
    with running(task, "examples"):
        found = task.examples(split)
        stream = None if found is None else iter(found)
    return None if stream is None else _read(task, stream)


def _read(task: Stated, stream: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    while True:
        with running(task, "examples"):
            try:
                made = next(stream)
            except StopIteration:
                return
        yield _checked_pair(task, made, "examples")


def _checked_pair(task: Stated, made: object, method: str) -> tuple[Any, Any]:
    if isinstance(made, list | tuple) and len(made) == 2:
        return made[0], made[1]
    if isinstance(made, list | tuple):
        what = f"a {type(made).__name__} of {len(made)} values"
    elif isinstance(made, np.ndarray):
        what = f"one array, {_described(made)}"
    else:
        what = shown(made)
    raise OwnCodeError(
        f"{where(task, method)} returned {what}. It must return a question and its answer: return question, answer."
    )


def checked_tokens(
    task: Stated, tokens: Any, method: str, what: str, shape: Callable[[], tuple[int, int]] | None = None
) -> np.ndarray:
    """The tokens that a method gave, as an array of `seq_len` whole numbers in any shape.

    Args:
        task: the task.
        tokens: what it gave.
        method: the name of the method.
        what: `a question` or `an answer`, for the message.
        shape: the rows and columns that a board must have; None: any.

    Raises:
        UserError: they are not whole numbers, not `seq_len`, in another shape, or no tokens of the task.
    """
    try:
        array = np.asarray(tokens)
    except ValueError:  # lists of different lengths
        raise OwnCodeError(
            f"{where(task, method)} gave {what} of lists of different lengths, {shown(tokens)}. "
            f"{_allowed(task, method)}"
        ) from None
    if array.dtype.kind not in "iu" or array.size != task.seq_len:
        given = f"{shown(tokens)}, {_described(array)}" if array.size < 2 else _described(array)
        raise OwnCodeError(f"{where(task, method)} gave {what} that is {given}. {_allowed(task, method)}")
    if array.ndim > 1 and shape is not None and array.shape != shape():
        raise OwnCodeError(
            f"{where(task, method)} gave {what} of the shape {array.shape}. A board has {shape()[0]} rows and "
            f"{shape()[1]} columns; as one row it has {task.seq_len} tokens."
        )
    if array.min() < 0 or array.max() >= task.vocab_size:
        raise OwnCodeError(
            f"{where(task, method)} gave {what} with the tokens {array.min()} to {array.max()}. Tokens are 0 "
            f"(padding) to {task.vocab_size - 1}; token n is the n-th of `symbols`."
        )
    return array


def _described(array: np.ndarray) -> str:
    return f"{array.size} {'value' if array.size == 1 else 'values'} of type {array.dtype}"


def _allowed(task: Stated, method: str) -> str:
    text = ", or a text" if method != "solve" else ""
    return f"Expected are {task.seq_len} tokens, which are whole numbers{text}."
