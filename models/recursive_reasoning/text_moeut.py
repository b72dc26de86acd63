"""TRM for text whose layers are mixtures of experts: MoEUT's feed-forward and SwitchHead's attention.

The blocks are TRM's post-norm blocks, not the peri-norm ones of MoEUT (arXiv 2405.16039), whose residual
stream is never normalised: that of a recursion would grow from cycle to cycle and from step to step, while behind a
post-norm the latents stay of unit size however often they are fed back. What is kept of it: the *selectors* see a
normalised input, so that the sigmoid scores do not depend on the size of the sum that enters a level; what the experts
compute is not normalised.

The initial standard deviations of the experts, queries, keys and selectors are scaled by sqrt(2 / layers passed in a
step), as in the paper.
"""

from typing import ClassVar

from pydantic import Field, model_validator

from models.inner import Level, ReasonerConfig
from models.recursive_reasoning.text_trm import TextRecursiveInner
from models.text.causal import PostNormBlock
from models.text.model import TextModel, TextModelConfig
from models.text.moe import ExpertAttention, ExpertFeedForward


class TextMoEConfig(TextModelConfig):
    """The defaults are those of the model of 1,084,038 parameters."""

    num_heads: int = Field(default=1, ge=1)
    L_cycles: int = Field(default=7, ge=1)
    halt_max_steps: int = Field(default=1, ge=1)

    num_experts: int = Field(default=8, ge=1)  # of the feed-forward
    expert_size: int = Field(default=192, ge=1)  # inner width of each
    experts_per_token: int = Field(default=2, ge=1)
    num_attention_experts: int = Field(default=2, ge=1)  # for the values of each head, and for its output
    attention_experts_per_token: int = Field(default=1, ge=1)
    ff_entropy_weight: float = Field(default=0.01, ge=0)  # of the balancing regulariser
    attention_entropy_weight: float = Field(default=0.001, ge=0)

    @model_validator(mode="after")
    def _experts_fit(self) -> "TextMoEConfig":
        for chosen, experts in (
            ("experts_per_token", "num_experts"),
            ("attention_experts_per_token", "num_attention_experts"),
        ):
            if getattr(self, chosen) > getattr(self, experts):
                raise ValueError(f"{chosen} {getattr(self, chosen)}: at most {experts}, {getattr(self, experts)}")
        # the grouped matrix product wants rows of whole 16 bytes, in bf16 too
        for name, size in (
            ("hidden_size", self.hidden_size),
            ("hidden_size // num_heads", self.hidden_size // self.num_heads),
            ("expert_size", self.expert_size),
        ):
            if size % 8:
                raise ValueError(f"{name} {size}: experts are computed with widths that are multiples of 8")
        return self


class ExpertLevel(Level):
    """A stack of post-norm blocks of experts."""

    def make_block(self, config: ReasonerConfig, positions: int) -> PostNormBlock:
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
        return PostNormBlock(attention, mlp, eps)


class TextMoEInner(TextRecursiveInner):
    """The recursion of TRM on text, with layers of experts."""

    config_class = TextMoEConfig
    level_class: ClassVar = ExpertLevel


class TextMoEModel(TextModel):
    """Causal TRM of experts with adaptive computation time."""

    inner_class = TextMoEInner
