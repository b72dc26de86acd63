"""HRM, the Hierarchical Reasoning Model (arXiv 2506.21734).

Two levels of their own weights, f_H slow and f_L fast. A step makes H_cycles times

    L_cycles times    z_L = f_L(z_L ; z_H + x)
    once              z_H = f_H(z_H ; z_L)

with gradient through the very last update of each level only (the one-step approximation). Halting is learned by
Q-learning, with a continue head.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.act import ACTModel
from models.inner import InnerModel, Level, ReasonerConfig
from models.layers import Rotation


class HierarchicalConfig(ReasonerConfig):
    """The published sizes: 4 + 4 layers, 2 x 2 cycles."""

    H_layers: int = Field(default=4, ge=0)
    L_layers: int = Field(default=4, ge=0)
    H_cycles: int = Field(default=2, ge=1)
    L_cycles: int = Field(default=2, ge=1)


class HierarchicalInner(InnerModel):
    """The recursion of HRM."""

    config_class = HierarchicalConfig
    states: ClassVar = {"z_H": "H_init", "z_L": "L_init"}

    def __init__(self, config: ReasonerConfig):
        # as published: the embedding takes just the tokens it needs, whatever puzzle_emb_len says
        super().__init__(config.model_copy(update={"puzzle_emb_len": 0}))
        self.compares_continue = True
        self.trains_continue = True
        self.H_level = Level(config, config.H_layers, self.positions)
        self.L_level = Level(config, config.L_layers, self.positions)

    def recurse(self, z: dict[str, Tensor], x: Tensor, rotation: Rotation | None) -> dict[str, Tensor]:
        z_H, z_L = z["z_H"], z["z_L"]
        updates = self.config.H_cycles * self.config.L_cycles
        with torch.no_grad():
            for update in range(1, updates):
                z_L = self.L_level(z_L, z_H + x, rotation)
                if update % self.config.L_cycles == 0:
                    z_H = self.H_level(z_H, z_L, rotation)
        z_L = self.L_level(z_L, z_H + x, rotation)
        z_H = self.H_level(z_H, z_L, rotation)
        return {"z_H": z_H, "z_L": z_L}


class HierarchicalReasoningModel(ACTModel):
    """HRM with adaptive computation time."""

    inner_class = HierarchicalInner


HierarchicalReasoningModel_ACTV1 = HierarchicalReasoningModel  # the published identifier
