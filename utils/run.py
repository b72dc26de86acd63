"""What the training programs share around their loop: where a run starts, how it is saved, resumed and logged.

The loop itself stands in each program, in full view.
"""

import math
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from torch import nn

from utils.checkpoint import (
    check_fits,
    load_train_state,
    load_weights,
    save_train_state,
    save_weights,
    train_state_path,
    weights_path,
)
from utils.config import ArchConfig, TrainingConfig, read_yaml, write_yaml
from utils.distributed import Ranks, barrier, broadcast_object
from utils.errors import UserError
from utils.logging import RunLog, WandbMode
from utils.run_folder import RunPlan, check_same_run, plan_run

REPOSITORY = Path(__file__).resolve().parents[1]
Say = Callable[[str], None]


class Training(Protocol):
    """The state of a training run, as far as it is saved and resumed (`models.training.TrainState`)."""

    step: int

    @property
    def head(self) -> nn.Module: ...

    @property
    def ranks(self) -> Ranks: ...

    def averaged(self) -> AbstractContextManager[None]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# -- before the loop ---------------------------------------------------------------------------------------------------


def prepare_job(config: TrainingConfig) -> None:
    """Take names from W&B's variables where the configuration gives none; keep the jobs of a sweep apart.

    Raises:
        UserError: the jobs of a sweep would share what belongs to one run.
    """
    config.project_name = config.project_name or os.environ.get("WANDB_PROJECT") or None
    config.run_name = config.run_name or os.environ.get("WANDB_NAME") or None
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return
    if config.load_checkpoint == "latest":
        raise UserError("load_checkpoint=latest names one run; resume the jobs of a sweep one by one.")
    if "WANDB_RUN_ID" in os.environ:
        raise UserError("WANDB_RUN_ID names one run; unset it for a sweep, whose jobs are runs of their own.")
    if config.run_name is not None:
        config.run_name = f"{config.run_name}-{hydra.job.num}"
    if config.checkpoint_path is not None:
        config.checkpoint_path = f"{config.checkpoint_path}-{hydra.job.num}"


def check_batch_size(config: TrainingConfig, ranks: Ranks) -> None:
    """The global batch must divide evenly among processes and micro-batches."""
    parts = ranks.world_size * config.grad_accum_steps
    if config.global_batch_size % parts:
        near = max(1, round(config.global_batch_size / parts)) * parts
        raise UserError(
            f"global_batch_size {config.global_batch_size} is not divisible by {ranks.world_size} processes x "
            f"grad_accum_steps {config.grad_accum_steps}: use for example global_batch_size={near}."
        )


def plan_on_main(config: TrainingConfig, project: str, ranks: Ranks) -> RunPlan:
    """`plan_run`, decided by rank 0 for all; `project` names a run whose configuration does not.

    Raises:
        UserError: on every rank, what rank 0 found.
    """
    plan: RunPlan | UserError | None = None
    if ranks.is_main:
        try:
            kind = config.arch.name.split("@")[0].split(".")[-1]
            folder, name = config.checkpoint_path, config.run_name
            plan = plan_run(
                config.load_checkpoint, folder, config.project_name or project, name, kind, config.model_dump()
            )
        except UserError as error:
            plan = error
    plan = broadcast_object(plan)
    if isinstance(plan, UserError):
        raise plan
    assert plan is not None
    return plan


def warn_of_other_arch(trained_config: Path, arch: ArchConfig, say: Say = print) -> None:
    """Name the architecture keys that differ from those the weights were trained with: shapes do not show them all."""
    if not trained_config.exists():
        say(f"note: there is no {trained_config}, so the architecture cannot be compared with that of the weights")
        return
    before, now = read_yaml(trained_config).get("arch") or {}, arch.model_dump()
    for key in sorted({*before, *now} - {"forward_dtype"}):
        if before.get(key) != now.get(key):
            say(f"warning: the weights were trained with arch.{key}={before.get(key)!r}, here it is {now.get(key)!r}")


def resume(
    state: Training, plan: RunPlan, config: TrainingConfig, must_agree: tuple[str, ...], say: Say = print
) -> dict[str, Any]:
    """Restore `state` from the checkpoint that `plan` names.

    Returns:
        The whole train state, for what the program itself had put into it (see `save`).

    Raises:
        UserError: the checkpoint is broken, or made with other values of the keys in `must_agree`.
    """
    assert plan.resume is not None
    folder, step = plan.resume
    saved = load_train_state(train_state_path(folder, step))
    for line in check_same_run(saved["config"], config.model_dump(), must_agree):
        say(f"changed since the checkpoint: {line}")
    path = weights_path(folder, step)
    weights = load_weights(path)
    check_fits(weights, state.head, path)
    state.head.load_state_dict(weights)
    state.load_state_dict(saved)
    return saved


def open_log(
    config: TrainingConfig,
    plan: RunPlan,
    first_step: int,
    last_step: int,
    wandb_mode: WandbMode,
    shown: dict[str, str],
) -> RunLog:
    """Make the run folder, with the configuration and the code of the models, and open its log; see `RunLog`."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_yaml(plan.folder / "all_config.yaml", config)
    shutil.copytree(
        REPOSITORY / "models",
        plan.folder / "code" / "models",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    values = config.model_dump()
    return RunLog(plan.folder, first_step, last_step, values, plan.project, plan.name, plan.wandb_id, wandb_mode, shown)


# -- in the loop -------------------------------------------------------------------------------------------------------


def check_finite(metrics: dict[str, float], step: int) -> None:
    """Stop before a diverged run spends more time."""
    if not math.isfinite(metrics["train/lm_loss"]):
        raise UserError(
            f"the loss is {metrics['train/lm_loss']} at step {step}: training has diverged. Try a lower lr, a longer "
            "warm-up or grad_clip_norm=1.0. Earlier checkpoints are untouched."
        )


def line_of(metrics: dict[str, float]) -> str:
    """Metrics on one line."""
    return "; ".join(f"{key} {value:.4f}" for key, value in metrics.items())


def save(config: TrainingConfig, state: Training, plan: RunPlan, more: dict[str, Any] | None = None) -> None:
    """Write weights (the averages, when they are on) and train state; rank 0 writes, all ranks take part.

    Args:
        config, state, plan: the run.
        more: what else a resume needs: plain values and tensors, by names that `state.state_dict()` does not have.
    """
    content = state.state_dict()
    if state.ranks.is_main:
        with state.averaged():
            save_weights(plan.folder, state.step, state.head)
        content["run"] = {"project": plan.project, "name": plan.name, "wandb_id": plan.wandb_id}
        content["config"] = config.model_dump()
        save_train_state(plan.folder, state.step, content | (more or {}), config.keep_train_states)
    barrier()
