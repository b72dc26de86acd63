"""Tasks that are given to this process, and tasks of libraries: those that do not lie in dataset/tasks.

A file of a user is code, so it is run only if the user names it on the command line (or in a call from Python). What a
checkpoint, a saved model or a data set says is a name, which finds a given task and never a file.
"""

import importlib.util
import inspect
import sys
from pathlib import Path

from dataset.tasks.task import Task
from utils.errors import UserError
from utils.text_files import shown

LIBRARY_SEPARATOR = ":"
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
        lines = _lines(error, path)
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
        UserError: `name` or `title` is missing, or `symbols` or `shape` cannot be.
    """
    for key in ("name", "title"):
        value = getattr(task, key, None)
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: {task.__name__} needs `{key}`, a text. For example {key} = 'futoshiki'.")
    if not task.name.replace("_", "a").isalnum() or not task.name.isascii():
        raise UserError(f"{where}: name {shown(task.name)}: letters, digits and _ are allowed.")
    if not task.title.replace("_", "a").replace("-", "a").isalnum() or not task.title.isascii():
        raise UserError(f"{where}: title {shown(task.title)}: letters, digits, - and _ are allowed, as in columns.")
    for method, given in (("generate", "rng, difficulty"), ("verify", "question, answer, label=None")):
        try:
            inspect.signature(getattr(task, method)).bind(None, *given.split(", "))
        except TypeError:
            raise UserError(f"{where}: {method} must be defined as {method}(self, {given}).") from None
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


def _lines(error: BaseException, path: Path) -> list[int]:
    """The lines of the file at which an exception passed."""
    found: list[int] = []
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).absolute() == path.absolute():
            found.append(trace.tb_lineno)
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.lineno is not None:
        found.append(error.lineno)
    return found


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
