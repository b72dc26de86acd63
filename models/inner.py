"""What surrounds the recursion in every architecture: input embedding, initial states, output heads.

An architecture subclasses `InnerModel`, adds its levels, and writes its formula in `recurse`.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.layers import (
    Block,
    CastedEmbedding,
    CastedLinear,
    RotaryEmbedding,
    Rotation,
    cast_once,
    recomputed,
    trunc_normal_,
)
from models.sparse_embedding import SparsePuzzleEmbedding

FORWARD_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


class ReasonerConfig(BaseModel):
    """Keys that all architectures share; those an architecture does not use are accepted and ignored."""

    model_config = ConfigDict(extra="ignore")

    # the data, filled in by the trainer
    vocab_size: int = Field(ge=1)
    seq_len: int = Field(ge=1)
    num_puzzle_identifiers: int = Field(default=1, ge=1)
    batch_size: int | None = None  # published configurations hold it; nothing here depends on it

    # the network
    hidden_size: int = Field(default=512, ge=1)
    num_heads: int = Field(default=8, ge=1)
    expansion: float = Field(default=4.0, gt=0)
    H_layers: int = Field(default=0, ge=0)
    L_layers: int = Field(default=2, ge=0)
    H_cycles: int = Field(default=3, ge=1)
    L_cycles: int = Field(default=6, ge=1)
    pos_encodings: Literal["rope", "learned", "none"] = "rope"
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    mlp_t: bool = False
    forward_dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"

    # the puzzle embedding
    puzzle_emb_ndim: int = Field(default=0, ge=0)
    puzzle_emb_len: int = Field(default=0, ge=0)  # 0: as many tokens as the embedding needs

    # adaptive computation time
    halt_max_steps: int = Field(default=16, ge=1)
    halt_exploration_prob: float = Field(default=0.1, ge=0, le=1)
    no_ACT_continue: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "ReasonerConfig":
        if self.hidden_size < self.num_heads:
            raise ValueError(f"num_heads {self.num_heads}: at most hidden_size, {self.hidden_size}")
        if self.pos_encodings == "rope" and not self.mlp_t and (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} // num_heads {self.num_heads} is odd: "
                "pos_encodings=rope needs heads of even width"
            )
        if self.puzzle_emb_len and self.puzzle_emb_len * self.hidden_size < self.puzzle_emb_ndim:
            raise ValueError(
                f"puzzle_emb_ndim {self.puzzle_emb_ndim} does not fit in puzzle_emb_len {self.puzzle_emb_len} tokens "
                f"of hidden_size {self.hidden_size}: use puzzle_emb_len=0 to have it computed"
            )
        return self


class Level(nn.Module):
    """`f(z; injection) = layers(z + injection)`: a stack of blocks. [batch, positions, hidden] -> the same.

    With `recomputes` nothing is kept for the backward pass but what enters each block; it computes the rest again.
    """

    def __init__(self, config: ReasonerConfig, num_layers: int, positions: int):
        super().__init__()
        self.recomputes = False
        self.layers = nn.ModuleList(self.make_block(config, positions) for _ in range(num_layers))

    def make_block(self, config: ReasonerConfig, positions: int) -> nn.Module:
        """One layer, called with (h, rotation)."""
        return Block(
            config.hidden_size, config.num_heads, config.expansion, positions, config.mlp_t, config.rms_norm_eps
        )

    def forward(self, z: Tensor, injection: Tensor | None, rotation: Rotation | None) -> Tensor:
        h = z if injection is None else z + injection
        recomputes = self.recomputes and torch.is_grad_enabled()
        for layer in self.layers:
            h = recomputed(layer, h, rotation) if recomputes else layer(h, rotation)
        return h


class InnerModel(nn.Module):
    """Embeds the question, recurses, reads the answer and the halting logits off the answer state.

    Class attributes of an architecture:
        config_class: its pydantic model.
        states: carry name of each latent -> name of its initial vector; the first is the one the heads read.
        ties_embedding: whether the answer is read with the table of the token embedding, in place of a head of its own.
    """

    config_class: ClassVar[type[ReasonerConfig]] = ReasonerConfig
    states: ClassVar[dict[str, str]]
    ties_embedding: ClassVar[bool] = False

    def __init__(self, config: ReasonerConfig):
        super().__init__()
        self.config = config
        self.dtype = FORWARD_DTYPES[config.forward_dtype]
        hidden, std = config.hidden_size, config.hidden_size**-0.5

        self.embed_tokens = CastedEmbedding(config.vocab_size, hidden, std, self.dtype)
        self.lm_head = None if self.ties_embedding else CastedLinear(hidden, config.vocab_size)
        self.q_head = CastedLinear(hidden, 2, bias=True)
        # close to "never halt": halting starts only where it is learned
        with torch.no_grad():
            self.q_head.weight.zero_()
            assert self.q_head.bias is not None
            self.q_head.bias.fill_(-5)

        # whether a slot halts on q_halt > q_continue (else on q_halt > 0), and whether q_continue gets a target
        self.compares_continue = not config.no_ACT_continue
        self.trains_continue = self.compares_continue

        self.prefix_len = self._prefix_len()
        self.puzzle_emb: SparsePuzzleEmbedding | None = None
        if config.puzzle_emb_ndim > 0:
            self.puzzle_emb = SparsePuzzleEmbedding(config.num_puzzle_identifiers, config.puzzle_emb_ndim, self.dtype)
        self.positions = self.prefix_len + config.seq_len

        self.rotary: RotaryEmbedding | None = None
        self.embed_pos: CastedEmbedding | None = None
        if config.pos_encodings == "rope":
            self.rotary = RotaryEmbedding(hidden // config.num_heads, self.positions, config.rope_theta)
        elif config.pos_encodings == "learned":
            self.embed_pos = CastedEmbedding(self.positions, hidden, std, self.dtype)

        for init in self.states.values():
            self.register_buffer(init, trunc_normal_(torch.empty(hidden), std=1).to(self.dtype))

    # -- what an architecture decides -------------------------------------------------------------------------------

    def recurse(self, z: dict[str, Tensor], x: Tensor, rotation: Rotation | None) -> dict[str, Tensor]:
        """The architecture's formula: new latents from the latents and the embedded question, all of one shape."""
        raise NotImplementedError

    def _prefix_len(self) -> int:
        """Number of puzzle embedding tokens before the question."""
        needed = -(-self.config.puzzle_emb_ndim // self.config.hidden_size)
        return self.config.puzzle_emb_len or needed if needed else 0

    def halts_early(self, training: bool) -> bool:
        """Whether slots may halt before halt_max_steps. In evaluation every slot makes all its steps."""
        return training

    # -- shared -----------------------------------------------------------------------------------------------------

    def empty_states(self, rows: int, device: torch.device) -> dict[str, Tensor]:
        """Latents [rows, positions, hidden] of slots that wait for an example."""
        shape = (rows, self.positions, self.config.hidden_size)
        return {name: torch.zeros(shape, dtype=self.dtype, device=device) for name in self.states}

    def reset_states(self, z: dict[str, Tensor], halted: Tensor) -> dict[str, Tensor]:
        """`z` with the initial vector at every position of the slots that have halted."""
        where = halted.view(-1, 1, 1)
        return {
            name: torch.where(where, getattr(self, init).to(self.dtype), z[name]) for name, init in self.states.items()
        }

    def embed(self, data: dict[str, Tensor]) -> Tensor:
        """`sqrt(hidden) * [puzzle embedding tokens ; token embeddings]`, [batch, positions, hidden]."""
        x = self.embed_tokens(data["inputs"].int())
        if self.puzzle_emb is not None:
            rows = self.puzzle_emb(data["puzzle_identifiers"])
            rows = F.pad(rows, (0, self.prefix_len * self.config.hidden_size - rows.shape[-1]))
            x = torch.cat((rows.view(-1, self.prefix_len, self.config.hidden_size), x), dim=1)
        if self.embed_pos is not None:
            # the sum of two is scaled back to the variance of one
            x = 0.707106781 * (x + self.embed_pos.embedding_weight.to(self.dtype))
        return self.config.hidden_size**0.5 * x

    def logits(self, answer: Tensor) -> Tensor:
        """[..., hidden] of the answer state -> [..., vocab]."""
        if self.lm_head is None:
            return F.linear(answer, self.embed_tokens.embedding_weight.to(answer.dtype))
        return self.lm_head(answer)

    def forward(
        self, z: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """One supervised step: (new latents, logits [batch, seq, vocab], q_halt and q_continue, fp32 [batch])."""
        with cast_once(self, self.dtype):
            z = self.recurse(z, self.embed(data), self.rotary() if self.rotary is not None else None)
        answer = z[next(iter(self.states))]
        q_halt, q_continue = self.q_head(answer[:, 0]).float().unbind(-1)
        return z, self.logits(answer)[:, self.prefix_len :], q_halt, q_continue
