"""Random symmetries of a task, for the builders and for training batches on the fly.

Everything is a batched tensor operation on the device of the tokens. The draw for row i is a pure function of the seed
and i, so each rank of a distributed run draws only its own rows of the global batch, and all devices draw the same.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from torch import Tensor

Draws = Mapping[str, Tensor]


class Augmentation(Protocol):
    """Random symmetries of the examples of a data set."""

    prepares: bool  # whether `prepare` returns an array

    def prepare(self, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Precompute what `apply` needs for each example, the same for all symmetries: uint8 [n, seq_len], or None.

        Raises:
            ValueError: an example does not belong to the task.
        """
        ...

    def draw(self, seed: int, rows: Tensor) -> dict[str, Tensor]:
        """Uniform random draws for `rows` (int64 [n]) of the stream `seed` (int64); every tensor has n rows."""
        ...

    def apply(self, inputs: Tensor, labels: Tensor, prepared: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor]:
        """The transformed inputs and labels, both [n, seq_len]; row i is transformed by row i of the draws.

        Padding tokens and ignored labels (0 and any negative value) keep their values.
        """
        ...
