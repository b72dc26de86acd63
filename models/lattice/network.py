"""The network of the Lattice Deduction Transformer (LDT, arXiv 2605.08605): one stack of blocks in a loop.

A lattice [batch, cells, candidates] of 0 and 1 says which candidates of each cell are alive. With h0 = projection of
the lattice and h = h0, a loop is

    h = h + h0
    o = blocks([h + positions ; CLS])
    h = norm(h + o)

and after each loop three heads read the result: keep and digit from h, conflict from the CLS position of o. Nothing is
carried from one call to the next but the lattice itself. Weights and the stream h are fp32; the matrix products of the
blocks compute in `config.forward_dtype`.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.inner import FORWARD_DTYPES, RecursionConfig
from models.lattice.attention import PackedAttention, RelationAttention, RotaryAttention, linear, relations_of
from models.lattice.board import Board, board_for
from utils.errors import UserError
from utils.machine import COMPILE_OPTIONS

_CLS_STD = 0.02
PUBLISHED = {"hidden_size": 128, "num_heads": 4, "L_layers": 4, "halt_max_steps": 100, "forward_dtype": "float32"}


class LatticeConfig(RecursionConfig, defaults=PUBLISHED):
    """The keys of the LDT, with the published sizes."""

    yaml_values: ClassVar[dict[str, Any]] = {}
    unused: ClassVar[tuple[str, ...]] = ("H_layers", "H_cycles", "L_cycles", "rms_norm_eps", "halt_exploration_prob")
    refused: ClassVar[dict[str, str]] = {
        "gated_unit": "the MLPs of the LDT have no gate; leave it swiglu",
        "latent_noise": "the LDT carries no latents; use dropout, and leave this 0",
        "depth_curriculum": "the LDT has no cycles but n_loops; leave it empty",
        "stop_probability": "examples of the LDT stop when they are solved or in conflict; leave it null",
        "deep_improvement": "each step of the LDT has a target of its own already; leave it false",
        "label_smoothing": "the targets of the LDT are sets of candidates; use keep_weight, and leave this 0",
        "supervision_decay": "lattices of the LDT do not show how many steps led to them; leave it 1",
        "halt_loss_weight": "the LDT has no halting head; use conflict_loss_weight, and leave this 0.5",
    }

    L_layers: int = Field(default=4, ge=1, le=1000)
    """Blocks of the stack."""
    halt_max_steps: int = Field(default=100, ge=1, le=10_000)
    """Deduction steps on an example; one that is still open after more steps is replaced by the next."""
    n_loops: int = Field(default=16, ge=1, le=1000)
    """Passes through the stack per call. All of them are supervised and back-propagated."""
    expansion: float = Field(default=4.0, gt=0, le=1024)
    """Inner width of each MLP, as a multiple of hidden_size."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout in training: of attention probabilities and of the output of each attention and MLP."""
    pos_encodings: Literal["learned", "rope", "relations"] = "learned"
    """Position encoding: learned (an embedding of rows and one of columns, added in each loop), rope (rotary), or
    relations (a bias in the attention for cells that share a row, column or box; for tasks with units)."""

    keep_weight: float = Field(default=4.0, gt=0, le=1e6)
    """Weight, in the loss of the keep head, of candidates to be kept."""
    kill_weight: float = Field(default=0.5, gt=0, le=1e6)
    """Weight, in the loss of the keep head, of candidates to be killed."""
    digit_loss_weight: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the cross-entropy of the digit head; published: 0.2, better by the authors' later runs: 1.0."""
    conflict_loss_weight: float = Field(default=0.1, ge=0, le=1e6)
    """Weight of the loss of the conflict head."""

    kill_threshold: float = Field(default=0.1, gt=0, lt=1)
    """A candidate dies if its probability of being kept is below this."""
    conflict_threshold: float = Field(default=0.5, gt=0, lt=1)
    """A lattice is in conflict if the probability of the conflict head exceeds this, or if a cell is empty."""
    temperature: float = Field(default=1.5, gt=0, le=1000)
    """Temperature at which the digit head draws the candidate of a cell that is decided at random."""
    symmetries: bool | Literal["auto"] = "auto"
    """Apply a random turn of the grid and a random renaming of the symbols in each call, and undo both; auto: those
    that the task has, if any."""

    bare_share: float = Field(default=0.2, ge=0, le=1)
    """Share of training examples that start from the puzzle as it is; the others start with hints."""
    wrong_share: float = Field(default=0.25, ge=0, le=1)
    """Share of training examples some of whose hints are wrong, so that they have no solution."""

    board: Board | None = None
    """Shape, candidates and symmetries of the boards: filled in from the task; null for square grids with as
    many values as rows, whose sizes say it."""

    @property
    def has_rotary_positions(self) -> bool:
        return self.pos_encodings == "rope"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide hidden_size {self.hidden_size}")
        if self.has_rotary_positions and self.hidden_size // self.num_heads % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} // num_heads {self.num_heads}: pos_encodings=rope needs heads whose "
                "width is a multiple of 4"
            )
        if self.bare_share + self.wrong_share > 1:
            raise ValueError(
                f"bare_share {self.bare_share} and wrong_share {self.wrong_share} are more than 1 together"
            )
        return self


class HeadLogits(NamedTuple):
    """What the heads say after one loop, or after all loops with a leading axis [loops]; fp32."""

    keep: Tensor  # [batch, cells, candidates], logits that a candidate is part of a solution
    digit: Tensor  # [batch, cells, candidates], logits of the candidates of each cell
    conflict: Tensor  # [batch], logit that the lattice has no solution


class LatticeNetwork(nn.Module):
    """The looped transformer with its heads. Names of parameters are the published ones.

    Raises:
        UserError: the data are neither of a task with candidates nor a Sudoku, or have no units where these are needed.
    """

    config_class: ClassVar[type[LatticeConfig]] = LatticeConfig
    states: ClassVar[tuple[str, ...]] = ("lattice", "puzzle", "alpha")
    puzzle_emb = None
    prefix_len = 0
    compares_continue = trains_continue = False

    def __init__(self, config: LatticeConfig):
        super().__init__()
        self.config, self.dtype = config, FORWARD_DTYPES[config.forward_dtype]
        self.board = board_for(config.board, config.seq_len, config.vocab_size)
        self.cells, self.candidates = self.board.cells, len(self.board.candidates)
        if config.pos_encodings == "relations" and not self.board.units:
            raise UserError(
                "arch.pos_encodings=relations needs a task with units, such as rows and columns without repeats "
                "(`Task.units`); these data have none. Use learned or rope."
            )
        self.positions = self.cells + 1
        hidden = config.hidden_size
        self.input_proj = nn.Linear(self.candidates, hidden)
        self.backbone = Backbone(config, self.board, self.dtype)
        self.loop_norm = nn.LayerNorm(hidden)
        self.bce_head = nn.Linear(hidden, self.candidates)
        self.softmax_head = nn.Linear(hidden, self.candidates)
        self.conflict_head = nn.Linear(hidden, 1)
        self._compiles = False
        self._compiled: dict[float, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {}

    def empty_states(self, rows: int, device: torch.device) -> dict[str, Tensor]:
        """Lattices without candidates, bool [rows, cells, candidates], of slots that wait for an example."""
        shape = (rows, self.cells, self.candidates)
        return {name: torch.zeros(shape, dtype=torch.bool, device=device) for name in self.states}

    def loop(self, h: Tensor, h0: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
        """One pass: (h [batch, cells, hidden], CLS [batch, hidden])."""
        h = h + h0
        cells, cls = self.backbone(h, dropout)
        return self.loop_norm(h + cells), cls

    def compile_loop(self) -> None:
        """From now on, run each loop as one compiled function. All loops share it."""
        self._compiles = True

    def _loop(self, dropout: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`loop` at one dropout rate, which is a constant for the compiler."""
        if not self._compiles:
            return partial(self.loop, dropout=dropout)
        if dropout not in self._compiled:
            one_loop = partial(self.loop, dropout=dropout)
            self._compiled[dropout] = torch.compile(one_loop, dynamic=False, options=COMPILE_OPTIONS)
        return self._compiled[dropout]

    def heads(self, h: Tensor, cls: Tensor) -> HeadLogits:
        """The logits of the heads, from the cells [..., cells, hidden] and the CLS vector [..., hidden]."""
        return HeadLogits(self.bce_head(h), self.softmax_head(h), self.conflict_head(cls).squeeze(-1))

    def vectors(
        self, lattice: Tensor, dropout: float = 0.0, loops: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(h [batch, cells, hidden], CLS [batch, hidden]) after each loop, for a lattice [batch, cells, candidates].

        Args:
            lattice: bool [batch, cells, candidates].
            dropout: dropout rate.
            loops: the number of loops; None: as in training.
        """
        h0 = self.input_proj(lattice.float())
        h, loop = h0, self._loop(dropout)
        recompute = self.config.recompute and torch.is_grad_enabled()
        for _ in range(loops or self.config.n_loops):
            h, cls = checkpoint(loop, h, h0, use_reentrant=False) if recompute else loop(h, h0)  # pyright: ignore[reportGeneralTypeIssues]
            yield h, cls

    def forward(self, lattice: Tensor, dropout: float = 0.0) -> HeadLogits:
        """The heads after every loop, each with a leading axis [loops]."""
        h, cls = (torch.stack(parts) for parts in zip(*self.vectors(lattice, dropout), strict=True))
        return self.heads(h, cls)

    def last(self, lattice: Tensor, dropout: float = 0.0, loops: int | None = None) -> HeadLogits:
        """The heads after the last loop; see `vectors`."""
        (vectors,) = deque(self.vectors(lattice, dropout, loops), maxlen=1)
        return self.heads(*vectors)


class Backbone(nn.Module):
    """Adds positions, appends CLS behind the cells and runs the blocks. [batch, cells, hidden] -> (cells, CLS)."""

    def __init__(self, config: LatticeConfig, board: Board, dtype: torch.dtype):
        super().__init__()
        hidden, rows, columns = config.hidden_size, board.rows, board.columns
        self.learned = config.pos_encodings == "learned"
        if self.learned:
            self.row_embed, self.col_embed = nn.Embedding(rows, hidden), nn.Embedding(columns, hidden)
            self.register_buffer("row_idx", torch.arange(rows).repeat_interleave(columns))
            self.register_buffer("col_idx", torch.arange(columns).repeat(rows))
        self.cls_embed = nn.Parameter(torch.randn(1, 1, hidden) * _CLS_STD)
        self.cls_pos = nn.Parameter(torch.randn(1, 1, hidden) * _CLS_STD)
        self.layers = nn.ModuleList(LatticeBlock(config, board, dtype) for _ in range(config.L_layers))

    def forward(self, h: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
        if self.learned:
            h = h + self.row_embed(self.row_idx) + self.col_embed(self.col_idx)
        x = torch.cat((h, (self.cls_embed + self.cls_pos).expand(h.shape[0], -1, -1)), dim=1)
        for layer in self.layers:
            x = layer(x, dropout)
        return x[:, :-1], x[:, -1]


class LatticeBlock(nn.Module):
    """Pre-norm block with biases: `x = x + attention(norm(x)); x = x + mlp(norm(x))`, dropout on both sums."""

    def __init__(self, config: LatticeConfig, board: Board, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.norm1, self.norm2 = nn.LayerNorm(config.hidden_size), nn.LayerNorm(config.hidden_size)
        if config.pos_encodings == "rope":
            shape = board.rows, board.columns
            self.attn = RotaryAttention(config.hidden_size, config.num_heads, *shape, config.rope_theta)
        elif config.pos_encodings == "relations":
            self.attn = RelationAttention(config.hidden_size, config.num_heads, relations_of(board))
        else:
            self.attn = PackedAttention(config.hidden_size, config.num_heads)
        self.ffn = MLP(config.hidden_size, int(config.hidden_size * config.expansion))

    def forward(self, x: Tensor, dropout: float) -> Tensor:
        x = x + _drop(self.attn(self.norm1(x).to(self.dtype), dropout), dropout)
        return x + _drop(self.ffn(self.norm2(x).to(self.dtype)), dropout)


class MLP(nn.Module):
    """`fc2(gelu(fc1(x)))`, with the exact GELU."""

    def __init__(self, hidden: int, inner: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(hidden, inner), nn.Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.fc2, F.gelu(linear(self.fc1, x)))


def _drop(x: Tensor, rate: float) -> Tensor:
    return F.dropout(x, rate) if rate else x
