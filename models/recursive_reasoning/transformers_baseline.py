"""Transformer baseline: a step is one pass through a deeper stack, `z_H = f(z_H ; x)`, without inner cycles.

It has adaptive computation time like the other models (arXiv 2510.04871, published code). With `act_enabled: false`
every slot takes halt_max_steps steps; with `act_inference: true` slots halt adaptively in evaluation too.
"""

from typing import ClassVar, Self

from pydantic import model_validator
from torch import Tensor

from models.act import ACTModel
from models.inner import Level, PuzzleInnerModel, ReasonerConfig, RecursionConfig
from models.view import View

PUBLISHED = {"H_layers": 8, "num_heads": 12, "L_layers": 0, "H_cycles": 1, "L_cycles": 1}


class TransformerConfig(ReasonerConfig, defaults=PUBLISHED):
    """The published sizes: 8 layers, 12 heads of 512 // 12 = 42 (so attention is 504 wide in a model of 512)."""

    yaml_values: ClassVar = {"puzzle_emb_ndim": "${.hidden_size}"}
    unused: ClassVar = ("L_layers", "H_cycles", "L_cycles", "puzzle_emb_len", "no_ACT_continue")
    refused: ClassVar = {"depth_curriculum": "the transformer baseline makes one pass a step; leave it empty"}

    act_enabled: bool = True
    """Halt adaptively in training; false: every example takes halt_max_steps steps."""
    act_inference: bool = False
    """Halt adaptively in evaluation too."""

    @model_validator(mode="after")
    def _examples_may_stop(self) -> Self:
        if self.stop_probability is not None and not self.act_enabled:
            raise ValueError(
                "stop_probability: with act_enabled=false every example takes halt_max_steps steps; leave it null, or "
                "act_enabled true"
            )
        return self


class TransformerInner(PuzzleInnerModel):
    """A plain stack of blocks on one latent."""

    config_class = TransformerConfig
    states: ClassVar = {"z_H": "H_init"}

    def __init__(self, config: RecursionConfig):
        # as published: the embedding takes only the tokens it needs, whatever puzzle_emb_len is
        super().__init__(config.model_copy(update={"puzzle_emb_len": 0}))
        self.compares_continue = config.halts_by_head
        self.trains_continue = False
        self.H_level = Level(config, config.H_layers, self.positions)

    def halts_early(self, training: bool) -> bool:
        assert isinstance(self.config, TransformerConfig)
        return self.config.act_enabled if training else self.config.act_inference

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        return {"z_H": self.updates["z_H"](self.H_level(z["z_H"], x, view))}


class TransformerBaseline(ACTModel):
    """The baseline with adaptive computation time."""

    inner_class = TransformerInner


Model_ACTV2 = TransformerBaseline  # the published identifier
