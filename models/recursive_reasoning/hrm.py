"""HRM, the Hierarchical Reasoning Model (arXiv 2506.21734).

Two levels with weights of their own, f_H (slow) and f_L (fast). A step repeats H_cycles times

    L_cycles times    z_L = f_L(z_L ; z_H + x)
    once              z_H = f_H(z_H ; z_L)

with a gradient only through the last update of each level (the one-step approximation). Halting is learned by
Q-learning, with a continue head.
"""

from typing import ClassVar

import torch
from torch import Tensor

from models.act import ACTModel
from models.inner import Level, PuzzleInnerModel, ReasonerConfig, RecursionConfig
from models.view import View


class HierarchicalConfig(ReasonerConfig, defaults={"H_layers": 4, "L_layers": 4, "H_cycles": 2, "L_cycles": 2}):
    """The published sizes: 4 + 4 layers, 2 x 2 cycles."""

    yaml_values: ClassVar = {"puzzle_emb_ndim": "${.hidden_size}"}
    unused: ClassVar = ("puzzle_emb_len", "no_ACT_continue")


class HierarchicalInner(PuzzleInnerModel):
    """The recursion of HRM."""

    config_class = HierarchicalConfig
    states: ClassVar = {"z_H": "H_init", "z_L": "L_init"}

    def __init__(self, config: RecursionConfig):
        # as published: the embedding takes only the tokens it needs, whatever puzzle_emb_len is
        super().__init__(config.model_copy(update={"puzzle_emb_len": 0}))
        self.compares_continue = self.trains_continue = config.halts_by_head
        self.H_level = Level(config, config.H_layers, self.positions)
        self.L_level = Level(config, config.L_layers, self.positions)

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        z_H, z_L = z["z_H"], z["z_L"]
        updates = self.depth.H_cycles * self.depth.L_cycles
        with torch.no_grad():
            for update in range(1, updates):
                z_L = self.updates["z_L"](self.L_level(z_L, z_H + x, view))
                if update % self.depth.L_cycles == 0:
                    z_H = self.updates["z_H"](self.H_level(z_H, z_L, view))
        z_L = self.updates["z_L"](self.L_level(z_L, z_H + x, view))
        z_H = self.updates["z_H"](self.H_level(z_H, z_L, view))
        return {"z_H": z_H, "z_L": z_L}


class HierarchicalReasoningModel(ACTModel):
    """HRM with adaptive computation time."""

    inner_class = HierarchicalInner


HierarchicalReasoningModel_ACTV1 = HierarchicalReasoningModel  # the published identifier
