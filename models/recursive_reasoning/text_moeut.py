"""TRM for text with layers of experts: the feed-forward of MoEUT and the attention of SwitchHead.

The blocks are not the peri-norm blocks of MoEUT (arXiv 2405.16039). MoEUT never normalises the residual stream, so in a
recursion it would grow from cycle to cycle and from step to step; after a post-norm the latents have unit size however
often they are fed back. Of the two kinds with a post-norm, config/arch/text_moeut.yaml chooses the damped blocks of
`text_trm.py`, with which the model learns (docs/text.md); a configuration without the key `block` is of an earlier
version and means TRM's own. As in MoEUT, the input of the *selectors* is normalised, so that the sigmoid scores do not
depend on the size of the sum that enters a level; the input of the experts is not.

The initial standard deviations of the experts, queries, keys and selectors are scaled by sqrt(2 / number of layers
applied in a step), as in the paper.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from models.inner import Level, RecursionConfig
from models.recursive_reasoning.text_trm import TextRecursion
from models.text.causal import DampedBlock, PostNormBlock
from models.text.model import TextModel, TextModelConfig
from models.text.moe import ExpertAttention, ExpertFeedForward

BLOCKS: dict[str, type[PostNormBlock]] = {"damped": DampedBlock, "post-norm": PostNormBlock}
ONE_STEP = {"num_heads": 1, "L_cycles": 7, "halt_max_steps": 1, "halt_exploration_prob": 0.0}


class TextMoEConfig(TextModelConfig, defaults=ONE_STEP):
    """The defaults give the model with 1,084,038 parameters."""

    yaml_values: ClassVar = {"block": "damped"}
    refused: ClassVar = TextModelConfig.refused | {
        "gated_unit": "the experts of text_moeut have relu and no gate; leave it swiglu"
    }

    block: Literal["damped", "post-norm"] = "post-norm"
    """How a block adds to its input: by a fifth of its size (damped), or as in TRM (post-norm)."""
    num_experts: int = Field(default=8, ge=1, le=65_536)
    """Number of experts of the feed-forward."""
    expert_size: int = Field(default=192, ge=1, le=65_536)
    """Inner width of each expert of the feed-forward."""
    experts_per_token: int = Field(default=2, ge=1, le=65_536)
    """Experts of the feed-forward that each token uses."""
    num_attention_experts: int = Field(default=2, ge=1, le=65_536)
    """Number of experts for the values of each head; its output has the same number."""
    attention_experts_per_token: int = Field(default=1, ge=1, le=65_536)
    """Experts that a token uses in each head, for its value and for its output."""
    ff_entropy_weight: float = Field(default=0.01, ge=0, le=1000)
    """Weight of the regulariser that balances the experts of the feed-forward."""
    attention_entropy_weight: float = Field(default=0.001, ge=0, le=1000)
    """Weight of the regulariser that balances the experts of the attention."""

    @model_validator(mode="after")
    def _experts_fit(self) -> "TextMoEConfig":
        for chosen, experts in (
            ("experts_per_token", "num_experts"),
            ("attention_experts_per_token", "num_attention_experts"),
        ):
            if getattr(self, chosen) > getattr(self, experts):
                raise ValueError(f"{chosen} {getattr(self, chosen)}: at most {experts}, {getattr(self, experts)}")
        # the grouped matrix product needs rows of a multiple of 16 bytes, in bf16 too
        for name, size in (
            ("hidden_size", self.hidden_size),
            ("hidden_size // num_heads", self.hidden_size // self.num_heads),
            ("expert_size", self.expert_size),
        ):
            if size % 8:
                raise ValueError(f"{name} {size}: experts are computed with widths that are multiples of 8")
        return self


class ExpertLevel(Level):
    """A stack of blocks of experts."""

    def make_block(self, config: RecursionConfig, positions: int) -> PostNormBlock:
        assert isinstance(config, TextMoEConfig)
        scale = (2 / (config.L_layers * config.H_cycles * (config.L_cycles + 1))) ** 0.5
        width, eps = config.hidden_size, config.rms_norm_eps
        attention = ExpertAttention(
            width,
            config.num_heads,
            config.num_attention_experts,
            config.attention_experts_per_token,
            config.attention_entropy_weight,
            scale,
            eps,
        )
        mlp = ExpertFeedForward(
            width,
            config.num_experts,
            config.expert_size,
            config.experts_per_token,
            config.ff_entropy_weight,
            scale,
            eps,
        )
        return BLOCKS[config.block](attention, mlp, eps)


class TextMoEInner(TextRecursion):
    """The recursion of TRM on text, with layers of experts."""

    config_class = TextMoEConfig
    level_class: ClassVar = ExpertLevel


class TextMoEModel(TextModel):
    """Causal TRM with layers of experts and adaptive computation time."""

    inner_class = TextMoEInner
