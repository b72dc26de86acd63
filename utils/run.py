"""What the training programs share apart from the loop: planning, saving, resuming and logging a run.

The loop itself is written out in each program.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from torch import Tensor, nn

from utils.checkpoint import check_fits, published_weights, weights_path
from utils.checkpoint_pair import load_pair, write_pair
from utils.config import write_yaml
from utils.distributed import Ranks, broadcast_object, errors_of_rank_0
from utils.divergence import check_finite
from utils.errors import UserError
from utils.files import OTHER_FOLDER, writing_to
from utils.logging import RunLog, SilentLog, choose_wandb_mode
from utils.machine import Machine
from utils.media import MakeMedia
from utils.run_control import RunControl
from utils.run_folder import RunPlan, check_same_run, plan_run, skipped_steps
from utils.settings import RESOLVED, TrainingConfig
from utils.shared_folder import check_shared
from utils.stop_signals import Interrupted
from utils.tensorboard_run import check_installed

REPOSITORY = Path(__file__).resolve().parents[1]
OWED = "owed"  # the name of this in a train state:
Owed = dict[str, Any]  # a step whose evaluation was broken off, as arguments of `log_step`; empty: none was
Say = Callable[[str], None]
ConfigT = TypeVar("ConfigT", bound=TrainingConfig)
# converts a saved configuration to the current format, so that the two can be compared
Comparable = Callable[[Mapping[str, Any]], dict[str, Any]]


class Training(Protocol):
    """The part of a training run's state that is saved and restored (`models.training.TrainState`)."""

    step: int

    @property
    def head(self) -> nn.Module: ...

    @property
    def ranks(self) -> Ranks: ...

    def averaged(self) -> AbstractContextManager[None]: ...

    def lasting_tensors(self) -> dict[str, Tensor]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# -- before the loop ---------------------------------------------------------------------------------------------------


def prepare_job(config: ConfigT) -> ConfigT:
    """The configuration of one job: missing names come from W&B's variables, and each job of a sweep gets its own.

    Raises:
        UserError: the jobs of a sweep would share a checkpoint or a W&B run; a package of `logger` is missing.
    """
    check_installed(config.logger)
    project = config.project_name or os.environ.get("WANDB_PROJECT") or None
    name = config.run_name or os.environ.get("WANDB_NAME") or None
    folder = config.checkpoint_path
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        if config.load_checkpoint == "latest":
            raise UserError("load_checkpoint=latest names one run; resume the jobs of a sweep one by one.")
        if "WANDB_RUN_ID" in os.environ:
            raise UserError("WANDB_RUN_ID names one run; unset it for a sweep, whose jobs are runs of their own.")
        name = f"{name}-{hydra.job.num}" if name is not None else None
        folder = f"{folder}-{hydra.job.num}" if folder is not None else None
    return config.model_copy(update={"project_name": project, "run_name": name, "checkpoint_path": folder})


def check_batch_size(config: TrainingConfig, ranks: Ranks) -> None:
    """Check that the global batch divides evenly among processes and micro-batches.

    Raises:
        UserError: it does not.
    """
    parts = ranks.world_size * config.grad_accum_steps
    if config.global_batch_size % parts:
        near = max(1, round(config.global_batch_size / parts)) * parts
        raise UserError(
            f"global_batch_size {config.global_batch_size} is not divisible by {ranks.world_size} processes x "
            f"grad_accum_steps {config.grad_accum_steps}: use for example global_batch_size={near}."
        )


def plan_on_main(
    config: TrainingConfig, project: str, machine: Machine, comparable: Comparable, control: RunControl
) -> RunPlan:
    """Call `plan_run` on rank 0, lock the run folder, and return the plan on every rank. Collective.

    Args:
        config: the configuration of the run.
        project: project name if the configuration gives none.
        machine: what the run computes on; the plan keeps it for the files of the run.
        comparable: see `Comparable`.
        control: the block of the run, which holds the lock.

    Raises:
        UserError: on every rank, the error of rank 0; another run holds the folder; a rank does not see the checkpoint.
    """

    def choose(load_checkpoint: str | None, folder: str | None, name: str | None) -> RunPlan:
        kind = config.arch.name.split("@")[0].split(".")[-1]
        names = config.project_name or project, name
        values, say = config.model_dump(), control.ranks.say
        return plan_run(load_checkpoint, folder, *names, kind, values, comparable, say)

    plan: RunPlan | None = None
    with errors_of_rank_0():
        if control.ranks.is_main:
            earlier = control.earlier_plan()
            if earlier is not None:  # the launcher has started this run before
                control.lock(earlier.folder)
                plan = choose("latest", str(earlier.folder), earlier.name)
                if plan.resume is None:  # it had not saved yet
                    plan = replace(earlier, note=f"started again: {earlier.note}")
            else:
                plan = choose(config.load_checkpoint, config.checkpoint_path, config.run_name)
                if control.lock(plan.folder):  # the run that it has waited for may have saved
                    plan = choose(config.load_checkpoint, str(plan.folder), plan.name)
            if plan.resume is not None:
                plan = replace(plan, skipped=skipped_steps(plan.folder) | skipped_steps(plan.resume[0]))
            control.remember(plan)
    plan = broadcast_object(plan)
    assert plan is not None
    check_shared(plan, control.ranks)
    return replace(plan, resolved={"device": machine.device.type, "forward_dtype": machine.dtype})


def resume(
    state: Training,
    plan: RunPlan,
    config: TrainingConfig,
    fixed: tuple[str, ...],
    comparable: Comparable,
    say: Say = print,
) -> dict[str, Any]:
    """Restore `state` from the checkpoint that `plan` names.

    Args:
        state: state of the resumed run, changed in place.
        plan: where to find the checkpoint.
        config: configuration of the resumed run.
        fixed: keys whose values a resumed run must keep.
        comparable: see `Comparable`.
        say: prints the settings that have changed.

    Returns:
        The whole train state, including what the program itself saved in it (see `save`).

    Raises:
        UserError: the checkpoint is corrupted, or was made with other values of the `fixed` keys.
    """
    assert plan.resume is not None
    folder, step = plan.resume
    # rank 0 has compared the checksums when it chose the checkpoint
    weights, saved = load_pair(folder, step, compare_checksums=not state.ranks.is_main)
    for line in check_same_run(comparable(saved["config"]), comparable(config.model_dump()), fixed):
        say(f"changed since the checkpoint: {line}")
    computed = saved["config"].get(RESOLVED, {})
    for key, now in plan.resolved.items():
        if computed.get(key, now) != now:
            say(f"note: {key} was {computed[key]} up to the checkpoint and is {now} from here, so the run goes on from "
                "the same state, but not to the same bits")  # fmt: skip
    check_fits(weights, state.head, weights_path(folder, step))
    state.head.load_state_dict(weights)
    state.load_state_dict(saved)
    return saved


def open_log(
    config: TrainingConfig, plan: RunPlan, steps: range, shown: dict[str, str], ranks: Ranks
) -> RunLog | SilentLog:
    """Create the run folder with the configuration and the code of the models, and open its log (on rank 0 only).

    Args:
        config, plan: the run.
        steps: the steps that will be run.
        shown: see `RunLog`.
        ranks: the rank of this process.

    Raises:
        UserError: the folder cannot be made or written.
    """
    wandb_mode, reason = choose_wandb_mode(config.wandb_mode)
    if "wandb" not in config.logger:
        wandb_mode, reason = "disabled", "not in logger"
    ranks.say(f"W&B: {wandb_mode} ({reason})")
    if not ranks.is_main:
        return SilentLog()
    with writing_to(plan.folder, OTHER_FOLDER):
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_yaml(plan.folder / "all_config.yaml", config, {RESOLVED: plan.resolved})
        shutil.copytree(
            REPOSITORY / "models",
            plan.folder / "code" / "models",
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    return RunLog(
        plan.folder, steps.start, steps.stop - 1, config.model_dump(), plan.project, plan.name, plan.wandb_id,
        wandb_mode, shown, config.logger,
    )  # fmt: skip


# -- in the loop -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DueEvaluation:
    """An evaluation that is due after a step.

    Attributes:
        run: evaluates, and returns the metrics. It raises `Interrupted` if the run was asked to end meanwhile.
        media: its pictures and tables, once it has been run.
    """

    run: Callable[[], dict[str, float]]
    media: MakeMedia | None = None


def log_step(
    log: RunLog | SilentLog,
    control: RunControl,
    step: int,
    metrics: dict[str, float],
    perf: dict[str, float],
    due: DueEvaluation | None = None,
) -> Owed:
    """Log a step, with the results of its evaluation if one is due.

    Args:
        log, control: of the run.
        step, metrics, perf: the step, see `RunLog.step`; the results are added to `metrics`.
        due: the evaluation; None: none is due.

    Returns:
        The step itself if a signal broke off the evaluation, else nothing. The checkpoint of the step must hold it
        (`more` of `save`), so that a resumed run can evaluate and log the step. The run then ends.
    """
    if due is not None:
        try:
            results = due.run()
        except Interrupted:
            control.evaluation_interrupted()
            return {"step": step, "metrics": metrics, "perf": perf}
        log.say(f"evaluated after step {step}: {format_metrics(results)}")
        metrics |= results
    log.step(step, metrics, perf)
    if due is not None and due.media is not None:
        log.media(due.media, step)
    return {}


def format_metrics(metrics: dict[str, float]) -> str:
    """Metrics on one line."""
    return "; ".join(f"{key} {value:.4f}" for key, value in metrics.items())


def save(
    config: TrainingConfig, state: Training, plan: RunPlan, control: RunControl, more: dict[str, Any] | None = None
) -> None:
    """Copy the weights (their averages, if ema is on) and the train state, and have them written in the background.

    Only rank 0 writes, but it is collective. If the last checkpoint is still being written, this waits for it.

    Args:
        config, state, plan, control: the run.
        more: further plain values that resuming needs, under names not used by `state.state_dict()`.

    Raises:
        Diverged: the state is not finite; nothing is written.
        UserError: the last checkpoint could not be written.
    """
    tensors = state.lasting_tensors()
    check_finite(state.step, tensors, next(iter(tensors.values())).device)
    control.wait_for_writer()  # before the copies are made, so that there is only one checkpoint in memory
    content = state.state_dict()
    if state.ranks.is_main:
        with state.averaged():
            weights = published_weights(state.head)
        content["run"] = {"project": plan.project, "name": plan.name, "wandb_id": plan.wandb_id}
        content["config"] = config.model_dump() | {RESOLVED: plan.resolved}
        content |= deepcopy(more or {})
        control.write(partial(write_pair, plan.folder, state.step, weights, content))
    control.saved()
