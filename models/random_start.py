"""Initial latents that are drawn at random for each example, each position and each channel.

They are a function of one seed for each slot. In training the seeds are drawn from (seed, step), like all random
numbers of a step. In evaluation they follow from the tokens of the example, so that its answer depends neither on its
batch nor on the number of processes; whoever wants several answers to one example gives the seeds.
"""

from collections.abc import Mapping
from math import erf
from typing import Any

import torch
from torch import Tensor

from models.act import ACTModel
from models.layers import STD_OF_TRUNCATED_NORMAL
from utils.counter_random import seeds_of, uniform

_FIRST_STATE = 2  # the stream of the first latent; the following latents have the following numbers
_CUT = 2.0  # standard deviations of the normal distribution before it is cut


def truncated_normal(seed: int, row_seeds: Tensor, columns: int, std: float) -> Tensor:
    """Normal numbers, cut at +-2 standard deviations and rescaled to `std`: fp32 [n, columns].

    Args:
        seed: separates the draws of different purposes.
        row_seeds: int64 [n].
        columns: numbers per row.
        std: standard deviation of the numbers after the cut.
    """
    within = erf(_CUT / 2**0.5)
    z = 2**0.5 * torch.erfinv((2 * uniform(seed, row_seeds, columns) - 1) * within)
    return z * (std / STD_OF_TRUNCATED_NORMAL)


class RandomStartModel(ACTModel):
    """ACT whose slots start from random latents. Subclasses say by `start_stds` which latents are random."""

    @property
    def start_stds(self) -> Mapping[str, float]:
        """Name of each latent that starts at random -> standard deviation of its start."""
        raise NotImplementedError

    def draw_step(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of a step: those of every architecture, and a seed for each slot, int64 [rows]."""
        return super().draw_step(rows, generator) | {"row_seeds": torch.randint(2**62, (rows,), generator=generator)}

    def reset(
        self, states: dict[str, Tensor], halted: Tensor, data: dict[str, Tensor], row_seeds: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See `ACTModel.reset`."""
        states = states | super().reset(states, halted, data)
        if row_seeds is None:
            inputs = data["inputs"]
            row_seeds = torch.randint(2**62, halted.shape, device=inputs.device) if self.training else seeds_of(inputs)
        # A GPU draws for all slots, because the host would have to wait for it to learn which of them have halted.
        chosen = (
            halted.nonzero().squeeze(1)
            if halted.device.type == "cpu"
            else torch.arange(len(halted), device=halted.device)
        )
        starts = self.starts(row_seeds[chosen])
        for name, start in starts.items():
            z = states[name]
            where = halted.view(-1, *(1 for _ in range(z.ndim - 1)))
            states[name] = torch.where(where, z.index_copy(0, chosen, start.to(z.dtype)), z)
        return states

    def starts(self, row_seeds: Tensor) -> dict[str, Tensor]:
        """Fresh latents by name, fp32 [n, positions, hidden], from seeds int64 [n]."""
        inner: Any = self.inner
        shape = (inner.positions, inner.config.hidden_size)
        return {
            name: truncated_normal(_FIRST_STATE + number, row_seeds, shape[0] * shape[1], std).view(-1, *shape)
            for number, (name, std) in enumerate(self.start_stds.items())
        }
