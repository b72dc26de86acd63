"""TRM with six reasoning latents (arXiv 2510.04871, ablation "one latent per step").

With S = z_L1 + ... + z_L6, taken anew before each update, a cycle is

    for i = 1 .. L_cycles    z_Li = f(S ; z_H + x)
    once                     z_H  = f(z_H ; S)

H_cycles cycles a step, all but the last without gradient.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.act import ACTModel
from models.inner import InnerModel, Level, ReasonerConfig
from models.layers import Rotation

NUM_LATENTS = 6


class SixLatentConfig(ReasonerConfig):
    """As TRM, with at most one inner cycle per latent."""

    L_cycles: int = Field(default=6, ge=1, le=NUM_LATENTS)


class SixLatentInner(InnerModel):
    """The recursion of TRM with six reasoning latents."""

    config_class = SixLatentConfig
    states: ClassVar = {"z_H": "H_init"} | {f"z_L{i}": f"L{i}_init" for i in range(1, NUM_LATENTS + 1)}

    def __init__(self, config: ReasonerConfig):
        super().__init__(config)
        self.L_level = Level(config, config.L_layers, self.positions)

    def cycle(self, z: dict[str, Tensor], x: Tensor, rotation: Rotation | None) -> dict[str, Tensor]:
        z = dict(z)
        for i in range(1, self.config.L_cycles + 1):
            z[f"z_L{i}"] = self.L_level(_sum_of_latents(z), z["z_H"] + x, rotation)
        z["z_H"] = self.L_level(z["z_H"], _sum_of_latents(z), rotation)
        return z

    def recurse(self, z: dict[str, Tensor], x: Tensor, rotation: Rotation | None) -> dict[str, Tensor]:
        with torch.no_grad():
            for _ in range(self.config.H_cycles - 1):
                z = self.cycle(z, x, rotation)
        return self.cycle(z, x, rotation)


def _sum_of_latents(z: dict[str, Tensor]) -> Tensor:
    total = z["z_L1"]
    for i in range(2, NUM_LATENTS + 1):
        total = total + z[f"z_L{i}"]
    return total


class SixLatentModel(ACTModel):
    """Six-latent TRM with adaptive computation time."""

    inner_class = SixLatentInner


TinyRecursiveReasoningModel_ACTV1 = SixLatentModel  # the published identifier
