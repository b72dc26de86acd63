"""EqR, the Equilibrium Reasoner (arXiv 2605.21488): TRM made to settle.

The recursion is that of TRM (`trm.py`), with three changes. Each slot starts from latents that are drawn anew for each
example, position and channel, so that the answer must not depend on the start. Each call of the level is damped and
noisy, with n standard normal and drawn anew in each call:

    f(z ; injection) = (1 - lambda) * z + lambda * layers(z + injection) + sigma * n

And there is no puzzle embedding. So an example can be answered several times from different starts, and the answer
taken whose trajectory settles best (`evaluate.py restarts=N vary=start`).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.grid_rotary import GridRotaryEmbedding, grid_sides
from models.inner import PuzzleInnerModel, ReasonerConfig
from models.random_start import RandomStartModel
from models.recursive_reasoning.trm import TinyRecursion
from models.view import View


class EquilibriumConfig(ReasonerConfig):
    """As in TRM, and how calls of the level are damped and disturbed."""

    yaml_values: ClassVar = {}
    unused: ClassVar = ("H_layers", "puzzle_emb_ndim", "puzzle_emb_len")
    refused: ClassVar = {
        "latent_noise": "EqR has noise of its own; set noise_scale, and noise_in_evaluation=false for training alone"
    }

    pos_encodings: Literal["rope", "rope2d", "learned", "none"] = "rope"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Position encoding: rope (rotary), rope2d (rotary, by row and column), learned (an embedding), or none."""
    board_height: int | None = Field(default=None, ge=1)
    """With rope2d, rows of the grid; null: as many as it takes, square if board_width is null too."""
    board_width: int | None = Field(default=None, ge=1)
    """With rope2d, columns of the grid; null: as many as it takes."""
    lambda_: float = Field(default=0.95, gt=0, le=1)
    """Share of the new value in each call of the level; the rest is the old value."""
    noise_scale: float = Field(default=0.01, ge=0, le=100)
    """Standard deviation of the noise that each call of the level adds."""
    noise_in_evaluation: bool = True
    """Add the noise in evaluation too, as published."""
    H_init_std: float = Field(default=1.0, gt=0, le=100)
    """Standard deviation of the random start of the answer."""
    L_init_std: float = Field(default=1.0, gt=0, le=100)
    """Standard deviation of the random start of the reasoning latent."""

    @property
    def has_rotary_positions(self) -> bool:
        return self.pos_encodings in ("rope", "rope2d") and not self.mlp_t

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.puzzle_emb_ndim:
            raise ValueError("puzzle_emb_ndim: EqR has no puzzle embedding; leave it 0")
        if self.pos_encodings == "rope2d" and self.hidden_size // self.num_heads % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} // num_heads {self.num_heads}: pos_encodings=rope2d needs heads whose "
                "width is a multiple of 4"
            )
        return self


class EquilibriumInner(TinyRecursion, PuzzleInnerModel):
    """The recursion of TRM with damped and noisy calls of the level."""

    config_class = EquilibriumConfig
    states: ClassVar = {"z_H": None, "z_L": None}

    @property
    def settings(self) -> EquilibriumConfig:
        """The configuration."""
        assert isinstance(self.config, EquilibriumConfig)
        return self.config

    def add_positions(self) -> None:
        super().add_positions()
        config = self.settings
        if config.pos_encodings == "rope2d":
            sides = grid_sides(config.seq_len, config.board_height, config.board_width)
            head_dim = config.hidden_size // config.num_heads
            self.rotary = GridRotaryEmbedding(head_dim, *sides, config.rope_theta, "halves")

    def call_level(self, z: Tensor, injection: Tensor, view: View) -> Tensor:
        """`f(z ; injection)` as above, [batch, positions, hidden]."""
        config = self.settings
        mixed = (1 - config.lambda_) * z + config.lambda_ * self.L_level(z, injection, view)
        if config.noise_scale and (self.training or config.noise_in_evaluation):
            mixed = mixed + config.noise_scale * torch.randn_like(mixed)
        return mixed


class EquilibriumModel(RandomStartModel):
    """EqR with adaptive computation time."""

    inner_class = EquilibriumInner

    @property
    def start_stds(self) -> Mapping[str, float]:
        config = self.config
        assert isinstance(config, EquilibriumConfig)
        return {"z_H": config.H_init_std, "z_L": config.L_init_std}


EqRModel = EquilibriumModel  # the published identifier
