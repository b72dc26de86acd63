"""Resampling of particles: the rollouts of a puzzle that the halting head believes in replace the others.

With halting logits q, a particle is drawn with the probability `exp(beta q_i) / sum exp(beta q)`, by systematic
resampling: one uniform number u places the R points `(u + k) / R`, and each falls into the share of one particle. So a
particle with weight w has floor(R w) or ceil(R w) children. ("Guided exploration", arXiv 2605.25230: beta .25.)
"""

import torch
from torch import Tensor


def parents(q_halt: Tensor, u: Tensor, beta: float) -> Tensor:
    """The parent of each particle of the next step, int64 [groups, particles], in ascending order.

    Args:
        q_halt: fp32 [groups, particles], halting logits.
        u: fp32 [groups], uniform in [0, 1).
        beta: how much the halting head decides; 0: nothing, and every particle stays.
    """
    particles = q_halt.shape[1]
    shares = (beta * q_halt).softmax(1).cumsum(1)
    points = (u[:, None] + torch.arange(particles, device=u.device)) / particles
    # rounding may leave the last share below 1
    return torch.searchsorted(shares, points, right=True).clamp(max=particles - 1)
