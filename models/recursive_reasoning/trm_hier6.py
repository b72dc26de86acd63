"""TRM with six reasoning latents (arXiv 2510.04871, ablation "one latent per step").

With S = z_L1 + ... + z_L6, recomputed before each update, a cycle is

    for i = 1 .. L_cycles    z_Li = f(S ; z_H + x)
    once                     z_H  = f(z_H ; S)

A step runs H_cycles cycles, all but the last without gradient.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.act import ACTModel
from models.inner import Level, PuzzleInnerModel, ReasonerConfig, RecursionConfig
from models.view import View

NUM_LATENTS = 6


class SixLatentConfig(ReasonerConfig):
    """As in TRM, with at most one inner cycle per latent."""

    L_cycles: int = Field(default=6, ge=1, le=NUM_LATENTS)
    """Reasoning latents updated per update of the answer."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        for stage in self.depth_curriculum:
            if stage.L_cycles > NUM_LATENTS:
                raise ValueError(
                    f"depth_curriculum: L_cycles {stage.L_cycles}: at most {NUM_LATENTS}, one for each latent"
                )
        return self


class SixLatentInner(PuzzleInnerModel):
    """The recursion of TRM with six reasoning latents."""

    config_class = SixLatentConfig
    states: ClassVar = {"z_H": "H_init"} | {f"z_L{i}": f"L{i}_init" for i in range(1, NUM_LATENTS + 1)}

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        self.L_level = Level(config, config.L_layers, self.positions)

    def cycle(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        """One cycle: the new latents, [batch, positions, hidden] each, as are those in `z` and x."""
        z = dict(z)
        for i in range(1, self.depth.L_cycles + 1):
            name = f"z_L{i}"
            z[name] = self.updates[name](self.L_level(_sum_of_latents(z), z["z_H"] + x, view))
        z["z_H"] = self.updates["z_H"](self.L_level(z["z_H"], _sum_of_latents(z), view))
        return z

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        with torch.no_grad():
            for _ in range(self.depth.H_cycles - 1):
                z = self.cycle(z, x, view)
        return self.cycle(z, x, view)


def _sum_of_latents(z: dict[str, Tensor]) -> Tensor:
    total = z["z_L1"]
    for i in range(2, NUM_LATENTS + 1):
        total = total + z[f"z_L{i}"]
    return total


class SixLatentModel(ACTModel):
    """Six-latent TRM with adaptive computation time."""

    inner_class = SixLatentInner


TinyRecursiveReasoningModel_ACTV1 = SixLatentModel  # the published identifier
