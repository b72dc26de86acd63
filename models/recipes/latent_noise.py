"""Noise on the latents: `z = z + sigma * n` after each update, n standard normal, in training alone.

(CMM, arXiv 2603.22871, with sigma = 0.01 on every update; EqR, arXiv 2605.21488, has the same as `noise_scale`.) The
numbers come from torch's own generator, which is seeded with (seed, step, rank) before each step.
"""

import torch
from torch import Tensor, nn


class LatentNoise(nn.Module):
    """Adds noise of standard deviation `std` in training. [...] -> the same."""

    def __init__(self, std: float):
        super().__init__()
        self.std = std

    def forward(self, z: Tensor) -> Tensor:
        return z + self.std * torch.randn_like(z) if self.training else z


def latent_update(std: float) -> nn.Module:
    """The module through which a new value of a latent passes; without noise an identity."""
    return LatentNoise(std) if std else nn.Identity()
