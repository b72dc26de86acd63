"""Transformer baseline: one pass of a deeper stack a step, `z_H = f(z_H ; x)`, no inner cycles.

With adaptive computation time as the others (arXiv 2510.04871, published code). `act_enabled: false` makes every slot
take halt_max_steps; `act_inference: true` halts adaptively in evaluation too.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from models.act import ACTModel
from models.inner import InnerModel, Level, ReasonerConfig
from models.layers import Rotation


class TransformerConfig(ReasonerConfig):
    """The published sizes: 8 layers, 12 heads of 512 // 12 = 42."""

    H_layers: int = Field(default=8, ge=0)
    num_heads: int = Field(default=12, ge=1)
    act_enabled: bool = True
    act_inference: bool = False


class TransformerInner(InnerModel):
    """A plain stack of blocks on one latent."""

    config_class = TransformerConfig
    states: ClassVar = {"z_H": "H_init"}

    def __init__(self, config: ReasonerConfig):
        # as published: the embedding takes just the tokens it needs, whatever puzzle_emb_len says
        super().__init__(config.model_copy(update={"puzzle_emb_len": 0}))
        self.compares_continue = True
        self.trains_continue = False
        self.H_level = Level(config, config.H_layers, self.positions)

    def halts_early(self, training: bool) -> bool:
        assert isinstance(self.config, TransformerConfig)
        return self.config.act_enabled if training else self.config.act_inference

    def recurse(self, z: dict[str, Tensor], x: Tensor, rotation: Rotation | None) -> dict[str, Tensor]:
        return {"z_H": self.H_level(z["z_H"], x, rotation)}


class TransformerBaseline(ACTModel):
    """The baseline with adaptive computation time."""

    inner_class = TransformerInner


Model_ACTV2 = TransformerBaseline  # the published identifier
