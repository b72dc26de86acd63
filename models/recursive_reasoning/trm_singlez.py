"""TRM with a single latent z (arXiv 2510.04871, ablation "single z"), which is both answer and reasoning.

A cycle is L_cycles times `z = f(z + x)` and once `z = f(z)`. A step runs H_cycles cycles, all but the last without
gradient.
"""

from typing import ClassVar

import torch
from torch import Tensor

from models.act import ACTModel
from models.inner import Level, PuzzleInnerModel, RecursionConfig
from models.view import View


class SingleLatentInner(PuzzleInnerModel):
    """The recursion of TRM with one latent."""

    states: ClassVar = {"z_L": "L_init"}

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        self.L_level = Level(config, config.L_layers, self.positions)

    def cycle(self, z: Tensor, x: Tensor, view: View) -> Tensor:
        """One cycle: the new z, [batch, positions, hidden], as are z and x."""
        for _ in range(self.depth.L_cycles):
            z = self.updates["z_L"](self.L_level(z, x, view))
        return self.updates["z_L"](self.L_level(z, None, view))

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        z_L = z["z_L"]
        with torch.no_grad():
            for _ in range(self.depth.H_cycles - 1):
                z_L = self.cycle(z_L, x, view)
        return {"z_L": self.cycle(z_L, x, view)}


class SingleLatentModel(ACTModel):
    """Single-latent TRM with adaptive computation time."""

    inner_class = SingleLatentInner


TinyRecursiveReasoningModel_ACTV1 = SingleLatentModel  # the published identifier
