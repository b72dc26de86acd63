"""FPRM, the Fixed-Point Reasoning Model (arXiv 2606.18206): iterate one map until its result stays the same.

There is one state y, which starts from random latents of large size, and one map G(y ; x):

    h = convolution(y)                 depthwise, over the cells of the grid or causal over the sequence; no residual
    h = a2 * h + b2 * x
    h = a1 * h + b1 * attention(norm(h)); h = a1 * h + b1 * swiglu(norm(h))      in each of n layers

with a1 and a2 trained for each channel and b1, b2 such that the scale of h stays bounded:

    b2 = 1 - a2 * a1^(2n)              b1 = b2 * (1 - a1) / (1 - a1^(2n))

An iteration moves y towards G(y) by a step size s that shrinks when the residue r stops falling:

    r = max over positions of |G(y) - y|_inf / |G(y)|_inf
    y = s * G(y) + (1 - s) * y

A slot halts when r is below fp_thresh. A step of training makes n_backwards_L iterations, all with gradient; a step of
evaluation makes one.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.attention import attend
from models.grid_rotary import grid_sides
from models.inner import Level, PuzzleInnerModel, ReasonerConfig, RecursionConfig, run_layers
from models.layers import Attention, SwiGLU, rms_norm
from models.random_start import RandomStartModel
from models.view import View
from utils.constants import MAX_ACT_STEPS

SMALLEST_STEP_SIZE = 1e-3  # a slot whose step size has fallen below this has come to rest
SCALE_EPS = 1e-5  # added to the denominator of b1


class FixedPointConfig(ReasonerConfig):
    """The published sizes and settings, those for Sudoku where they differ."""

    published_names: ClassVar = {"max_iter": "halt_max_steps"}
    unused: ClassVar = ("H_layers", "H_cycles", "L_cycles", "mlp_t")
    refused: ClassVar = {
        "depth_curriculum": "FPRM has no cycles but n_backwards_L iterations, the same in all of the training; "
        "leave it empty"
    }

    halt_max_steps: int = Field(default=12, ge=1, le=MAX_ACT_STEPS)
    """Maximum number of steps of an example in training, each of n_backwards_L iterations."""
    max_iter_eval: int | None = Field(default=1000, ge=1, le=MAX_ACT_STEPS)
    """Maximum number of iterations of an example in evaluation; null: as many as in training."""
    n_backwards_L: int = Field(default=6, ge=1, le=1000)
    """Iterations of a step of training, all with gradient."""
    halting_mechanism: Literal["fixed_point", "act"] = "fixed_point"
    """What halts an example: a small residue, or the halting head, as in TRM."""
    fp_thresh: float = Field(default=0.1, ge=0, le=1e6)
    """An example halts when its residue is below this."""
    stepsize: float = Field(default=1.0, gt=0, le=1)
    """Step size at the start."""
    stepsize_decay_train: float = Field(default=0.9, gt=0, le=1)
    """In training, what the step size is multiplied by when the residue has stopped falling."""
    stepsize_decay_eval: float = Field(default=0.99, gt=0, le=1)
    """The same in evaluation."""
    decay_patience: int = Field(default=5, ge=1, le=10_000)
    """Iterations without a new smallest residue after which the step size shrinks."""
    eps: float = Field(default=1e-8, ge=0, le=1)
    """Added to the denominator of the residue."""
    init_std: float = Field(default=6.0, gt=0, le=1000)
    """Standard deviation of the random start."""
    additive_noise_std: float = Field(default=0.0, ge=0, le=100)
    """Standard deviation of noise that each iteration adds to the state."""
    eval_stops_together: bool = False
    """In evaluation, halt all examples of a batch together, as the published code does."""

    conv_type: Literal["conv2d", "conv1d", "none"] = "conv2d"
    """Convolution at the start of the map: conv2d over the grid, conv1d causal over the sequence, or none."""
    conv_kernel_size: int = Field(default=3, ge=1, le=1000)
    """Width of the convolution; odd for conv2d."""
    conv_bias: bool = False
    """Whether the convolution has a bias."""
    board_height: int | None = Field(default=None, ge=1)
    """With conv2d, rows of the grid; null: as many as it takes, square if board_width is null too."""
    board_width: int | None = Field(default=None, ge=1)
    """With conv2d, columns of the grid; null: as many as it takes."""
    residual_scale: Literal["input-independent", "fixed", "none"] = "input-independent"
    """How sums are scaled: by a1 and a2 trained for each channel, by these as fixed numbers, or not at all."""
    alpha_1_init: float = Field(default=0.75, gt=0, lt=1)
    """a1 at the start."""
    alpha_2_init: float = Field(default=0.25, gt=0, lt=1)
    """a2 at the start."""
    outer_only: bool = False
    """Scale only where x is added, and leave the sums of the layers alone."""
    norm_type: Literal["pre-norm", "peri-norm", "post-norm"] = "pre-norm"
    """Norms of the layers: before each sublayer, before and after it, or after each sum."""
    norm_placement: Literal["none", "input", "output"] = "none"
    """One more norm, before x is added or after the last layer."""
    softmax_temp: float = Field(default=1.0, gt=0, le=1000)
    """Temperature of the attention."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mlp_t:
            raise ValueError("mlp_t: FPRM mixes positions by attention and convolution; leave it false")
        if self.conv_type == "conv2d" and self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size {self.conv_kernel_size}: conv2d is centred and needs an odd one")
        return self


class TemperedAttention(Attention):
    """Attention with `softmax(q k^T / (sqrt(d) * temperature)) v`."""

    def __init__(self, hidden_size: int, num_heads: int, temperature: float):
        super().__init__(hidden_size, num_heads)
        self.temperature = temperature

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        return attend(q if self.temperature == 1 else q / self.temperature, k, v)


class ScaledBlock(nn.Module):
    """`h = a1 * h + b1 * mix(h)` with attention and then with a SwiGLU. [batch, positions, hidden] -> the same."""

    def __init__(self, config: FixedPointConfig):
        super().__init__()
        self.eps, self.norm_type = config.rms_norm_eps, config.norm_type
        self.self_attn = TemperedAttention(config.hidden_size, config.num_heads, config.softmax_temp)
        self.mlp = SwiGLU(config.hidden_size, config.expansion, unit=config.gated_unit)

    def forward(self, h: Tensor, view: View, a1: Tensor, b1: Tensor) -> Tensor:
        h = self._add(h, self.self_attn(self._before(h), view), a1, b1)
        return self._add(h, self.mlp(self._before(h)), a1, b1)

    def _before(self, h: Tensor) -> Tensor:
        return h if self.norm_type == "post-norm" else rms_norm(h, self.eps)

    def _add(self, h: Tensor, mixed: Tensor, a1: Tensor, b1: Tensor) -> Tensor:
        if self.norm_type == "peri-norm":
            mixed = rms_norm(mixed, self.eps)
        h = a1 * h + b1 * mixed
        return rms_norm(h, self.eps) if self.norm_type == "post-norm" else h


class FixedPointLevel(Level):
    """The map G(y ; x). [batch, positions, hidden] -> the same."""

    def __init__(self, config: RecursionConfig, num_layers: int, positions: int):
        assert isinstance(config, FixedPointConfig)
        super().__init__(config, num_layers, positions)
        self.config, hidden = config, config.hidden_size
        self.prefix_len = positions - config.seq_len
        self.sides = (1, config.seq_len)
        if config.conv_type == "conv2d":
            self.sides = grid_sides(config.seq_len, config.board_height, config.board_width)
        if config.conv_type != "none":
            convolution = nn.Conv2d if config.conv_type == "conv2d" else nn.Conv1d
            self.conv = convolution(hidden, hidden, config.conv_kernel_size, groups=hidden, bias=config.conv_bias)
        if config.residual_scale == "input-independent":
            self.alpha_2_param = nn.Parameter(torch.full((hidden,), config.alpha_2_init).logit())
            if not config.outer_only:
                self.alpha_1_param = nn.Parameter(torch.full((hidden,), config.alpha_1_init).logit())

    def make_block(self, config: RecursionConfig, positions: int) -> nn.Module:
        assert isinstance(config, FixedPointConfig)
        return ScaledBlock(config)

    def scales(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(a1, b1, a2, b2), of each channel or of all, in the dtype of `like`."""
        config, one = self.config, torch.ones((), device=like.device)
        a1, a2, layers = one, one, len(self.layers)
        if config.residual_scale == "input-independent":
            a1 = one if config.outer_only else self.alpha_1_param.sigmoid()
            a2 = self.alpha_2_param.sigmoid()
        elif config.residual_scale == "fixed":
            a1, a2 = one * (1 if config.outer_only else config.alpha_1_init), one * config.alpha_2_init
        decay = a1 ** (2 * layers)
        b2 = one if config.residual_scale == "none" else 1 - a2 * decay
        b1 = one if a1 is one or config.outer_only else b2 * (1 - a1) / (1 - decay + SCALE_EPS)
        a1, b1, a2, b2 = (scale.to(like.dtype) for scale in (a1, b1, a2, b2))
        return a1, b1, a2, b2

    def convolve(self, h: Tensor) -> Tensor:
        """h with the convolution in place of the positions of the question."""
        config = self.config
        if config.conv_type == "none":
            return h
        prefix, cells = h.split([self.prefix_len, config.seq_len], dim=1)
        weight, bias, kernel = self.conv.weight.to(h.dtype), self.conv.bias, config.conv_kernel_size
        bias, channels = bias if bias is None else bias.to(h.dtype), cells.mT
        if config.conv_type == "conv2d":
            grid = channels.unflatten(-1, self.sides)
            mixed = F.conv2d(grid, weight, bias, padding=kernel // 2, groups=len(weight)).flatten(-2)
        else:
            mixed = F.conv1d(F.pad(channels, (kernel - 1, 0)), weight, bias, groups=len(weight))
        return torch.cat((prefix, mixed.mT), dim=1)

    def forward(self, z: Tensor, injection: Tensor | None, view: View) -> Tensor:
        config = self.config
        a1, b1, a2, b2 = self.scales(z)
        h = self.convolve(z)
        if config.norm_placement == "input":
            h = rms_norm(h, config.rms_norm_eps)
        h = a2 * h if injection is None else a2 * h + b2 * injection
        h = run_layers(self.layers, h, view, self.recompute, a1, b1)
        return rms_norm(h, config.rms_norm_eps) if config.norm_placement == "output" else h


class FixedPointInner(PuzzleInnerModel):
    """The iteration of FPRM. Besides y the states hold, for each slot, how its iteration goes.

    residues, best_residues: fp32 [batch], the last residue and the smallest; stepsize: fp32 [batch, 1, 1]; patience:
    fp32 [batch], iterations that are left until the step size shrinks; iter_idx: int32 [batch], iterations made.
    """

    config_class = FixedPointConfig
    states: ClassVar = {"y": None}

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        self.L_level = FixedPointLevel(config, config.L_layers, self.positions)

    @property
    def settings(self) -> FixedPointConfig:
        """The configuration."""
        assert isinstance(self.config, FixedPointConfig)
        return self.config

    def empty_states(self, rows: int, device: torch.device, positions: int | None = None) -> dict[str, Tensor]:
        return super().empty_states(rows, device, positions) | {
            "residues": torch.zeros(rows, device=device),
            "stepsize": torch.zeros(rows, 1, 1, device=device),
            "patience": torch.zeros(rows, device=device),
            "iter_idx": torch.zeros(rows, dtype=torch.int32, device=device),
            "best_residues": torch.zeros(rows, device=device),
        }

    def reset_states(self, z: dict[str, Tensor], halted: Tensor) -> dict[str, Tensor]:
        """`z` with a new iteration in the slots that have halted; y is not changed."""
        config = self.settings
        starts = {
            "residues": torch.inf,
            "stepsize": config.stepsize,
            "patience": config.decay_patience,
            "iter_idx": 0,
            "best_residues": torch.inf,
        }
        fresh = {name: z[name].masked_fill(halted.view_as(z[name]), value) for name, value in starts.items()}
        return z | fresh

    def iterate(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        """One iteration of every slot: the new states."""
        config, y, size = self.settings, z["y"], z["stepsize"]
        target = self.L_level(y, x, view)
        with torch.no_grad():
            change, norm = ((y - target).abs().amax(-1), target.abs().amax(-1))
            residue = (change.float() / (norm.float() + config.eps)).amax(-1)
            improved = residue < z["best_residues"]
            patience = torch.where(improved, config.decay_patience, z["patience"] - 1)
            shrinks = (patience <= 0) & (residue >= config.fp_thresh)
            decay = config.stepsize_decay_train if self.training else config.stepsize_decay_eval
            following = {
                "residues": residue,
                "stepsize": torch.where(shrinks.view_as(size), size * decay, size),
                "patience": patience.masked_fill(shrinks, config.decay_patience),
                "iter_idx": z["iter_idx"] + 1,
                "best_residues": torch.minimum(residue, z["best_residues"]),
            }
        s = size.to(y.dtype)
        y = s * target + (1 - s) * y
        if config.additive_noise_std:
            y = y + config.additive_noise_std * torch.randn_like(y)
        return {"y": self.updates["y"](y), **following}

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        for _ in range(self.settings.n_backwards_L if self.training else 1):
            z = self.iterate(z, x, view)
        return z


class FixedPointModel(RandomStartModel):
    """FPRM with slots that halt at a fixed point."""

    inner_class = FixedPointInner
    undecayed: ClassVar = ("alpha_1_param", "alpha_2_param")

    @property
    def settings(self) -> FixedPointConfig:
        """The configuration."""
        assert isinstance(self.config, FixedPointConfig)
        return self.config

    @property
    def start_stds(self) -> Mapping[str, float]:
        return {"y": self.settings.init_std}

    def steps_limit(self, max_steps: int | None) -> int:
        """See `ACTModel.steps_limit`; in evaluation a step is one iteration, and max_iter_eval their maximum."""
        config = self.settings
        iterations = config.max_iter_eval or config.halt_max_steps * config.n_backwards_L
        return super().steps_limit(max_steps or iterations)

    def advance(
        self, states: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `ACTModel.advance`; the outputs also hold residues and stepsize, fp32 [batch]."""
        states, outputs = super().advance(states, data)
        return states, outputs | {"residues": states["residues"], "stepsize": states["stepsize"].flatten()}

    def own_stops(self, outputs: Mapping[str, Tensor], steps: Tensor, min_steps: Tensor | None, limit: int) -> Tensor:
        """Which slots halt before step `limit`, bool [batch]."""
        if self.settings.halting_mechanism == "act":
            return super().own_stops(outputs, steps, min_steps, limit)
        residue, size = outputs["residues"], outputs["stepsize"]
        if self.settings.eval_stops_together and not self.training:
            residue, size = residue.max().expand_as(residue), size.max().expand_as(size)
        return (residue < self.settings.fp_thresh) | (size < SMALLEST_STEP_SIZE)


FixedPointReasoningModel_ACTV1 = FixedPointModel  # the published identifier
