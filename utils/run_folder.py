"""The choice of the run folder, and of the checkpoint to start from."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolname import generate_slug

from utils.checkpoint import TRAIN_STATE_SUFFIX, latest_step, train_state_path, weights_path
from utils.checkpoint_pair import load_pair, newest_whole_pair
from utils.config import read_yaml
from utils.errors import UserError
from utils.file_names import safe_path
from utils.logging import new_wandb_id
from utils.settings import RESOLVED
from utils.text_files import read_json

RUNS = Path("checkpoints")
DIVERGENCES_FILE = "divergences.json"  # when the run diverged, and which steps it leaves out (`utils.divergence`)
# keys that say where, how and how far to run, but do not affect what is computed
NOT_COMPUTED = {
    "load_checkpoint", "run_name", "project_name", "checkpoint_path",
    "device", "wandb_mode", "num_workers", "data_on_device", "token_cache", "max_steps", "frozen_rank_seconds",
    "on_divergence", "divergence_factor",
    "checkpoint_every_eval", "checkpoint_every_steps", "checkpoint_every_minutes",
    "keep_train_states", "keep_last", "keep_best", "keep_best_by", "logger", "report", "eval_traces",
}  # fmt: skip


@dataclass(frozen=True)
class RunPlan:
    """Where a run writes and what it starts from."""

    folder: Path
    project: str
    name: str
    wandb_id: str
    resume: tuple[Path, int] | None = None  # folder and step of the checkpoint to resume
    weights: Path | None = None  # weights to start a new run from
    note: str = ""
    ended: int | None = None  # the step, if the checkpoint to resume is that of a run that had reached its max_steps
    resolved: dict[str, str] = field(default_factory=dict)  # device and forward_dtype that the run computes with
    skipped: frozenset[int] = frozenset()  # steps to leave out, because the run diverged there

    @property
    def source(self) -> Path | None:
        """The folder of the checkpoint that the run starts from, or None."""
        return self.resume[0] if self.resume is not None else self.weights.parent if self.weights is not None else None


def plan_run(
    load_checkpoint: str | None,
    checkpoint_path: str | None,
    project: str,
    run_name: str | None,
    kind: str,
    config: Mapping[str, Any] | None = None,
    comparable: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    say: Callable[[str], None] = print,
) -> RunPlan:
    """Decide the run folder and the starting point.

    Of a run folder, the newest checkpoint that is whole is taken. Damaged ones that are newer are renamed if the run
    goes on in the same folder.

    Args:
        load_checkpoint: None: start a new run. `latest`: resume the newest checkpoint of this run (found by
            checkpoint_path or run_name, else the project's newest run with the same configuration), or start a new run
            if there is none yet. A train state or a run folder: resume it. A weights file: start a new run from these
            weights.
        checkpoint_path: the run folder, or None for checkpoints/{project}/{run_name}.
        project: project name; like the name of the run, it may name sub-folders, such as `group/name`.
        run_name: run name, or None for a generated one.
        kind: short name of the architecture, for a generated run name.
        config: the whole configuration, by which `latest` recognises a run without a name.
        comparable: converts a saved configuration to the current format, so that the two can be compared.
        say: called with each warning.

    Raises:
        UserError: there is nothing to resume, a new run would overwrite an old one, or it would lie elsewhere than
            below checkpoints/ without a checkpoint_path that says so.
    """
    name = run_name or f"{kind}-{generate_slug(2)}"
    folder = Path(checkpoint_path) if checkpoint_path else _folder_of(project, name)
    new = RunPlan(folder, project, name, new_wandb_id(), note="a new run")

    if load_checkpoint == "latest":
        if checkpoint_path is None and run_name is None:
            folder = _newest_run(RUNS / project, config, comparable, say) or folder
        found = newest_whole_pair(folder, set_aside=True, say=say)
        if found is not None:
            return _resume(folder, *found, folder)
        if any(folder.glob("step_*")):
            raise UserError(
                f"load_checkpoint=latest: {folder} holds weights, but no train state to go on from. To start a new run "
                f"from weights, give load_checkpoint=FILE and another run_name."
            )
        return RunPlan(folder, project, name, new.wandb_id, note=f"no checkpoint in {folder} yet: a new run")
    if load_checkpoint is not None:
        path = Path(load_checkpoint)
        if path.is_dir():
            target = Path(checkpoint_path) if checkpoint_path else path
            found = newest_whole_pair(path, set_aside=target.resolve() == path.resolve(), say=say)
            if found is None:
                raise UserError(f"load_checkpoint={path}: there is no step_<N>{TRAIN_STATE_SUFFIX} in this folder.")
            return _resume(path, *found, target)
        if path.name.endswith(TRAIN_STATE_SUFFIX):
            number = path.name.removeprefix("step_").removesuffix(TRAIN_STATE_SUFFIX)
            if not number.isdigit() or not weights_path(path.parent, int(number)).exists():
                raise UserError(f"load_checkpoint={path}: the weights, step_{number}, must lie beside it.")
            _, state = load_pair(path.parent, int(number))
            return _resume(path.parent, int(number), state, Path(checkpoint_path) if checkpoint_path else path.parent)
        has_state = Path(str(path) + TRAIN_STATE_SUFFIX).exists()
        hint = f" (to go on with its run: load_checkpoint={path}{TRAIN_STATE_SUFFIX})" if has_state else ""
        new = RunPlan(
            folder, project, name, new.wandb_id, weights=path, note=f"a new run from the weights {path}{hint}"
        )
    if any(folder.glob("step_*")):
        raise _taken(folder)
    return new


def _folder_of(project: str, name: str) -> Path:
    return RUNS / safe_path(project, "project_name") / safe_path(name, "run_name")


def _taken(folder: Path) -> UserError:
    return UserError(
        f"{folder} already holds checkpoints. To go on with that run add load_checkpoint=latest; for a new one "
        "choose another run_name or checkpoint_path."
    )


def _resume(source: Path, step: int, state: Mapping[str, Any], folder: Path) -> RunPlan:
    if folder.resolve() != source.resolve() and any(folder.glob("step_*")):
        raise _taken(folder)
    newest = latest_step(folder)
    if newest is not None and newest > step:
        raise UserError(
            f"{folder} holds step {newest} too: going on from step {step} there would mix two runs. Give another "
            f"checkpoint_path for a run that branches off at step {step}, or go on with load_checkpoint=latest."
        )
    run = state.get("run")
    if not isinstance(run, dict) or not all(isinstance(run.get(key), str) for key in ("project", "name", "wandb_id")):
        raise UserError(
            f"{train_state_path(source, step)} does not say of which run it is. Load the weights beside it instead "
            f"(load_checkpoint={weights_path(source, step)}), which starts a new run from them."
        )
    wandb_id = os.environ.get("WANDB_RUN_ID") or run["wandb_id"]
    note = f"going on from step {step} of {source}"
    ended = step if state.get("config", {}).get("max_steps") == step else None
    return RunPlan(folder, run["project"], run["name"], wandb_id, resume=(source, step), note=note, ended=ended)


def _newest_run(
    project: Path,
    config: Mapping[str, Any] | None,
    comparable: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    say: Callable[[str], None],
) -> Path | None:
    states = [path for path in project.glob(f"**/step_*{TRAIN_STATE_SUFFIX}") if path.is_file()]
    for state in sorted(states, key=lambda path: path.stat().st_mtime, reverse=True):
        known = state.parent / "all_config.yaml"
        if config is None:
            return state.parent
        if not known.exists():
            continue
        try:
            before = read_yaml(known)
        except UserError as error:
            say(f"warning: {error}\nwarning: so load_checkpoint=latest cannot tell whether that is this run; to go on "
                f"with it: load_checkpoint={state.parent}")  # fmt: skip
            continue
        if not _changes(comparable(before), comparable(config)):
            return state.parent
    return None


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: f"{key}: {before.get(key)!r} before, {now.get(key)!r} now"
        for key in sorted({*before, *now} - NOT_COMPUTED - {RESOLVED})
        if _comparable_value(key, before, now) != _comparable_value(key, now, now)
    }


def _comparable_value(key: str, config: Mapping[str, Any], now: Mapping[str, Any]) -> Any:
    """The value of a key; folders of data in their absolute spelling.

    Runs of earlier versions saved the dtype that arch.forward_dtype=auto came to, and not what was asked for. So in
    theirs it counts as `auto` if `auto` is asked for now.
    """
    value = config.get(key)
    if key == "arch" and isinstance(value, dict) and RESOLVED not in config:
        asked = (now.get("arch") or {}).get("forward_dtype")
        return {**value, "forward_dtype": "auto"} if asked == "auto" else value
    if key in ("data_paths", "data_paths_test") and isinstance(value, list):
        return [os.path.realpath(path) for path in value]
    return value


def _is_only_longer(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a changed key only lengthens a run: its steps so far had the rates and the depth of the longer run."""
    constant = before.get("lr_min_ratio") == now.get("lr_min_ratio") == 1 and not now.get("lr_warmup_ratio")
    constant = constant and not (now.get("arch") or {}).get("depth_curriculum")
    return key in ("epochs", "max_sequences") and constant and key in before and now[key] > before[key]


def read_divergences(folder: Path) -> list[dict[str, Any]]:
    """What `utils.divergence` has recorded in a run folder, in order; empty if the run has never diverged.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / DIVERGENCES_FILE
    if not path.exists():
        return []
    mend = "Remove it: then the run leaves out no steps until it diverges again."
    entries = read_json(path, mend)
    keys = {"first": int, "last": int, "skipped": bool}
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(type(entry.get(key)) is kind for key, kind in keys.items()) for entry in entries
    ):
        raise UserError(f"{path}: expected a list of objects with first, last and skipped. {mend}")
    return entries


def skipped_steps(folder: Path) -> frozenset[int]:
    """The steps that the run in `folder` leaves out, because it diverged there before."""
    ranges = [range(entry["first"], entry["last"] + 1) for entry in read_divergences(folder) if entry["skipped"]]
    return frozenset(step for steps in ranges for step in steps)


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any], fixed: tuple[str, ...]) -> list[str]:
    """The changes in the configuration of a resumed run, one line of text for each key.

    At a constant learning rate, a run may become longer.

    Raises:
        UserError: one of the `fixed` keys, on which the state depends, has changed.
    """
    changes = _changes(before, now)
    refused = [line for key, line in changes.items() if key in fixed and not _is_only_longer(key, before, now)]
    if refused:
        raise UserError(
            "the checkpoint was made with other settings:\n  " + "\n  ".join(refused) + "\nA resumed run must keep "
            "them; load the weights alone (load_checkpoint=.../step_<N>) to start a new run with other settings."
        )
    return list(changes.values())
