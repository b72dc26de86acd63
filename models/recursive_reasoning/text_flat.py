"""Transformer baseline for text: H_layers pre-norm blocks of their own weights, passed once; no recursion, no halt."""

from typing import ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from models.inner import ReasonerConfig
from models.layers import Rotation, rms_norm
from models.text.causal import PreNormBlock
from models.text.model import DenseLevel, TextInner, TextModel, TextModelConfig


class TextTransformerConfig(TextModelConfig):
    """The defaults are those of the model of 1,033,346 parameters."""

    H_layers: int = Field(default=6, ge=0)
    num_heads: int = Field(default=1, ge=1)
    inner_size: int | None = Field(default=256, ge=1)
    halt_max_steps: int = Field(default=1, ge=1)
    halt_exploration_prob: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _is_flat(self) -> "TextTransformerConfig":
        if self.halt_max_steps != 1:
            raise ValueError(f"halt_max_steps={self.halt_max_steps}: a transformer without recursion makes one step, 1")
        return self


class PreNormLevel(DenseLevel):
    """A stack of pre-norm blocks of causal attention and SwiGLU."""

    block_class: ClassVar = PreNormBlock


class TextTransformerInner(TextInner):
    """The stack and its last norm; the latent is what comes out, and starts from nothing."""

    config_class = TextTransformerConfig
    states: ClassVar = {"z_H": "H_init"}

    def __init__(self, config: ReasonerConfig):
        super().__init__(config)
        self.H_level = PreNormLevel(config, config.H_layers, self.positions)

    def recurse(self, z: dict[str, Tensor], x: Tensor, rotation: Rotation | None) -> dict[str, Tensor]:
        return {"z_H": rms_norm(self.H_level(x, None, rotation), self.config.rms_norm_eps)}


class TextTransformer(TextModel):
    """The baseline, in the place of a model with one step."""

    inner_class = TextTransformerInner
