"""A run that diverges: how that is noticed, what is said about it, and how a run goes back and leaves batches out.

A run has diverged if a loss is not finite, if it explodes, or if the weights, their averages or the state of the
optimizer are not finite when they are to be saved. Such a state is never saved. All ranks see the same sums of the
losses, so they notice it at the same step without further communication.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from utils.atomic_file import write_json
from utils.checkpoint import train_state_path, weights_path
from utils.distributed import Ranks, broadcast_object, largest_over_ranks
from utils.errors import UserError
from utils.files import OTHER_FOLDER, writing_to
from utils.run_folder import DIVERGENCES_FILE, RunPlan, read_divergences
from utils.settings import TrainingConfig

EXPLODING_STEPS = 100  # in a row with a loss above the limit make an explosion; single peaks pass by themselves
MOST_SKIPS = 5  # times that one run goes back
_SHOWN = 6  # examples named in a message; the file in the run folder names all
_ADVICE = "a lower lr, a longer warm-up or grad_clip_norm=1.0"
ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


class Diverged(UserError):
    """Training has diverged.

    Attributes:
        first, last: the steps whose batches may be to blame. At `last` it was noticed.
        reason: what was noticed.
        back_to: the train state to go back to, if the run is to go on without these steps.
    """

    def __init__(self, first: int, last: int, reason: str, advice: str = "", back_to: Path | None = None):
        super().__init__(f"{reason}: training has diverged.{advice}")
        self.first, self.last, self.reason, self.back_to = first, last, reason, back_to


# -- noticing ----------------------------------------------------------------------------------------------------------


def largest_loss(config: TrainingConfig, vocab_size: int) -> float | None:
    """The loss above which a run may be exploding: `divergence_factor` times that of guessing among all tokens."""
    factor = config.divergence_factor
    return None if factor is None else factor * math.log(max(2, vocab_size))


class LossWatch:
    """Looks at the losses of each step, in order.

    Args:
        limit: token loss that explodes if it is exceeded `EXPLODING_STEPS` times in a row; None: no limit.
    """

    def __init__(self, limit: float | None):
        self._limit = math.inf if limit is None else limit
        self._above = 0  # steps in a row above the limit

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Check the metrics of a step; one that was left out has no losses.

        Raises:
            Diverged: a loss or the norm of the gradient is not finite, or the token loss has exploded.
        """
        for name, value in metrics.items():
            if (name.endswith("loss") or name == "optim/grad_norm") and not math.isfinite(value):
                what = "the loss" if name == "train/lm_loss" else name
                # the weights may have been ruined by the update of the step before
                raise Diverged(max(1, step - 1), step, f"{what} is {value} at step {step}")
        loss = metrics.get("train/lm_loss", 0.0)
        self._above = self._above + 1 if loss > self._limit else 0
        if self._above >= EXPLODING_STEPS:
            first = step - self._above + 1
            raise Diverged(
                max(1, first - 1), step, f"the loss is {loss:.4g} at step {step} and has been above {self._limit:.4g} "
                f"since step {first}, which is far worse than guessing (divergence_factor)",
            )  # fmt: skip


def check_finite(step: int, tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Check the state of a run before it is saved; the device is waited for once. Collective.

    Args:
        step: the step after which it is saved.
        tensors: the tensors that are saved, by names for the message; those of whole numbers are not looked at.
        device: where they are.

    Raises:
        Diverged: on every rank, if on any rank a value is not finite.
    """
    checked = {name: value for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    # the extremes instead of `isfinite().all()`, which would take a byte for each value
    extremes = [bound.to(device, torch.float64 if device.type != "mps" else torch.float32)
                for value in checked.values() for bound in value.detach().aminmax()]  # fmt: skip
    finite = torch.stack(extremes).isfinite().view(-1, 2).all(1).tolist() if extremes else []
    bad = [name for name, right in zip(checked, finite, strict=True) if not right]
    if largest_over_ranks(float(bool(bad)), device):
        which = f"{bad[0]} is" + (f" and {len(bad) - 1} more tensors are" if bad[1:] else "") if bad else "it is"
        raise Diverged(step, step, f"the state after step {step} is not saved, because {which} not finite")


# -- explaining and going back -----------------------------------------------------------------------------------------


@contextmanager
def explained_divergence(
    config: TrainingConfig, plan: RunPlan, names: Callable[[int], Sequence[str]], ranks: Ranks
) -> Iterator[None]:
    """Around the loop of a run: complete the message of `Diverged`, and record it in the run folder. Collective.

    Checkpoints of the steps that may be to blame are renamed to `diverged_step_<N>`, so that nothing goes on from them.

    Args:
        config, plan: the run.
        names: the names of the examples in the batch of a step.
        ranks: the rank of this process.

    Raises:
        Diverged: with the examples, and with the checkpoint to load; in the configuration
            `on_divergence=skip` it names the train state to go back to.
    """
    try:
        yield
    except Diverged as error:
        complete = _explain(error, config, plan, names) if ranks.is_main else None
        advice, back_to = broadcast_object(complete) or ("", None)
        raise Diverged(error.first, error.last, error.reason, advice, back_to) from None


def _explain(
    error: Diverged, config: TrainingConfig, plan: RunPlan, names: Callable[[int], Sequence[str]]
) -> tuple[str, Path | None]:
    """(what to say, the train state to go back to or None). Renames checkpoints and writes the record."""
    found = read_divergences(plan.folder)
    batches = {step: list(names(step)) for step in range(max(error.first, error.last - 1), error.last + 1)}
    with writing_to(plan.folder, OTHER_FOLDER):
        aside = _set_aside(plan.folder, error.first)
        state = _state_before(plan, error.first)
        skipped = sum(bool(entry["skipped"]) for entry in found)
        skips = config.on_divergence == "skip" and state is not None and skipped < MOST_SKIPS
        entry = {
            "first": error.first,
            "last": error.last,
            "reason": error.reason,
            "skipped": skips,
            "examples": batches,
        }
        path = plan.folder / DIVERGENCES_FILE
        write_json(path, [*found, entry])
    lines = [""]
    for step, batch in batches.items():
        more = f" and {len(batch) - _SHOWN} more, see {path}" if len(batch) > _SHOWN else ""
        lines.append(f"The batch of step {step} holds {', '.join(batch[:_SHOWN])}{more}.")
    if aside:
        lines.append(f"Set aside as diverged_step_<N>: {', '.join(aside)}.")
    if state is None:
        lines.append(f"There is no checkpoint from before. Start again with {_ADVICE}.")
    elif skips:
        steps = f"step {error.last}" if error.first == error.last else f"steps {error.first} to {error.last}"
        lines.append(f"The run goes back to {state} and leaves out {steps} (on_divergence=skip).")
    else:
        often = f" It has gone back {skipped} times already." if skipped >= MOST_SKIPS else ""
        skip = "" if config.on_divergence == "skip" else ", or with on_divergence=skip, which leaves these batches out"
        lines.append(f"The last good checkpoint is {state}.{often} Go on from it with load_checkpoint={state} and "
                     f"{_ADVICE}{skip}.")  # fmt: skip
    return "\n".join(lines), state if skips else None


def _state_before(plan: RunPlan, step: int) -> Path | None:
    """The newest train state of the run from before `step`."""
    steps = [number for number in _steps(plan.folder) if number < step and weights_path(plan.folder, number).exists()]
    if steps:
        return train_state_path(plan.folder, max(steps))
    return train_state_path(*plan.resume) if plan.resume is not None else None


def _set_aside(folder: Path, first: int) -> list[str]:
    """Rename the checkpoints of `first` and later steps. Returns their names."""
    numbers = {path: path.name.removeprefix("step_").split("_")[0].split(".")[0] for path in folder.glob("step_*")}
    late = sorted(path for path, number in numbers.items() if number.isdigit() and int(number) >= first)
    for path in late:
        path.rename(path.with_name(f"diverged_{path.name}"))
    return [path.name for path in late]


def _steps(folder: Path) -> list[int]:
    names = [path.name for path in folder.glob("step_*_train_state.pt")]
    numbers = [name.removeprefix("step_").split("_")[0] for name in names]
    return [int(number) for number in numbers if number.isdigit()]


def train_through(train: Callable[[ConfigT], Any], config: ConfigT, say: Callable[[str], None]) -> None:
    """Run `train`; when it diverges and is to go back, run it again from the checkpoint that `Diverged` names.

    Raises:
        Diverged: it is to stop, there is nothing to go back to, or it has gone back `MOST_SKIPS` times.
    """
    while True:
        try:
            train(config)
            return
        except Diverged as error:
            if error.back_to is None:
                raise
            message, state = str(error), error.back_to
        # out of the handler, whose traceback would keep the model in memory
        say(f"\n{message}")
        config = config.model_copy(update={"load_checkpoint": str(state)})
