"""Attention of every position to every other: torch's fused kernel, and on the CPU a faster one of matrix products.

torch's CPU kernel is made for long sequences and many cores; at the lengths of puzzles the explicit formula runs two to
three times as fast on matrix products alone, because its scores fit in the cache (docs/performance.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORES = 2**25  # scores computed at once, so that they stay in the cache


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v`. [batch, heads, positions, d] each -> the same."""
    if q.device.type == "cpu":
        return _attend_on_cpu(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


# Custom operators and not plain functions, because Inductor would take the softmax apart into a slower one, and so that
# the backward pass computes the probabilities again instead of keeping them.


@torch.library.custom_op("recursive_reasoning::attend_on_cpu", mutates_args=())
def _attend_on_cpu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    y = _like_projection(q)
    for some in _parts(q):
        probabilities = _probabilities(q[some], k[some])
        y[some] = torch.bmm(probabilities, v[some].flatten(0, 1)).view_as(y[some])
    return y


@torch.library.custom_op("recursive_reasoning::attend_on_cpu_backward", mutates_args=())
def _attend_on_cpu_backward(dy: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With P the probabilities: dv = P^T dy; dS = P * (dP - sum(P * dP)), dP = dy v^T; dq = dS k; dk = dS^T q."""
    dq, dk, dv = _like_projection(q), _like_projection(q), _like_projection(q)
    scale = q.shape[-1] ** -0.5
    for some in _parts(q):
        probabilities = _probabilities(q[some], k[some])
        q_, k_, v_, dy_ = (x[some].flatten(0, 1) for x in (q, k, v, dy))
        dv[some] = torch.bmm(probabilities.mT, dy_).view_as(dv[some])
        # reuses the formula of softmax's own gradient
        d_scores = torch._softmax_backward_data(torch.bmm(dy_, v_.mT), probabilities, -1, q.dtype)
        dq[some] = torch.bmm(d_scores, k_).mul_(scale).view_as(dq[some])
        dk[some] = torch.bmm(d_scores.mT, q_).mul_(scale).view_as(dk[some])
    return dq, dk, dv


def _probabilities(q: Tensor, k: Tensor) -> Tensor:
    """[some * heads, positions, positions]"""
    return torch.bmm(q.flatten(0, 1) * q.shape[-1] ** -0.5, k.flatten(0, 1).mT).softmax(-1)


def _parts(q: Tensor) -> list[slice]:
    batch, heads, positions, _ = q.shape
    size = max(1, _SCORES // (heads * positions**2))
    return [slice(start, start + size) for start in range(0, batch, size)]


def _like_projection(q: Tensor) -> Tensor:
    """Empty, in the memory order [batch, positions, heads, d] of the projections around it."""
    batch, heads, positions, d = q.shape
    return q.new_empty(batch, positions, heads, d).transpose(1, 2)


@_attend_on_cpu.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _like_projection(q)


@_attend_on_cpu_backward.register_fake
def _(dy: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _like_projection(q), _like_projection(q), _like_projection(q)


def _backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _attend_on_cpu_backward(dy, *ctx.saved_tensors)


def _setup(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


_attend_on_cpu.register_autograd(_backward, setup_context=_setup)
