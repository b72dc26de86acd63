"""The tasks, one package each. They are discovered automatically, so a new task needs no entry anywhere else.

A task is a package `dataset/tasks/<name>/` whose `__init__.py` defines or imports exactly one subclass of `Task` whose
`name` is `<name>`. It is imported only when it is needed.
"""

import importlib
import pkgutil
from typing import Protocol

from dataset.tasks.task import Task
from utils.errors import UserError, did_you_mean


class Described(Protocol):
    """The fields of `dataset.json` that `task_of` needs."""

    task: str | None
    seq_len: int
    vocab_size: int


def task_names() -> list[str]:
    """The names of all tasks, sorted, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def check_task_name(name: str, key: str = "task") -> None:
    """Refuse the name of an unknown task.

    Args:
        name: the name to check.
        key: the setting that has this value, for the message.

    Raises:
        UserError: there is no such task.
    """
    names = task_names()
    if name not in names:
        raise UserError(f"{key} {name!r}: the tasks are {', '.join(names)}.{did_you_mean(name, names)}")


def load_task(name: str, key: str = "task") -> type[Task]:
    """The task called `name`; see `check_task_name` for `key`.

    Raises:
        UserError: there is no such task, or its package does not define it.
    """
    check_task_name(name, key)
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
