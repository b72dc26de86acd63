"""Exponential moving average of the trainable parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """`shadow = (1 - rate) * parameter + rate * shadow`, in fp32, starting from a copy of the initial parameters.

    Buffers, including the puzzle table, are not averaged.
    """

    def __init__(self, model: nn.Module, rate: float):
        self.rate = rate
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.shadow: dict[str, Tensor] = {name: p.detach().float().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the current parameters."""
        shadows = list(self.shadow.values())
        if shadows:
            torch._foreach_mul_(shadows, self.rate)
            torch._foreach_add_(shadows, [p.detach() for p in self.parameters.values()], alpha=1 - self.rate)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model's parameters are the averages. Storages are swapped; nothing is copied."""
        raw = {name: p.data for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.data = self.shadow[name]
        try:
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = raw[name]

    def load_state_dict(self, shadow: dict[str, Tensor]) -> None:
        """Restore `shadow`. Raises KeyError if a name is missing, RuntimeError if a shape differs."""
        for name, mine in self.shadow.items():
            if mine.shape != shadow[name].shape:
                raise RuntimeError(f"average of {name}: shape {list(shadow[name].shape)}, here {list(mine.shape)}")
            mine.copy_(shadow[name])
