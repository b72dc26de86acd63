"""The parts around the recursion that all architectures share: input embedding, initial states, output heads.

An architecture for puzzles subclasses `PuzzleInnerModel`, adds its levels, and writes its formula in `recurse`.
`models.text.model` does the same for text.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.grid_rotary import GridRotaryEmbedding
from models.layers import (
    Block,
    CastedEmbedding,
    CastedLinear,
    RotaryEmbedding,
    cast_once,
    recomputed,
    trunc_normal_,
)
from models.recipes.config import RecipeConfig
from models.recipes.depth import RecursionDepth
from models.recipes.latent_noise import latent_update
from models.sparse_embedding import SparsePuzzleEmbedding
from models.view import View
from utils.constants import MAX_ACT_STEPS

FORWARD_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


class RecursionConfig(RecipeConfig):
    """The keys that all architectures have. Unknown keys are ignored here, as in the published code."""

    model_config = ConfigDict(extra="ignore")

    # names of keys in published configurations -> their names here
    published_names: ClassVar[dict[str, str]] = {}
    # values in the architecture's configuration file that differ from the defaults of this class
    yaml_values: ClassVar[dict[str, Any]] = {}
    # keys without effect that published configurations contain
    unused: ClassVar[tuple[str, ...]] = ("H_layers",)

    # filled in from the data
    vocab_size: int = Field(ge=1)
    """Size of the vocabulary."""
    seq_len: int = Field(ge=1)
    """Tokens per example."""

    # filled in from the run
    recompute: bool = False
    """Keep only the input of each block for the backward pass, which recomputes the rest."""

    hidden_size: int = Field(default=512, ge=1, le=65_536)
    """Width of the latents."""
    num_heads: int = Field(default=8, ge=1, le=65_536)
    """Attention heads, each hidden_size // num_heads wide."""
    H_layers: int = Field(default=0, ge=0, le=1000)
    """Layers of the level that updates the answer."""
    L_layers: int = Field(default=2, ge=0, le=1000)
    """Layers of the level that updates the reasoning latent; in TRM, of the only level."""
    H_cycles: int = Field(default=3, ge=1, le=10_000)
    """Updates of the answer per step; all but the last run without gradient."""
    L_cycles: int = Field(default=6, ge=1, le=10_000)
    """Updates of the reasoning latent per update of the answer."""
    rope_theta: float = Field(default=10000.0, gt=0, le=1e12)
    """Base of the rotary frequencies."""
    rms_norm_eps: float = Field(default=1e-5, ge=0, le=1)
    """Added to the mean square in RMS norms."""
    forward_dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    """Dtype that the recursion computes in; auto: one that is fast on the device. Weights stay in float32."""
    halt_max_steps: int = Field(default=16, ge=1, le=MAX_ACT_STEPS)
    """Maximum number of ACT steps of an example."""
    halt_exploration_prob: float = Field(default=0.1, ge=0, le=1)
    """Probability, in training, that an example must take a random number of steps before it may halt."""

    @property
    def has_rotary_positions(self) -> bool:
        """Whether queries and keys are rotated by their positions."""
        return True

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        names = cls.published_names
        return {names.get(key, key): value for key, value in values.items()} if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _there_are_steps_to_improve_over(self) -> Self:
        if self.deep_improvement and self.halt_max_steps == 1:
            raise ValueError("deep_improvement: it takes halt_max_steps of at least 2, or the only target is the label")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size < self.num_heads:
            raise ValueError(f"num_heads {self.num_heads}: at most hidden_size, {self.hidden_size}")
        if self.has_rotary_positions and (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} // num_heads {self.num_heads} is odd: "
                "pos_encodings=rope needs heads of even width"
            )
        return self


class ReasonerConfig(RecursionConfig):
    """The keys that all architectures for puzzles share. Keys that an architecture does not use have no effect."""

    yaml_values: ClassVar[dict[str, Any]] = {"puzzle_emb_ndim": "${.hidden_size}", "puzzle_emb_len": 16}

    # filled in from the data
    num_puzzle_identifiers: int = Field(default=1, ge=1)
    """Rows of the puzzle embedding."""
    batch_size: int | None = None
    """Published configurations contain it; nothing here depends on it."""

    expansion: float = Field(default=4.0, gt=0, le=1024)
    """Sets the inner width of each SwiGLU: two thirds of expansion * hidden_size, rounded up to a multiple of 256."""
    pos_encodings: Literal["rope", "learned", "none"] = "rope"
    """Position encoding: rope (rotary), learned (an embedding), or none."""
    mlp_t: bool = False
    """Mix positions with an MLP instead of attention."""
    puzzle_emb_ndim: int = Field(default=0, ge=0, le=1 << 20)
    """Width of the puzzle embedding; 0: none."""
    puzzle_emb_len: int = Field(default=0, ge=0, le=65_536)
    """Tokens that the puzzle embedding occupies before the question; 0: as many as its width needs."""
    no_ACT_continue: bool = True
    """Halt on q_halt > 0; false: also learn the value of continuing, and halt on q_halt > q_continue."""

    @property
    def has_rotary_positions(self) -> bool:
        return self.pos_encodings == "rope" and not self.mlp_t

    @model_validator(mode="after")
    def _puzzle_embedding_fits(self) -> Self:
        if self.puzzle_emb_len and self.puzzle_emb_len * self.hidden_size < self.puzzle_emb_ndim:
            raise ValueError(
                f"puzzle_emb_ndim {self.puzzle_emb_ndim} does not fit in puzzle_emb_len {self.puzzle_emb_len} tokens "
                f"of hidden_size {self.hidden_size}: use puzzle_emb_len=0 to have it computed"
            )
        return self


class Level(nn.Module):
    """`f(z; injection) = layers(z + injection)`: a stack of blocks. [batch, positions, hidden] -> the same.

    With `config.recompute`, only the input of each block is kept for the backward pass, which recomputes the rest.
    """

    def __init__(self, config: RecursionConfig, num_layers: int, positions: int):
        super().__init__()
        self.recompute = config.recompute
        self.layers = nn.ModuleList(self.make_block(config, positions) for _ in range(num_layers))

    def make_block(self, config: RecursionConfig, positions: int) -> nn.Module:
        """One layer, called with (h, view)."""
        assert isinstance(config, ReasonerConfig)
        return Block(
            config.hidden_size,
            config.num_heads,
            config.expansion,
            positions,
            config.mlp_t,
            config.rms_norm_eps,
            config.gated_unit,
        )

    def forward(self, z: Tensor, injection: Tensor | None, view: View) -> Tensor:
        return run_layers(self.layers, z if injection is None else z + injection, view, self.recompute)


def run_layers(layers: Iterable[nn.Module], h: Tensor, view: View, recompute: bool, *more: Tensor) -> Tensor:
    """h [batch, positions, hidden] after all layers, each of which is called with (h, view, *more).

    With `recompute`, the backward pass recomputes each of them.
    """
    recompute = recompute and torch.is_grad_enabled()
    for layer in layers:
        h = recomputed(layer, h, view, *more) if recompute else layer(h, view, *more)
    return h


class InnerModel(nn.Module):
    """Embeds the question, runs the recursion, and reads the answer and the halting logits from the answer state.

    Class attributes of an architecture:
        config_class: the pydantic model of its configuration.
        states: name of each latent in the carry -> name of its initial vector (None: it has none, and the architecture
            says how it starts); the heads read the first latent.
        ties_embedding: whether the output head shares the table of the token embedding.

    Attributes:
        prefix_len: positions before the question.
        positions: number of all positions, with the prefix.
        puzzle_emb: the puzzle embedding, or None.
        compares_continue: whether a slot halts on q_halt > q_continue (else on q_halt > 0).
        trains_continue: whether q_continue is trained.
        depth: the cycles that `recurse` runs.
        updates: a module for each latent, through which `recurse` passes each new value of it; without noise on the
            latents it has no effect.
    """

    config_class: ClassVar[type[RecursionConfig]] = RecursionConfig
    states: ClassVar[Mapping[str, str | None]]
    ties_embedding: ClassVar[bool] = False

    def __init__(self, config: RecursionConfig):
        super().__init__()
        self.config = config
        self.dtype = FORWARD_DTYPES[config.forward_dtype]
        hidden, std = config.hidden_size, config.hidden_size**-0.5

        self.embed_tokens = CastedEmbedding(config.vocab_size, hidden, std, self.dtype)
        self.lm_head = None if self.ties_embedding else CastedLinear(hidden, config.vocab_size)
        self.q_head = CastedLinear(hidden, 2, bias=True)
        # start close to "never halt", so that slots halt only once the model has learned it
        with torch.no_grad():
            self.q_head.weight.zero_()
            assert self.q_head.bias is not None
            self.q_head.bias.fill_(-5)
        self.compares_continue = self.trains_continue = False
        self.depth = RecursionDepth(config.H_cycles, config.L_cycles)

        self.prefix_len = 0
        self.positions = config.seq_len
        self.puzzle_emb: SparsePuzzleEmbedding | None = None
        self.rotary: RotaryEmbedding | GridRotaryEmbedding | None = None
        self.add_positions()

        # each new value of a latent passes through its module, where a recorder may listen (models.recorder)
        self.updates = nn.ModuleDict({name: latent_update(config.latent_noise) for name in self.states})
        for init in filter(None, self.states.values()):
            self.register_buffer(init, trunc_normal_(torch.empty(hidden), std=1).to(self.dtype))

    def add_positions(self) -> None:
        """Set up the prefix, the number of positions and the position encoding; here only rotary angles."""
        config = self.config
        self.rotary = RotaryEmbedding(config.hidden_size // config.num_heads, self.positions, config.rope_theta)

    # -- decided by the architecture --------------------------------------------------------------------------------

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        """The architecture's formula: new latents from the latents and the embedded question, all of the same shape."""
        raise NotImplementedError

    def halts_early(self, training: bool) -> bool:
        """Whether slots may halt before halt_max_steps. Here only in training; in evaluation they take all steps."""
        return training

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks that the recursion passes through: here the layers of all levels."""
        levels = [module for module in self.modules() if isinstance(module, Level)]
        return [block for level in levels for block in level.layers]

    # -- shared -----------------------------------------------------------------------------------------------------

    def empty_states(self, rows: int, device: torch.device, positions: int | None = None) -> dict[str, Tensor]:
        """Latents [rows, positions, hidden] of slots that wait for an example; `positions`: None means all of them."""
        shape = (rows, positions or self.positions, self.config.hidden_size)
        return {name: torch.zeros(shape, dtype=self.dtype, device=device) for name in self.states}

    def reset_states(self, z: dict[str, Tensor], halted: Tensor) -> dict[str, Tensor]:
        """`z` with the initial vector at every position of the slots that have halted."""
        where = halted.view(-1, 1, 1)
        starts = {name: getattr(self, init) for name, init in self.states.items() if init is not None}
        return {name: torch.where(where, start.to(self.dtype), z[name]) for name, start in starts.items()}

    def embed(self, data: dict[str, Tensor]) -> Tensor:
        """`sqrt(hidden) * token embeddings`, [batch, positions, hidden]."""
        return self.config.hidden_size**0.5 * self.embed_tokens(data["inputs"].int())

    def logits(self, answer: Tensor) -> Tensor:
        """The logits read from the answer state: [..., hidden] -> [..., vocab]."""
        if self.lm_head is None:
            return F.linear(answer, self.embed_tokens.embedding_weight.to(answer.dtype))
        return self.lm_head(answer)

    def forward(
        self, z: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """One supervised step: (new latents, logits [batch, seq, vocab], q_halt and q_continue, fp32 [batch])."""
        with cast_once(self, self.dtype):
            z = self.recurse(z, self.embed(data), View(self.rotary() if self.rotary is not None else None))
        answer = z[next(iter(self.states))]
        q_halt, q_continue = self.q_head(answer[:, 0]).float().unbind(-1)
        return z, self.logits(answer)[:, self.prefix_len :], q_halt, q_continue


class PuzzleInnerModel(InnerModel):
    """An inner model for puzzles, with a puzzle embedding before the question and a choice of position encodings."""

    config_class: ClassVar[type[RecursionConfig]] = ReasonerConfig
    config: ReasonerConfig

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        self.compares_continue = self.trains_continue = not self.config.no_ACT_continue and config.halts_by_head

    def add_positions(self) -> None:
        config = self.config
        # as many tokens as configured, or as the embedding needs
        needed = -(-config.puzzle_emb_ndim // config.hidden_size)
        self.prefix_len = config.puzzle_emb_len or needed if needed else 0
        if config.puzzle_emb_ndim > 0:
            self.puzzle_emb = SparsePuzzleEmbedding(config.num_puzzle_identifiers, config.puzzle_emb_ndim, self.dtype)
        self.positions = self.prefix_len + config.seq_len
        self.embed_pos: CastedEmbedding | None = None
        if config.pos_encodings == "rope":
            super().add_positions()
        elif config.pos_encodings == "learned":
            hidden = config.hidden_size
            self.embed_pos = CastedEmbedding(self.positions, hidden, hidden**-0.5, self.dtype)

    def embed(self, data: dict[str, Tensor]) -> Tensor:
        """`sqrt(hidden) * [puzzle embedding tokens ; token embeddings]`, [batch, positions, hidden]."""
        hidden = self.config.hidden_size
        x = self.embed_tokens(data["inputs"].int())
        if self.puzzle_emb is not None:
            rows = self.puzzle_emb(data["puzzle_identifiers"])
            rows = F.pad(rows, (0, self.prefix_len * hidden - rows.shape[-1]))
            x = torch.cat((rows.view(-1, self.prefix_len, hidden), x), dim=1)
        if self.embed_pos is not None:
            # 1 / sqrt(2) scales the variance of the sum back to that of one term
            x = 0.707106781 * (x + self.embed_pos.embedding_weight.to(self.dtype))
        return hidden**0.5 * x
