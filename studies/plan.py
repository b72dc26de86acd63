"""The runs of a study: their overrides, their lengths, and the floating-point operations that they take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dataset.building import build_missing_data
from dataset.puzzle_dataset import PuzzleSplit
from dataset.task_choice import task_overrides
from models.factory import complete_arch
from studies.flops import ModelCosts, model_costs
from studies.study_file import Budget, Study
from utils.errors import UserError
from utils.hydra import compose
from utils.run_folder import NOT_COMPUTED
from utils.settings import ArchConfig, PretrainConfig

# what the runs of a study do unless its `base` says otherwise
DEFAULTS = (
    "wandb_mode=disabled", "checkpoint_every_minutes=2", "keep_train_states=1", "eval_traces=0", "show_example=false",
    "report=false",
)  # fmt: skip
SAVED = ("example_index", "labels", "preds")  # of each puzzle in the evaluation
# keys of a configuration that say where and how to compute, or whether to draw, and not what
_NOT_COMPARED = NOT_COMPUTED | {"show_example", "compile", "eval_batch_size", "data_builder", "eval_save_outputs"}
_LATEST = 0.05  # share of a schedule that may lie behind the last step without a note


@dataclass(frozen=True)
class Sizes:
    """What the length and the cost of a run depend on in its data."""

    vocab_size: int
    seq_len: int
    examples_per_epoch: float


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study. What depends on the data is None while they do not exist.

    Attributes:
        arm, seed: which of the runs it is.
        budgets: for which of the study's budgets it counts; the first names it.
        overrides: what pretrain.py gets, but for the run folder.
        config: what it computes, as plain values, by which a change of the study is noticed.
        passes: ACT steps of each puzzle in the evaluation.
        steps: optimizer steps.
        batch_size: examples of a step.
        costs: floating-point operations, and parameters.
    """

    arm: str
    seed: int
    budgets: tuple[Budget, ...]
    overrides: tuple[str, ...]
    config: dict[str, Any]
    passes: int
    steps: int | None
    batch_size: int
    costs: ModelCosts | None

    @property
    def name(self) -> str:
        """The name of its folder below that of all runs."""
        return f"{self.arm}/{self.budgets[0]}-seed_{self.seed}"

    @property
    def training_flops(self) -> int | None:
        """Floating-point operations of the whole training."""
        return self.steps * self.batch_size * self.costs.training if self.steps and self.costs else None


@dataclass(frozen=True)
class Plan:
    """All runs of a study, seed by seed, and what there is to say about them."""

    runs: list[PlannedRun]
    notes: list[str]


def make_plan(study: Study, name: str, build: bool) -> Plan:
    """The runs of a study.

    Args:
        study: the study.
        name: its name, for the names of the runs.
        build: build data sets that are missing; otherwise what depends on them is not known.

    Raises:
        UserError: an arm does not compose, is the same as another, or its data are missing and cannot be built.
    """
    arms = {arm: _compose(arm, [*DEFAULTS, *study.base], spec.overrides) for arm, spec in study.arms.items()}
    _check_different(study, {arm: config for arm, (_, config) in arms.items()})
    if build:
        for _, config in arms.values():
            build_missing_data(config.data_paths, config.data_paths_test, config.data_builder)
    sizes = {arm: _sizes(tuple(config.data_paths)) for arm, (_, config) in arms.items()}
    costs = {arm: _costs(config.arch.model_dump_json(), sizes[arm]) for arm, (_, config) in arms.items()}
    lengths, notes = _lengths(study, {arm: config for arm, (_, config) in arms.items()}, costs)
    missing = sorted({path for arm, (_, config) in arms.items() if sizes[arm] is None for path in config.data_paths})
    if missing:
        notes.append(f"{', '.join(missing)}: not there yet, so the lengths and costs that depend on it are not known")
    runs: list[PlannedRun] = []
    for seed in study.seeds:
        for arm, (overrides, config) in arms.items():
            for budgets, steps in _distinct(lengths[arm]).items():
                own = _own_overrides(study, arm, seed, steps, config, sizes[arm])
                known = _known_config(config, study, arm, seed, own)
                where = (f"project_name=studies/{name}", f"run_name={arm}-{budgets[0]}-seed_{seed}")
                runs.append(
                    PlannedRun(
                        arm,
                        seed,
                        budgets,
                        (*overrides, *own, *where),
                        known,
                        study.passes_of(arm),
                        steps,
                        config.global_batch_size,
                        costs[arm],
                    )
                )
    notes += _notes_on_schedules(runs, arms, sizes)
    return Plan(runs, notes)


def _compose(arm: str, base: Sequence[str], own: Sequence[str]) -> tuple[list[str], PretrainConfig]:
    """The overrides of an arm, of which the last of a key counts, and the settings that they give."""
    by_key = {override.lstrip("+").partition("=")[0]: override for override in [*base, *own]}
    overrides = list(by_key.values())
    try:
        config = compose("cfg_pretrain", task_overrides(list(overrides)))
        return overrides, config.model_copy(update={"arch": complete_arch(config.arch)})
    except UserError as error:
        raise UserError(f"arms.{arm}: {error}") from None


def _check_different(study: Study, configs: dict[str, PretrainConfig]) -> None:
    seen: list[tuple[str, Any]] = []
    for arm, config in configs.items():
        values = _compared(config), study.passes_of(arm)
        for other, before in seen:
            if before == values:
                raise UserError(
                    f"arms.{arm} computes the same as arms.{other}, so there is nothing to compare. Change a setting "
                    "in one of them, or leave one out."
                )
        seen.append((arm, values))


def _compared(config: PretrainConfig) -> dict[str, Any]:
    """The settings that decide what is computed, as plain values of JSON."""
    values = config.model_dump(mode="json")
    return {key: value for key, value in values.items() if key not in _NOT_COMPARED}


@cache
def _sizes(data_paths: tuple[str, ...]) -> Sizes | None:
    if not all(Path(path).exists() for path in data_paths):
        return None
    split = PuzzleSplit(data_paths, "train", check_tokens=False)
    return Sizes(split.metadata.vocab_size, split.metadata.seq_len, split.examples_per_epoch)


@cache
def _costs(arch: str, sizes: Sizes | None) -> ModelCosts | None:
    """The costs of an architecture, as JSON, because many arms have the same."""
    return model_costs(ArchConfig.model_validate_json(arch), sizes.vocab_size, sizes.seq_len) if sizes else None


def _lengths(
    study: Study, configs: dict[str, PretrainConfig], costs: dict[str, ModelCosts | None]
) -> tuple[dict[str, dict[Budget, int | None]], list[str]]:
    """(steps of each arm by budget, None if they are not known; what there is to say about them)."""

    def of_step(arm: str) -> int | None:
        cost = costs[arm]
        return cost.training * configs[arm].global_batch_size if cost is not None else None

    lengths: dict[str, dict[Budget, int | None]] = {arm: {} for arm in configs}
    notes: list[str] = []
    all_flops = (of_step(study.baseline_arm) or 0) * study.steps
    for arm in configs:
        for budget in study.equal:
            steps: int | None = study.steps
            if budget == "flops" and arm != study.baseline_arm:
                flops = of_step(arm)
                steps = max(1, round(all_flops / flops)) if flops and all_flops else None
                if flops and steps and abs(steps * flops / all_flops - 1) > _LATEST:
                    notes.append(f"{arm}: {steps} steps are {steps * flops / all_flops:.0%} of the training FLOPs")
            lengths[arm][budget] = steps
    return lengths, notes


def _distinct(lengths: dict[Budget, int | None]) -> dict[tuple[Budget, ...], int | None]:
    """Budgets with the same number of steps, which share a run -> that number."""
    by_steps: dict[int | None, list[Budget]] = {}
    for budget, steps in lengths.items():
        by_steps.setdefault(steps, []).append(budget)
    return {tuple(budgets): steps for steps, budgets in by_steps.items()}


def _own_overrides(
    study: Study, arm: str, seed: int, steps: int | None, config: PretrainConfig, sizes: Sizes | None
) -> tuple[str, ...]:
    """What the study sets in a run, as far as it is known."""
    length: tuple[str, ...] = ()
    if steps is not None and sizes is not None:
        epochs = math.ceil(steps * config.global_batch_size / sizes.examples_per_epoch)
        length = (f"epochs={epochs}", f"max_steps={steps}")
    examples = "null" if study.examples is None else study.examples
    return (
        f"seed={seed}", *length, "eval_interval=null", f"eval_halt_max_steps={study.passes_of(arm)}",
        "eval_early_halting=false", f"eval_max_examples={examples}", f"eval_save_outputs=[{','.join(SAVED)}]",
    )  # fmt: skip


def _known_config(config: PretrainConfig, study: Study, arm: str, seed: int, own: tuple[str, ...]) -> dict[str, Any]:
    length = {
        key: int(value) for key, _, value in (text.partition("=") for text in own) if key in ("epochs", "max_steps")
    }
    values = _compared(config) | {
        "seed": seed, "eval_interval": None, "eval_halt_max_steps": study.passes_of(arm), "eval_early_halting": False,
        "eval_max_examples": study.examples,
    }  # fmt: skip
    values.pop("epochs")  # that of the experiment does not count
    return values | length


def _notes_on_schedules(
    runs: Sequence[PlannedRun], arms: dict[str, tuple[list[str], PretrainConfig]], sizes: dict[str, Sizes | None]
) -> list[str]:
    """Which arms end well before the end of their schedule, because a schedule spans whole epochs."""
    notes: dict[str, None] = {}
    for run in runs:
        config, of = arms[run.arm][1], sizes[run.arm]
        if run.steps is None or of is None or config.lr_min_ratio == 1:
            continue
        total = int(run.config["epochs"] * of.examples_per_epoch / run.batch_size)
        if run.steps < (1 - _LATEST) * total:
            notes[
                f"{run.arm}: the schedule of the learning rate spans whole epochs, {total} steps, of which "
                f"{run.steps} are made"
            ] = None
    return list(notes)
