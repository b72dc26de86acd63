"""URM, the Universal Reasoning Model (UbiquantAI/URM).

There is one state z, which is both answer and reasoning, and the embedded question x is added before every pass through
the layers:

    H_cycles * L_cycles times    z = layers(z + x)

with a gradient through the last L_cycles passes only (truncated backpropagation through loops). In the layers a short
convolution stands between the two products of the SwiGLU, so that a position sees the one before it:

    ConvSwiGLU(h) = down(silu(conv(silu(gate(h)) * up(h))))        conv(u)[t] = w0 * u[t - 1] + w1 * u[t] + b
"""

from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.act import ACTModel
from models.inner import PuzzleInnerModel, ReasonerConfig, RecursionConfig, run_layers
from models.layers import Block, SwiGLU
from models.recipes.config import GatedUnit
from models.silu import silu
from models.view import View


class UniversalConfig(ReasonerConfig):
    """The published sizes: 4 layers, 2 x 6 passes."""

    published_names: ClassVar = {"num_layers": "L_layers", "loops": "halt_max_steps"}
    yaml_values: ClassVar = {"puzzle_emb_ndim": "${.hidden_size}"}
    unused: ClassVar = ("H_layers", "mlp_t")

    L_layers: int = Field(default=4, ge=0, le=1000)
    """Layers that a pass goes through."""
    H_cycles: int = Field(default=2, ge=1, le=10_000)
    """Groups of passes per step; all but the last run without gradient."""
    L_cycles: int = Field(default=6, ge=1, le=10_000)
    """Passes of a group."""

    @model_validator(mode="after")
    def _has_attention(self) -> Self:
        if self.mlp_t:
            raise ValueError("mlp_t: the blocks of URM have attention and no MLP over the positions; leave it false")
        return self


class ConvSwiGLU(SwiGLU):
    """`down(silu(conv(silu(gate(x)) * up(x))))`, conv over the positions. [batch, positions, width] -> the same.

    The convolution is depthwise, with kernel 2: one filter of two taps and one bias for each inner channel.
    """

    def __init__(self, width: int, expansion: float, unit: GatedUnit):
        super().__init__(width, expansion, unit=unit)
        inner = self.down_proj.weight.shape[1]
        self.dwconv = nn.Conv1d(inner, inner, kernel_size=2, groups=inner)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(silu(self.convolve(self.gated(gate, up))))

    def convolve(self, u: Tensor) -> Tensor:
        """`w0 * u[t - 1] + w1 * u[t] + b` at each position t, with u[-1] = 0. [batch, positions, inner] -> the same."""
        assert self.dwconv.bias is not None
        before, own = self.dwconv.weight.squeeze(1).to(u.dtype).unbind(-1)
        return before * F.pad(u, (0, 0, 1, 0))[:, :-1] + own * u + self.dwconv.bias.to(u.dtype)


class ConvBlock(Block):
    """`h = norm(h + attention(h)); h = norm(h + ConvSwiGLU(h))`. [batch, positions, hidden] -> the same."""

    def make_mlp(self, hidden_size: int, expansion: float, unit: GatedUnit) -> SwiGLU:
        return ConvSwiGLU(hidden_size, expansion, unit)


class UniversalInner(PuzzleInnerModel):
    """The recursion of URM."""

    config_class = UniversalConfig
    states: ClassVar = {"current_hidden": "init_hidden"}

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        sizes = (self.config.hidden_size, self.config.num_heads, self.config.expansion, self.positions)
        eps, unit = self.config.rms_norm_eps, self.config.gated_unit
        self.layers = nn.ModuleList(
            ConvBlock(*sizes, mlp_t=False, eps=eps, unit=unit) for _ in range(self.config.L_layers)
        )

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def passes(self, z: Tensor, x: Tensor, view: View) -> Tensor:
        """L_cycles passes: the new z, [batch, positions, hidden], as are z and x."""
        for _ in range(self.depth.L_cycles):
            z = self.updates["current_hidden"](run_layers(self.layers, z + x, view, self.config.recompute))
        return z

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        hidden = z["current_hidden"]
        with torch.no_grad():
            for _ in range(self.depth.H_cycles - 1):
                hidden = self.passes(hidden, x, view)
        return {"current_hidden": self.passes(hidden, x, view)}


class UniversalReasoningModel(ACTModel):
    """URM with adaptive computation time."""

    inner_class = UniversalInner


URM = UniversalReasoningModel  # the published identifier
