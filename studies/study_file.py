"""Study files: what a study compares, as YAML (docs/studies.md)."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, field_validator, model_validator

from utils.config import read_yaml, validate
from utils.constants import MAX_ACT_STEPS, MAX_SEED
from utils.errors import UserError, did_you_mean
from utils.file_names import safe_name
from utils.hydra import CONFIG_DIR
from utils.settings import Settings

Budget = Literal["steps", "flops"]
# keys of a run that its study sets
OWN_KEYS = (
    "seed", "epochs", "max_steps", "eval_interval", "eval_halt_max_steps", "eval_early_halting", "eval_max_examples",
    "eval_save_outputs", "checkpoint_path", "run_name", "project_name", "load_checkpoint",
)  # fmt: skip
_STUDIES = CONFIG_DIR / "study"


class Arm(Settings):
    """One of the experiments that are compared. A list of overrides stands for an arm with these."""

    overrides: list[str] = Field(default=[])
    """What it changes, as on the command line of pretrain.py."""
    passes: int | None = Field(default=None, ge=1, le=MAX_ACT_STEPS)
    """Passes in its evaluation, where they mean something else than in the other arms. null: as the study says."""


class Scale(Settings):
    """What differs at a scale, such as on a GPU. Keys that are not given stay as they are."""

    base: list[str] = Field(default=[])
    """Overrides for all arms, after those of the study."""
    seeds: list[int] | None = None
    """As in the study."""
    steps: int | None = Field(default=None, ge=1)
    """As in the study."""
    passes: int | None = Field(default=None, ge=1, le=MAX_ACT_STEPS)
    """As in the study."""
    examples: int | None = Field(default=None, ge=1)
    """As in the study."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_of_seeds(cls, value: Any) -> Any:
        return seeds_of(value)


class Study(Settings):
    """A study: arms x seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: list[str] = Field(default=[])
    """Overrides for all arms, as on the command line of pretrain.py."""
    arms: dict[str, Arm] = Field(min_length=2)
    """The experiments by name."""
    baseline: str | None = None
    """The arm that the others are compared with. null: the first."""
    seeds: list[int] = Field(min_length=1)
    """Seeds of each arm; a number n stands for 0 to n - 1."""
    steps: int = Field(ge=1, le=10**9)
    """Optimizer steps of the baseline."""
    equal: list[Budget] = Field(default=["steps"], min_length=1)
    """What every arm gets as much of as the baseline: steps, training flops, or one after the other."""
    passes: int = Field(default=16, ge=1, le=MAX_ACT_STEPS)
    """ACT steps of each puzzle in the evaluation: every arm is evaluated at the same depth."""
    examples: int | None = Field(default=None, ge=1)
    """Evaluate on so many puzzles, the same for all. null: on all."""
    claims: dict[str, str] = Field(default={})
    """What others report, such as {"paper, Table 1": "trm > no_ema"}, to be confirmed or denied."""
    scales: dict[str, Scale] = Field(default={})
    """The study at other scales, by name."""
    scale: str | None = None
    """The scale that is used if none is asked for. null: the study as it is."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_of_seeds(cls, value: Any) -> Any:
        return seeds_of(value)

    @field_validator("equal", mode="before")
    @classmethod
    def _one_budget(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("arms", mode="before")
    @classmethod
    def _lists_are_arms(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: arm if isinstance(arm, dict) else {"overrides": arm or []} for name, arm in value.items()}

    @model_validator(mode="after")
    def _names_fit(self) -> "Study":
        for name in self.arms:
            safe_name(name, "arms")
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(f"baseline: there is no arm {self.baseline!r}.{did_you_mean(self.baseline, self.arms)}")
        for what, values in (("seeds", self.seeds), ("equal", self.equal)):
            if len(set(values)) < len(values):
                raise ValueError(f"{what}: {list(values)} names one of them twice")
        if not all(0 <= seed <= MAX_SEED for seed in self.seeds):
            raise ValueError(f"seeds: {self.seeds}: they must lie between 0 and {MAX_SEED}")
        for title, claim in self.claims.items():
            pair = claim_pair(claim)
            if pair is None or pair[0] == pair[1] or not set(pair) <= set(self.arms):
                known = "" if pair is None else "".join(did_you_mean(arm, self.arms) for arm in pair)
                raise ValueError(f"claims: {title}: {claim!r}: write 'ARM > OTHER' with two arms of this study.{known}")
        return self

    @property
    def baseline_arm(self) -> str:
        """The name of the arm that the others are compared with."""
        return self.baseline or next(iter(self.arms))

    def passes_of(self, arm: str) -> int:
        """Passes in the evaluation of an arm."""
        return self.arms[arm].passes or self.passes


def seeds_of(value: Any) -> Any:
    """The seeds that a number of seeds stands for; other values as they are."""
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


def claim_pair(claim: str) -> tuple[str, str] | None:
    """(the arm that is claimed to be better, the other), or None if the text is no claim."""
    better, sign, other = claim.partition(">")
    return (better.strip(), other.strip()) if sign and better.strip() and other.strip() else None


def read_study(path: Path, scale: str | None = None) -> Study:
    """Read a study file, at one of its scales.

    Args:
        path: the file.
        scale: one of its scales; None: the one that it names, or none.

    Raises:
        UserError: it cannot be read, has a key twice or an unknown one, or its values do not fit together.
    """
    if not path.exists() and not path.suffix and "/" not in str(path):
        known = sorted(file.stem for file in _STUDIES.glob("*.yaml"))
        raise UserError(
            f"{path} does not exist (from {Path.cwd()}). Give a study file, such as config/study/{known[0]}.yaml."
            f"{did_you_mean(str(path), known)}"
        )
    values = read_yaml(path)
    twice = _key_given_twice(yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader))
    if twice is not None:
        raise UserError(f"{path}: {twice} is there twice, and one would replace the other. Give each its own name.")
    try:
        study = validate(Study, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for where, overrides in _all_overrides(study):
        _check_overrides(f"{path}: {where}", overrides)
    return _at_scale(study, scale, path)


def _key_given_twice(node: yaml.Node | None, where: str = "") -> str | None:
    """The first key that a mapping has twice, with the keys above it."""
    if isinstance(node, yaml.SequenceNode):
        return next((found for item in node.value if (found := _key_given_twice(item, where))), None)
    if not isinstance(node, yaml.MappingNode):
        return None
    seen: set[str] = set()
    for key, value in node.value:
        name = f"{where}{key.value}"
        if name in seen:
            return name
        seen.add(name)
        found = _key_given_twice(value, f"{name}.")
        if found is not None:
            return found
    return None


def _all_overrides(study: Study) -> list[tuple[str, list[str]]]:
    found = [("base", study.base), *((f"arms.{name}", arm.overrides) for name, arm in study.arms.items())]
    return [*found, *((f"scales.{name}.base", scale.base) for name, scale in study.scales.items())]


def _check_overrides(where: str, overrides: list[str]) -> None:
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in OWN_KEYS:
            instead = {"seed": "seeds", "epochs": "steps", "max_steps": "steps", "eval_halt_max_steps": "passes",
                       "eval_max_examples": "examples"}.get(key)  # fmt: skip
            how = f"Give {instead} in the study file" if instead else "Leave it out"
            raise UserError(f"{where}: {override}: the study itself sets {key}. {how}.")
        if override.startswith("-"):
            raise UserError(f"{where}: {override}: only settings of the form KEY=VALUE can be given here.")


def _at_scale(study: Study, scale: str | None, path: Path) -> Study:
    name = scale or study.scale
    if name is None:
        return study
    if name not in study.scales:
        has = f"It has {', '.join(study.scales)}" if study.scales else "It has none"
        raise UserError(f"{path} has no scale {name!r}. {has}.{did_you_mean(name, study.scales)}")
    chosen = study.scales[name]
    changed = {key: value for key in ("seeds", "steps", "passes", "examples") if (value := getattr(chosen, key))}
    return study.model_copy(update={**changed, "base": [*study.base, *chosen.base], "scale": name})
