"""TRM, the Tiny Recursive Model (arXiv 2510.04871).

There is one level f and two latents, the answer z_H and the reasoning z_L. A cycle is

    L_cycles times    z_L = f(z_L ; z_H + x)
    once              z_H = f(z_H ; z_L)

and a step runs H_cycles cycles, all but the last without gradient. x is the embedded question, and
f(a ; b) = layers(a + b).
"""

from typing import ClassVar

import torch
from torch import Tensor

from models.act import ACTModel
from models.inner import InnerModel, Level, PuzzleInnerModel, RecursionConfig
from models.view import View


class TinyRecursion(InnerModel):
    """The recursion of TRM, on puzzles and on text."""

    states: ClassVar = {"z_H": "H_init", "z_L": "L_init"}
    level_class: ClassVar[type[Level]] = Level

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        self.L_level = self.level_class(config, config.L_layers, self.positions)

    def cycle(self, z_H: Tensor, z_L: Tensor, x: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """One cycle: new (z_H, z_L), [batch, positions, hidden] each, as are z_H, z_L and x."""
        injection = z_H + x
        for _ in range(self.depth.L_cycles):
            z_L = self.updates["z_L"](self.call_level(z_L, injection, view))
        return self.updates["z_H"](self.call_level(z_H, z_L, view)), z_L

    def call_level(self, z: Tensor, injection: Tensor, view: View) -> Tensor:
        """`f(z ; injection)`, [batch, positions, hidden]."""
        return self.L_level(z, injection, view)

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        z_H, z_L = z["z_H"], z["z_L"]
        with torch.no_grad():
            for _ in range(self.depth.H_cycles - 1):
                z_H, z_L = self.cycle(z_H, z_L, x, view)
        z_H, z_L = self.cycle(z_H, z_L, x, view)
        return {"z_H": z_H, "z_L": z_L}


class TinyRecursiveInner(TinyRecursion, PuzzleInnerModel):
    """The recursion of TRM on puzzles."""


class TinyRecursiveModel(ACTModel):
    """TRM with adaptive computation time."""

    inner_class = TinyRecursiveInner


TinyRecursiveReasoningModel_ACTV1 = TinyRecursiveModel  # the published identifier
