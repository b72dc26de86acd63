"""SE-RRM, the Symbol-Equivariant Recurrent Reasoning Model (arXiv 2603.02193).

The state z has a plane for each symbol c, z[c, s] for position s, and so has the question x, whose only non-zero plane
at a position is that of its symbol (besides what belongs to the position):

    x[c, s] = sqrt(symbols) * [input at s is c] * e_c + position[s]

All ordinary symbols share one vector e and one output row, so that permuting them in the question permutes the planes
of the state and the logits of the answer in the same way. Special symbols, such as a blank, have vectors of their own.
There is one level, whose blocks mix positions within a plane, then planes at a position, then channels:

    h = norm(h + attention over positions(h))
    h = norm(h + attention over symbols(h))
    h = norm(h + swiglu(h))

and a step computes H_cycles * L_cycles times `z = layers(z + x)`, with a gradient through the last L_cycles of them.
There is no halting head: in training a slot halts by chance, in evaluation it makes all its steps.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.act import ACTModel, draw_random_stops
from models.attention import attend
from models.grid_rotary import GridRotaryEmbedding, grid_sides
from models.inner import FORWARD_DTYPES, Level, ReasonerConfig, RecursionConfig
from models.layers import Attention, CastedLinear, RotaryEmbedding, SwiGLU, cast_once, rms_norm, trunc_normal_
from models.recipes.depth import RecursionDepth
from models.recipes.latent_noise import latent_update
from models.sparse_embedding import SparsePuzzleEmbedding
from models.view import Rotation, View


class SymbolConfig(ReasonerConfig, defaults={"hidden_size": 256}):
    """The published sizes: 2 layers of width 256, 3 x 4 passes."""

    yaml_values: ClassVar = {}
    unused: ClassVar = ("H_layers", "mlp_t", "puzzle_emb_len", "no_ACT_continue")
    refused: ClassVar = {
        "stop_probability": "SE-RRM always stops by chance; set halt_exploration_prob, and leave this null",
        "halt_loss_weight": "SE-RRM has no halting head to train; leave it 0.5",
    }

    H_cycles: int = Field(default=3, ge=1, le=10_000)
    """Groups of passes per step; all but the last run without gradient."""
    L_cycles: int = Field(default=4, ge=1, le=10_000)
    """Passes of a group."""
    num_heads: int = Field(default=4, ge=1, le=65_536)
    """Heads of the attention over positions."""
    head_dim: int = Field(default=64, ge=1, le=65_536)
    """Width of a head of the attention over positions."""
    num_heads_t: int = Field(default=2, ge=1, le=65_536)
    """Heads of the attention over symbols."""
    head_dim_t: int = Field(default=64, ge=1, le=65_536)
    """Width of a head of the attention over symbols."""
    pos_encodings: Literal["rope", "rope2d", "learned"] = "rope2d"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Position encoding: rope (rotary), rope2d (rotary, by row and column), or learned (an embedding)."""
    board_height: int | None = Field(default=None, ge=1)
    """With rope2d, rows of the grid; null: as many as it takes, square if board_width is null too."""
    board_width: int | None = Field(default=None, ge=1)
    """With rope2d, columns of the grid; null: as many as it takes."""
    equivariant_symbols: bool = True
    """Treat all ordinary symbols alike; false: each has a vector and an output of its own."""
    special_symbols: int = Field(default=2, ge=1, le=65_536)
    """With equivariant_symbols, how many tokens, from 0 on, are no ordinary symbols: padding, blank, end of a row."""
    add_tokens: int = Field(default=0, ge=0, le=65_536)
    """Trained tokens behind the positions of the question, in each plane."""
    puzzle_emb_ndim: int = Field(default=0, ge=0, le=1 << 20)
    """Whether there is a puzzle embedding, 0: no; its width is hidden_size plus the number of symbols."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of attention probabilities in training."""
    dropout_in_evaluation: bool = False
    """Apply the dropout in evaluation too, as the published code does."""
    q_halt_is_probability: bool = False
    """Report as halting logit the probability that the answer is right, as the published code does, not its logit."""
    halt_exploration_prob: float = Field(default=0.1, ge=0, le=1)
    """Probability, in training, that an example halts at a step."""

    @property
    def has_rotary_positions(self) -> bool:
        return False  # the width of heads does not follow from hidden_size; see below

    @model_validator(mode="after")
    def _fits(self) -> Self:
        multiple = {"rope": 2, "rope2d": 4, "learned": 1}[self.pos_encodings]
        if self.head_dim % multiple:
            raise ValueError(
                f"head_dim {self.head_dim}: pos_encodings={self.pos_encodings} needs a multiple of {multiple}"
            )
        if self.mlp_t:
            raise ValueError("mlp_t: SE-RRM mixes positions by attention; leave it false")
        if not self.no_ACT_continue:
            raise ValueError(
                "no_ACT_continue: SE-RRM has no halting head, so it cannot learn to continue; leave it true"
            )
        return self


class SymbolAttention(Attention):
    """Attention with heads of any width, and dropout of its probabilities."""

    def __init__(self, hidden_size: int, num_heads: int, head_dim: int, dropout: float, in_evaluation: bool):
        super().__init__(hidden_size, num_heads, head_dim)
        self.dropout, self.in_evaluation = dropout, in_evaluation

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        if self.dropout and (self.training or self.in_evaluation):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout)
        return attend(q, k, v)


class SymbolBlock(nn.Module):
    """Attention over positions, attention over symbols, SwiGLU; see above. [batch, symbols, positions, hidden]."""

    def __init__(self, config: SymbolConfig):
        super().__init__()
        hidden, dropout = config.hidden_size, (config.dropout, config.dropout_in_evaluation)
        self.eps = config.rms_norm_eps
        self.attn = SymbolAttention(hidden, config.num_heads, config.head_dim, *dropout)
        self.attn_t = SymbolAttention(hidden, config.num_heads_t, config.head_dim_t, *dropout)
        self.mlp = SwiGLU(hidden, config.expansion, unit=config.gated_unit)

    def forward(self, h: Tensor, view: View) -> Tensor:
        h = rms_norm(h + self.attn(h.flatten(0, 1), view).view_as(h), self.eps)
        by_position = h.transpose(1, 2)
        mixed = self.attn_t(by_position.flatten(0, 1), View()).view_as(by_position)
        return self.mlp.sublayer(rms_norm(h + mixed.transpose(1, 2), self.eps), self.eps)


class SymbolLevel(Level):
    """A stack of blocks on planes of symbols."""

    def make_block(self, config: RecursionConfig, positions: int) -> nn.Module:
        assert isinstance(config, SymbolConfig)
        return SymbolBlock(config)


class SymbolInner(nn.Module):
    """Embeds the question in planes, runs the recursion, and reads the answer. Names of parameters are published ones.

    Raises:
        UserError: the grid of `rope2d` has not the cells of the data.
    """

    config_class: ClassVar[type[SymbolConfig]] = SymbolConfig
    states: ClassVar = {"z": "Z_init"}
    prefix_len = 0
    compares_continue = trains_continue = False

    def __init__(self, config: SymbolConfig):
        super().__init__()
        self.config, self.dtype = config, FORWARD_DTYPES[config.forward_dtype]
        self.symbols, self.cells, hidden = config.vocab_size, config.seq_len, config.hidden_size
        self.columns = self.cells + config.add_tokens
        self.positions = self.symbols * self.columns  # latent vectors of an example
        self.puzzle_emb: SparsePuzzleEmbedding | None = None
        if config.puzzle_emb_ndim:
            width = hidden + self.symbols
            self.puzzle_emb = SparsePuzzleEmbedding(config.num_puzzle_identifiers, width, self.dtype)

        special = min(config.special_symbols, self.symbols)
        if config.equivariant_symbols:
            self.embed_special_tokens = _vectors(1, special, 1, hidden)
            self.embed_symbol_tokens = _vectors(1, 1, 1, hidden)
        else:
            self.embed_symbols = _vectors(1, self.symbols, 1, hidden)
        if config.add_tokens and config.equivariant_symbols:
            self.add_tokens_special = _vectors(1, special, config.add_tokens, hidden)
        if config.add_tokens:
            shared = 1 if config.equivariant_symbols else self.symbols
            self.add_tokens = _vectors(1, shared, config.add_tokens, hidden)
        self.rotary: RotaryEmbedding | GridRotaryEmbedding | None = None
        if config.pos_encodings == "learned":
            self.pos_embedding = _vectors(1, 1, self.cells, hidden)
        elif config.pos_encodings == "rope":
            self.rotary = RotaryEmbedding(config.head_dim, self.cells, config.rope_theta)
        else:
            sides = grid_sides(self.cells, config.board_height, config.board_width)
            self.rotary = GridRotaryEmbedding(config.head_dim, *sides, config.rope_theta, "quarters")
        self.L_level = SymbolLevel(config, config.L_layers, self.columns)
        outputs = (hidden, 1) if config.equivariant_symbols else (self.symbols * hidden, self.symbols)
        self.lm_head = CastedLinear(*outputs)
        self.depth, self.update = RecursionDepth(config.H_cycles, config.L_cycles), latent_update(config.latent_noise)
        self.register_buffer("Z_init", trunc_normal_(torch.empty(hidden), std=1).to(self.dtype))

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks that the recursion passes through."""
        return list(self.L_level.layers)

    def empty_states(self, rows: int, device: torch.device, positions: int | None = None) -> dict[str, Tensor]:
        """z [rows, symbols, positions, hidden] of slots that wait for an example."""
        shape = (rows, self.symbols, self.columns, self.config.hidden_size)
        return {"z": torch.zeros(shape, dtype=self.dtype, device=device)}

    def reset_states(self, z: dict[str, Tensor], halted: Tensor) -> dict[str, Tensor]:
        """`z` with the initial vector everywhere in the slots that have halted."""
        start = self.get_buffer("Z_init").to(self.dtype)
        return {"z": torch.where(halted.view(-1, 1, 1, 1), start, z["z"])}

    def embed(self, data: Mapping[str, Tensor]) -> Tensor:
        """The question, [batch, symbols, positions, hidden]."""
        config = self.config
        if config.equivariant_symbols:
            vectors = self._planes(self.embed_special_tokens, self.embed_symbol_tokens)
        else:
            vectors = self.embed_symbols
        symbols = torch.arange(self.symbols, device=data["inputs"].device)
        present = data["inputs"].unsqueeze(1) == symbols.view(-1, 1)  # [batch, symbols, cells]
        x = torch.where(present.unsqueeze(-1), self.symbols**0.5 * vectors.to(self.dtype), 0)
        if config.pos_encodings == "learned":
            x = x + self.pos_embedding.to(self.dtype)
        if self.puzzle_emb is not None:
            of_all, of_plane = self.puzzle_emb(data["puzzle_identifiers"]).split([config.hidden_size, self.symbols], 1)
            x = x + of_all[:, None, None, :] + of_plane[:, :, None, None]
        if config.add_tokens:
            added = self.add_tokens
            if config.equivariant_symbols:
                added = self._planes(self.add_tokens_special, added)
            x = torch.cat((x, added.to(self.dtype).expand(len(x), -1, -1, -1)), dim=2)
        return x

    def _planes(self, special: Tensor, shared: Tensor) -> Tensor:
        """The vectors of all planes, [1, symbols, n, hidden], from those of the special symbols and of the others."""
        return torch.cat((special, shared.expand(-1, self.symbols - special.shape[1], -1, -1)), dim=1)

    def canonical_order(self, inputs: Tensor) -> Tensor:
        """The order in which the planes are computed, int64 [batch, symbols], the same for questions that are alike.

        Sums over symbols depend on their order in the last bits. So that permuting the ordinary symbols permutes the
        logits exactly, they are taken in the order of their first occurrence, behind the special ones.
        """
        symbols = torch.arange(self.symbols, device=inputs.device).expand(len(inputs), -1)
        if not self.config.equivariant_symbols:
            return symbols
        present = inputs.unsqueeze(1) == symbols.unsqueeze(2)  # [batch, symbols, cells]
        first = torch.where(present.any(-1), present.to(torch.uint8).argmax(-1), self.cells)
        special = self.embed_special_tokens.shape[1]
        return torch.where(symbols < special, symbols - special, first).argsort(dim=1, stable=True)

    def view(self) -> View:
        """The positions of a plane; added tokens are not rotated."""
        if self.rotary is None:
            return View()
        angles, added = self.rotary(), self.config.add_tokens
        padded = (F.pad(angles.cos, (0, 0, 0, added), value=1.0), F.pad(angles.sin, (0, 0, 0, added)))
        return View(Rotation(*padded, angles.sections))

    def passes(self, z: Tensor, x: Tensor, view: View) -> Tensor:
        """L_cycles passes: the new z, [batch, symbols, positions, hidden], as are z and x."""
        for _ in range(self.depth.L_cycles):
            z = self.update(self.L_level(z, x, view))
        return z

    def logits(self, z: Tensor) -> Tensor:
        """[batch, symbols, positions, hidden] -> [batch, cells, symbols]."""
        z = z[:, :, : self.cells]
        if self.config.equivariant_symbols:
            return self.lm_head(z).squeeze(-1).transpose(1, 2)
        return self.lm_head(z.transpose(1, 2).flatten(2))

    def forward(
        self, states: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """One supervised step, see `models.inner.InnerModel.forward`.

        The halting logit belongs to the probability of the least certain token; it has no gradient.
        """
        with cast_once(self, self.dtype):
            order = self.canonical_order(data["inputs"])
            x, view, z = _in_order(self.embed(data), order), self.view(), _in_order(states["z"], order)
            with torch.no_grad():
                for _ in range(self.depth.H_cycles - 1):
                    z = self.passes(z, x, view)
            z = self.passes(z, x, view)
        back = order.argsort(1)
        logits, z = _in_order(self.logits(z).mT, back).mT, _in_order(z, back)
        with torch.no_grad():
            sure = logits.float().softmax(-1).amax(-1).amin(-1)
            q_halt = sure if self.config.q_halt_is_probability else torch.logit(sure, eps=1e-6)
        return {"z": z}, logits, q_halt, -q_halt


def _in_order(planes: Tensor, order: Tensor) -> Tensor:
    """The planes [batch, symbols, ...] in the order [batch, symbols]."""
    return planes[torch.arange(len(planes), device=planes.device).unsqueeze(1), order]


def _vectors(*shape: int) -> nn.Parameter:
    return nn.Parameter(trunc_normal_(torch.empty(*shape), std=1))


class SymbolEquivariantModel(ACTModel):
    """SE-RRM with supervised steps, whose number is a matter of chance in training."""

    inner_class: ClassVar[Any] = SymbolInner

    def draw_min_steps(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """0 for a slot that halts at this step, drawn anew at each step; else the maximum number of steps."""
        return draw_random_stops(rows, self.config.halt_max_steps, self.config.halt_exploration_prob, generator)

    def own_stops(self, outputs: Mapping[str, Tensor], steps: Tensor, min_steps: Tensor | None, limit: int) -> Tensor:
        """In training the slots whose time has come, in evaluation none."""
        if not self.training:
            return torch.zeros_like(steps, dtype=torch.bool)
        return steps >= self.min_steps(steps, min_steps)


SERRM = SymbolEquivariantModel  # the published identifier
