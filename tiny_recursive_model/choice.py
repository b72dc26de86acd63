"""Which of the models in weights/ answers a puzzle, if the user does not say."""

from collections.abc import Callable

from dataset.tasks.task import Task
from evaluators.loading import load, shipped_names
from evaluators.reasoner import Reasoner
from utils.errors import UserError
from utils.machine import DeviceName


def choose_model(name: str | None, device: DeviceName, fits: Callable[[Reasoner], object], what: str) -> Reasoner:
    """The model called `name`, or the first of those in weights/ that `fits` accepts.

    Models that search come first, because their solutions are verified.

    Args:
        name: a path or a name; None: choose.
        device: where to compute.
        fits: raises a `UserError` for a model that does not fit.
        what: what is to be answered, for messages.

    Raises:
        UserError: no model fits, or there is none of that name.
    """
    if name is not None:
        return load(name, device)
    problems: list[str] = []
    reasoners = sorted((load(shipped, device) for shipped in shipped_names()), key=lambda found: not found.searches)
    for reasoner in reasoners:
        try:
            fits(reasoner)
        except UserError as error:
            problems.append(str(error))
        else:
            return reasoner
    reasons = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
    raise UserError(f"{what}: none of the models in weights/ takes it. Correct it, or give --model.{reasons}")


def require_task(model: Reasoner, task: type[Task]) -> None:
    """Refuse a model that is not for `task`.

    Raises:
        UserError: it is for another one.
    """
    if model.task.name != task.name:
        raise UserError(f"{model.origin.path.parent.name} is a model for {model.task.name}, not for {task.name}.")
