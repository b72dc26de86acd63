"""Tasks that are given to this process, and tasks of libraries: those that do not lie in dataset/tasks.

A file of a user is code, so it is run only if the user names it on the command line (or in a call from Python). What a
checkpoint, a saved model or a data set says is a name, which finds a given task and never a file.
"""

import importlib.util
import inspect
import sys
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from dataset.tasks.own_code import traceback_lines
from dataset.tasks.task import Task
from utils.errors import UserError
from utils.text_files import shown

LIBRARY_SEPARATOR = ":"
_ALIKE = 0.8  # from which a name counts as a misspelt one; `symmetry` and `symmetries` are at 0.78
# methods of a task, and the arguments that they are called with
_ARGUMENTS = {
    "generate": ("rng", "difficulty"),
    "examples": ("split",),
    "verify": ("question", "answer", "label"),
    "symmetries": (),
    "solve": ("question",),
    "encode": ("puzzle",),
    "encode_answer": ("answer", "question"),
    "decode": ("tokens", "question"),
    "look": (),
    "key": ("question",),
}
_VALUES = ("name", "title", "symbols", "shape", "blank", "difficulties", "test_difficulties")
_GIVEN: dict[str, type[Task]] = {}


def given_tasks() -> dict[str, type[Task]]:
    """The tasks that were given to this process, by name."""
    return _GIVEN


def give(task: type[Task]) -> type[Task]:
    """Let a task be found by its name from now on."""
    _GIVEN[task.name] = task
    return task


def give_file(path: Path, taken: list[str]) -> type[Task]:
    """Run the file of a task, whose class can be found by its name from now on.

    Args:
        path: a Python file.
        taken: the names of other tasks.

    Raises:
        UserError: there is no such file, it fails, or it does not define exactly one task with a new name.
    """
    if not path.is_file():
        raise UserError(f"task={path}: there is no such file (from {Path.cwd()}). Correct the path.")
    module_name = f"own_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"task={path}: this is no Python file. Its name must end with .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # where pickle looks for the class
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        lines = [line for file, line in traceback_lines(error) if file == path.absolute()]
        if isinstance(error, SyntaxError) and error.lineno is not None:
            lines.append(error.lineno)
        where = f" line {lines[-1]}" if lines else ""
        raise UserError(f"{path}{where}: {type(error).__name__}: {error}. Correct the file.") from error
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module_name
    ]
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise UserError(
            f"{path} must define one task, a class that is derived from dataset.tasks.task.Task; there is {names}."
        )
    task = classes[0]
    check_description(task, str(path))
    if task.name in taken and task.name not in _GIVEN:
        raise UserError(f"{path}: there is already a task called {task.name!r}. Give the class another name.")
    return give(task)


def check_description(task: type[Task], where: str) -> None:
    """Check what a task says about itself.

    Raises:
        UserError: `name` or `title` is missing, a method is misspelt or has other arguments, or `symbols`, `shape`,
            `blank` or the difficulties cannot be.
    """
    for key in ("name", "title"):
        value = getattr(task, key, None)
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: {task.__name__} needs `{key}`, a text. For example {key} = 'futoshiki'.")
    if not task.name.replace("_", "a").isalnum() or not task.name.isascii():
        raise UserError(f"{where}: name {shown(task.name)}: letters, digits and _ are allowed.")
    if not task.title.replace("_", "a").replace("-", "a").isalnum() or not task.title.isascii():
        raise UserError(f"{where}: title {shown(task.title)}: letters, digits, - and _ are allowed, as in columns.")
    _check_methods(task, where)
    symbols = list(task.symbols)
    if len(set(symbols)) < len(symbols) or not all(isinstance(symbol, str) and symbol for symbol in symbols):
        twice = next((symbol for symbol in symbols if symbols.count(symbol) > 1), None)
        what = f"{shown(twice)} is there twice" if twice is not None else "one is empty or no text"
        raise UserError(f"{where}: symbols: {what}. Every token needs a symbol of its own.")
    if len(symbols) > 255:
        raise UserError(f"{where}: symbols: there are {len(symbols)}. At most 255 are allowed, as tokens are bytes.")
    if any(" " in symbol or "\n" in symbol for symbol in symbols if len(symbol) > 1):
        raise UserError(f"{where}: symbols: words must not hold spaces, which stand between words.")
    shape = task.shape
    sides = list(shape) if isinstance(shape, tuple | list) else []
    if shape is not None and (len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides)):
        raise UserError(f"{where}: shape {shape!r}: expected are rows and columns, such as (9, 9) or (1, 128).")
    _check_blank(task, where)
    for key, may_be_empty in (("difficulties", False), ("test_difficulties", True)):
        levels = getattr(task, key)
        is_list = isinstance(levels, tuple | list | range) and (may_be_empty or len(levels) > 0)
        if not is_list or not all(isinstance(level, int | np.integer) for level in levels):
            raise UserError(
                f"{where}: {key} {shown(levels)}: expected are whole numbers in a tuple, such as (1, 2, 3); a single "
                "one is written (2,)."
            )


def _check_blank(task: type[Task], where: str) -> None:
    if not isinstance(task.blank, str | tuple | list):
        raise UserError(f"{where}: blank {shown(task.blank)}: expected is a text of symbols, or a tuple of them.")
    strange = [symbol for symbol in task.blank if symbol not in list(task.symbols)]
    if task.symbols and strange:
        raise UserError(
            f"{where}: blank {shown(task.blank)}: {shown(strange[0])} is no symbol of the task. The symbols are "
            f"{shown(task.symbols)}; blank names those of cells that are to be filled in."
        )


def _check_methods(task: type[Task], where: str) -> None:
    """Refuse methods and class attributes with names or arguments by which they are not found."""
    known = {*_ARGUMENTS, *_VALUES}
    own = {name for cls in task.__mro__ if cls.__module__ == task.__module__ for name in vars(cls)}
    for name in sorted(own - known):
        close = get_close_matches(name, sorted(known - own), n=1, cutoff=_ALIKE)
        if not close or name.startswith(("_", close[0])):
            continue
        raise UserError(
            f"{where}: {task.__name__} has no `{close[0]}`; did you mean it by `{name}`, which the class has? Write "
            f"`{close[0]}`; if it is something else, give it another name, such as `_{name}`."
        )
    for method, names in _ARGUMENTS.items():
        function = getattr(task, method)
        bound = isinstance(inspect.getattr_static(task, method), staticmethod | classmethod)
        try:
            inspect.signature(function).bind(*([] if bound else [None]), *names)
        except (TypeError, ValueError):
            written = ", ".join(["self", *(f"{name}=None" if name == "label" else name for name in names)])
            raise UserError(f"{where}: {method} must be defined as {method}({written}).") from None


def library_task(name: str) -> type[Task] | None:
    """The task of a library, such as `reasoning_gym:chain_sum`; None: the name stands for no library.

    Raises:
        UserError: the library is not installed, or has no such task.
    """
    library, separator, own = name.partition(LIBRARY_SEPARATOR)
    if not separator or library != "reasoning_gym":
        return None
    from dataset.libraries.reasoning_gym import task_called  # imported here, because the library takes seconds to load

    return task_called(own)
