"""TRM, the Tiny Recursive Model (arXiv 2510.04871).

One level f of its own weights, two latents: the answer z_H and the reasoning z_L. A cycle is

    L_cycles times    z_L = f(z_L ; z_H + x)
    once              z_H = f(z_H ; z_L)

and a step makes H_cycles cycles, all but the last without gradient. x is the embedded question, and
f(a ; b) = layers(a + b).
"""

from typing import ClassVar

import torch
from torch import Tensor

from models.act import ACTModel
from models.inner import InnerModel, Level, ReasonerConfig
from models.layers import Rotation


class TinyRecursiveInner(InnerModel):
    """The recursion of TRM."""

    states: ClassVar = {"z_H": "H_init", "z_L": "L_init"}
    level_class: ClassVar[type[Level]] = Level

    def __init__(self, config: ReasonerConfig):
        super().__init__(config)
        self.L_level = self.level_class(config, config.L_layers, self.positions)

    def cycle(self, z_H: Tensor, z_L: Tensor, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        for _ in range(self.config.L_cycles):
            z_L = self.L_level(z_L, z_H + x, rotation)
        return self.L_level(z_H, z_L, rotation), z_L

    def recurse(self, z: dict[str, Tensor], x: Tensor, rotation: Rotation | None) -> dict[str, Tensor]:
        z_H, z_L = z["z_H"], z["z_L"]
        with torch.no_grad():
            for _ in range(self.config.H_cycles - 1):
                z_H, z_L = self.cycle(z_H, z_L, x, rotation)
        z_H, z_L = self.cycle(z_H, z_L, x, rotation)
        return {"z_H": z_H, "z_L": z_L}


class TinyRecursiveModel(ACTModel):
    """TRM with adaptive computation time."""

    inner_class = TinyRecursiveInner


TinyRecursiveReasoningModel_ACTV1 = TinyRecursiveModel  # the published identifier
