"""The word `task=...` of a command line: which task it is, and the settings that follow from it.

    task=futoshiki                  a task of dataset/tasks
    task=path/to/futoshiki.py       a task in a file, which is run
    task=reasoning_gym:chain_sum    a generator of the package reasoning-gym
    task=questions.jsonl            questions and answers in a file (.jsonl or .csv), or in a folder with train and test
    task=hf:owner/name              the same, of a data set on the Hugging Face Hub

It is read here before the settings are composed, and is no setting itself: what stays in the configuration of a run is
the name of its task. So nothing that a checkpoint says has a file run.
"""

from collections.abc import Sequence
from pathlib import Path

from dataset.pairs import is_pairs
from dataset.tasks import load_task, task_names
from dataset.tasks.given import LIBRARY_SEPARATOR, give, give_file
from dataset.tasks.task import Task
from utils.errors import UserError

_KEY = "task="
_OPTION = "data_builder.options."
_BUILDER = "dataset.build_task_dataset"


def choose_task(spec: str, key: str = "task") -> type[Task]:
    """The task that a person names; its file is run.

    Args:
        spec: a name, a file, or another source of examples.
        key: the setting that has this value, for messages.

    Raises:
        UserError: there is no such task or file.
    """
    if spec.endswith(".py"):
        return give_file(Path(spec), task_names())
    if is_pairs(spec):
        from dataset.tasks.question_answer import task_from  # imported here, as all tasks are

        return give(task_from(spec))
    return load_task(spec, key)


def data_folder(kind: type[Task]) -> str:
    """The folder of the data set of a task, if nobody chooses another."""
    return f"data/{kind.data_name or kind.name.replace(LIBRARY_SEPARATOR, '-')}"


def give_tasks(arguments: Sequence[str]) -> list[str]:
    """The arguments without `task=...`, whose task is found by its name from now on.

    Raises:
        UserError: there is no such task, or several are named.
    """
    return _split(arguments)[1]


def task_overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments with the settings that follow from `task=...` in its place, before all others, which win over them.

    These are the data, their builder, the evaluator and the augmentation of the task. The options of a builder that the
    arguments give are noted in `data_builder.given`, with or without a task.

    Raises:
        UserError: there is no such task, or several are named.
    """
    kind, rest = _split(arguments)
    rest = _with_given_options(rest)
    if kind is None:
        return rest
    folder = data_folder(kind)
    for argument in rest:  # a data set elsewhere is built there
        key, _, value = argument.partition("=")
        if key == "data_paths" and value.startswith("[") and value.endswith("]") and "," not in value:
            folder = value[1:-1].strip("\"' ")
    module, options = (kind.builder, "") if kind.builder is not None else (_BUILDER, f'task: "{kind.name}", ')
    evaluator = f'{{name: "{kind.name}@{kind.title}"}}' if kind.columns() else ""
    augments = kind.symmetries is not Task.symmetries or kind.augmentation is not Task.augmentation
    implied = [
        f'data_paths=["{folder}"]',
        "data_paths_test=[]",
        "data_builder=null",  # the options of an experiment's own builder do not fit
        f'data_builder={{module: {module}, options: {{{options}output_dir: "{folder}"}}}}',
        f"evaluators=[{evaluator}]",
        f"augmentation={f'{chr(34)}{kind.name}{chr(34)}' if augments else 'null'}",
    ]
    return [*implied, *rest]


def _with_given_options(arguments: list[str]) -> list[str]:
    """The arguments, with the names of the builder's options among them before the first of these."""
    places = [place for place, argument in enumerate(arguments) if argument.lstrip("+").startswith(_OPTION)]
    names = [arguments[place].lstrip("+").removeprefix(_OPTION).partition("=")[0] for place in places]
    names = [name for name in dict.fromkeys(names) if name.isidentifier() and name != "output_dir"]
    if not names:
        return arguments
    return [*arguments[: places[0]], f"data_builder.given=[{','.join(names)}]", *arguments[places[0] :]]


def _split(arguments: Sequence[str]) -> tuple[type[Task] | None, list[str]]:
    """The task that the arguments name, and the others."""
    specs = [argument.removeprefix(_KEY).strip("\"'") for argument in arguments if argument.startswith(_KEY)]
    rest = [argument for argument in arguments if not argument.startswith(_KEY)]
    if len(specs) > 1 or any("," in spec for spec in specs):
        raise UserError(f"task={','.join(specs)}: a run has one task. Start a run for each.")
    return (choose_task(specs[0]) if specs else None), rest
