"""For tests that compare with recorded numbers: weights from NumPy, and whether torch draws from a seed as recorded."""

import numpy as np
import torch
from torch import nn

# of the generator with the seed 0
_NORMALS = [-1.1258398, -1.1523602, -0.2505786, -0.4338788, 0.1264181, -0.5861721]  # first four and last two of 1000
_INTEGERS = [4, 3, 0, 2, 1, 2, 6, 3]  # of 0..6


@torch.no_grad()
def draw_weights(module: nn.Module, seed: int = 0) -> None:
    """Fill all weights and buffers with normal numbers of NumPy, which no version changes.

    `RandomState` is the only generator whose numbers NumPy promises to keep. The standard deviation is
    1 / sqrt(width) for matrices, where the width is the last axis, and 1 for vectors.
    """
    generator = np.random.RandomState(seed)
    for _, value in sorted(module.state_dict().items()):
        scale = value.shape[-1] ** -0.5 if value.ndim > 1 else 1.0
        value.copy_(torch.from_numpy(generator.standard_normal(tuple(value.shape)) * scale))


def torch_draws_as_recorded() -> bool:
    """Whether a seed gives the normal and whole numbers that it gave when losses were recorded from seeds."""
    normals = torch.empty(1000).normal_(generator=torch.Generator().manual_seed(0))[[0, 1, 2, 3, -2, -1]]
    integers = torch.randint(7, (8,), generator=torch.Generator().manual_seed(0))
    return torch.allclose(normals, torch.tensor(_NORMALS), rtol=1e-5, atol=1e-6) and integers.tolist() == _INTEGERS
