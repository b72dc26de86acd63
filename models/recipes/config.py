"""The recipes of training that architectures have in common, as keys of their configuration (docs/recipes.md).

Each is off by default, and then nothing is computed for it. An architecture for which one makes no sense refuses it.
"""

from itertools import pairwise
from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from utils.schema import Schema

GatedUnit = Literal["swiglu", "rms_gate"]


class DepthStage(Schema):
    """A stage of a depth curriculum: the cycles of a step up to a share of the training."""

    model_config = ConfigDict(extra="forbid")

    until: float = Field(gt=0, lt=1)
    """The share of the training at which the stage ends."""
    H_cycles: int = Field(ge=1, le=10_000)
    """As arch.H_cycles, in this stage."""
    L_cycles: int = Field(ge=1, le=10_000)
    """As arch.L_cycles, in this stage."""


class RecipeConfig(Schema):
    """The keys of the recipes.

    Class attributes of an architecture:
        refused: keys that it cannot take -> why, and what to do instead.
    """

    refused: ClassVar[dict[str, str]] = {}

    gated_unit: GatedUnit = "swiglu"
    """Unit of the MLPs, of a gate g and a value v. swiglu: silu(g) * v, rms_gate: sigmoid(g) * rms_norm(g * v)."""
    latent_noise: float = Field(default=0.0, ge=0, le=100)
    """Standard deviation of the noise that is added, in training, to every new value of a latent."""
    depth_curriculum: list[DepthStage] = Field(default=[])
    """Stages {until, H_cycles, L_cycles} of the training; after the last one, H_cycles and L_cycles of arch hold."""
    stop_probability: float | None = Field(default=None, ge=0, le=1)
    """Probability, in training, that an example stops at a step, whatever the halting head says. null: as it says."""
    deep_improvement: bool = False
    """In training, make all steps, and show at step t only t / halt_max_steps of what the label changes."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target of the token loss, in training, that is spread evenly over the vocabulary."""
    supervision_decay: float = Field(default=1.0, gt=0, le=1)
    """In training, factor of the loss from one step of an example to its next. 1.0: all steps count the same."""
    halt_loss_weight: float = Field(default=0.5, ge=0, le=1e6)
    """Weight of the loss of the halting head."""

    @property
    def halts_by_head(self) -> bool:
        """Whether the halting head has a say in training about when an example is done."""
        return self.stop_probability is None and not self.deep_improvement

    @model_validator(mode="after")
    def _takes_its_recipes(self) -> Self:
        for key, reason in self.refused.items():
            if getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True):
                raise ValueError(f"{key}: {reason}")
        return self

    @model_validator(mode="after")
    def _recipes_go_together(self) -> Self:
        for earlier, later in pairwise(self.depth_curriculum):
            if earlier.until >= later.until:
                raise ValueError(
                    f"depth_curriculum: the stage until {later.until:g} comes after that until {earlier.until:g}; "
                    "give the stages in the order of the training"
                )
        if self.deep_improvement and self.stop_probability is not None:
            raise ValueError(
                "stop_probability: deep_improvement has a target for each of the halt_max_steps steps, so no example "
                "may stop earlier; leave stop_probability null, or deep_improvement false"
            )
        return self
