"""The tasks. They are discovered automatically, so a new task needs no entry anywhere else.

A task is a package `dataset/tasks/<name>/` or a file `dataset/tasks/<name>.py` that defines or imports exactly one
subclass of `Task` whose `name` is `<name>`. It is imported only when it is needed. A task may also be given to a
process by its file, or by another name that stands for one (`dataset.tasks.given`); other files are never looked at.
"""

import ast
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Protocol

from dataset.tasks.given import given_tasks, library_task
from dataset.tasks.task import Task
from utils.errors import UserError, did_you_mean


class Described(Protocol):
    """The fields of `dataset.json` that `task_of` needs."""

    task: str | None
    seq_len: int
    vocab_size: int


def task_names() -> list[str]:
    """The names of all tasks, sorted, without importing them: those of dataset/tasks, and those that were given."""
    modules = pkgutil.iter_modules(__path__)
    files = [module.name for module in modules if not module.ispkg and _is_task_file(module.name)]
    return sorted({*task_packages(), *files, *given_tasks()})


def task_packages() -> list[str]:
    """The names of the tasks that are packages, in which a builder may lie."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def _is_task_file(name: str) -> bool:
    files = [Path(folder) / f"{name}.py" for folder in __path__]
    return any(_names_itself(file, file.stat().st_mtime_ns) for file in files if file.is_file())


@cache
def _names_itself(file: Path, changed: int) -> bool:
    """Whether a file has a class with `name` set to that of the file, read without running it."""
    try:
        tree = ast.parse(file.read_text())
    except (SyntaxError, ValueError):
        return False
    statements = [statement for node in tree.body if isinstance(node, ast.ClassDef) for statement in node.body]
    return any(
        isinstance(statement, ast.Assign | ast.AnnAssign)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value == file.stem
        and any(isinstance(name, ast.Name) and name.id == "name" for name in ast.walk(statement))
        for statement in statements
    )


def check_task_name(name: str, key: str = "task") -> None:
    """Refuse the name of an unknown task.

    Args:
        name: the name to check.
        key: the setting that has this value, for the message.

    Raises:
        UserError: there is no such task.
    """
    names = task_names()
    if name not in names and library_task(name) is None:
        raise UserError(
            f"{key} {name!r}: the tasks are {', '.join(names)}.{did_you_mean(name, names)} A task in a file of your "
            "own is found only if you give the file on the command line: task=path/to/file.py of pretrain.py and "
            "evaluate.py, --task path/to/file.py of python -m tiny_recursive_model."
        )


def load_task(name: str, key: str = "task") -> type[Task]:
    """The task called `name`; see `check_task_name` for `key`.

    Raises:
        UserError: there is no such task, or its file does not define it.
    """
    check_task_name(name, key)
    task = given_tasks().get(name) or library_task(name)
    if task is not None:
        return task
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Task)]
    matching = [cls for cls in classes if getattr(cls, "name", None) == name]
    if len(matching) != 1:
        raise UserError(
            f"{module.__file__} must define or import one subclass of Task with name = {name!r}; "
            f"of its subclasses {', '.join(cls.__name__ for cls in matching) or 'none'} has that name."
        )
    return matching[0]


def task_of(metadata: Described) -> type[Task] | None:
    """The task of a data set: the recorded one, else one recognised by its published sizes, else None.

    Raises:
        UserError: the recorded task is unknown.
    """
    if metadata.task is not None:
        return load_task(metadata.task)
    shape = metadata.seq_len, metadata.vocab_size
    return next((task for task in map(load_task, task_names()) if shape in task.published), None)


def task_built_by(module: str) -> type[Task] | None:
    """The task whose data sets are built by `module`, such as `dataset.build_sudoku_dataset`, or None."""
    return next((task for task in map(load_task, task_names()) if task.builder == module), None)


def build_commands(output_dir: str) -> str:
    """The commands of all builders for a data set in `output_dir`, one per line."""
    commands = (task.build_command(output_dir) for task in map(load_task, task_names()))
    return "\n".join(f"  {command}" for command in commands if command is not None)
