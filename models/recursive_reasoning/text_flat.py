"""Transformer baseline for text: one pass through H_layers pre-norm blocks, without recursion or halting."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from models.inner import RecursionConfig
from models.layers import rms_norm
from models.text.causal import PreNormBlock
from models.text.model import DenseLevel, DenseTextConfig, TextInner, TextModel, TextModelConfig
from models.view import View

FLAT = {
    "H_layers": 6,
    "L_layers": 0,
    "H_cycles": 1,
    "L_cycles": 1,
    "num_heads": 1,
    "inner_size": 256,
    "halt_exploration_prob": 0.0,
}


class TextTransformerConfig(DenseTextConfig, defaults=FLAT):
    """The defaults give the model with 1,033,346 parameters."""

    unused: ClassVar = ("L_layers", "H_cycles", "L_cycles", "halt_exploration_prob")
    refused: ClassVar = TextModelConfig.refused | {
        "depth_curriculum": "text_flat has no recursion; leave it empty",
        "latent_noise": "text_flat carries no latents; leave it 0",
        "supervision_decay": "text_flat takes one step; leave it 1",
        "halt_loss_weight": "text_flat does not halt; leave it 0.5",
    }

    halt_max_steps: int = Field(default=1, ge=1, le=1)
    """A transformer without recursion takes one step."""


class PreNormLevel(DenseLevel):
    """A stack of pre-norm blocks of causal attention and SwiGLU."""

    block_class: ClassVar = PreNormBlock


class TextTransformerInner(TextInner):
    """The stack and a final norm. The latent is the output; nothing is carried into a step."""

    config_class = TextTransformerConfig
    states: ClassVar = {"z_H": "H_init"}

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        self.H_level = PreNormLevel(config, config.H_layers, self.positions)

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        return {"z_H": rms_norm(self.H_level(x, None, view), self.config.rms_norm_eps)}


class TextTransformer(TextModel):
    """The baseline, as a model with a single ACT step."""

    inner_class = TextTransformerInner
