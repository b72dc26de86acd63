"""Attention of every position to every other: torch's fused kernel, and on the CPU a faster one of matrix products.

torch's CPU kernel is made for long sequences and many cores; at the lengths of puzzles the explicit formula runs two to
four times as fast on matrix products alone, as long as the scores never leave the cache (docs/performance.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORES = 2**21  # computed at once, in the same memory each time: 4 MB of bf16 stay in the cache


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v`. [batch, heads, positions, d] each -> the same."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    # scaled and copied out here, where the compiler does both together with the rotation
    q = q * q.shape[-1] ** -0.5
    return _attend_on_cpu(q.contiguous(), k.contiguous(), v.contiguous())


# Custom operators and not plain functions, because Inductor would take the softmax apart into a slower one, and so that
# the backward pass computes the probabilities again instead of keeping them.


@torch.library.custom_op("recursive_reasoning::attend_on_cpu", mutates_args=())
def _attend_on_cpu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T) v, all contiguous."""
    y = torch.empty_like(q)
    (probabilities,) = _scratch(q, 1)
    for q_, k_, v_, y_ in _parts(q, k, v, y):
        p = _probabilities(q_, k_, probabilities)
        torch.bmm(p, v_, out=y_)
    return y


@torch.library.custom_op("recursive_reasoning::attend_on_cpu_backward", mutates_args=())
def _attend_on_cpu_backward(dy: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With P the probabilities: dv = P^T dy; dS = P * (dP - sum(P * dP)), dP = dy v^T; dq = dS k; dk = dS^T q."""
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    probabilities, gradients = _scratch(q, 2)
    for dy_, q_, k_, v_, dq_, dk_, dv_ in _parts(dy, q, k, v, dq, dk, dv):
        p = _probabilities(q_, k_, probabilities)
        torch.bmm(p.mT, dy_, out=dv_)
        d_scores = torch.bmm(dy_, v_.mT, out=gradients[: len(q_)])
        # reuses the formula of softmax's own gradient
        torch._softmax_backward_data(d_scores, p, -1, q.dtype, grad_input=d_scores)
        torch.bmm(d_scores, k_, out=dq_)
        torch.bmm(d_scores.mT, q_, out=dk_)
    return dq, dk, dv


def _probabilities(q: Tensor, k: Tensor, scratch: Tensor) -> Tensor:
    """[matrices, positions, positions], in the memory of `scratch`."""
    scores = torch.bmm(q, k.mT, out=scratch[: len(q)])
    return torch.softmax(scores, -1, out=scores)


def _matrices(q: Tensor) -> int:
    """How many matrices of scores, one for each head of each example, are computed at once."""
    batch, heads, positions, _ = q.shape
    return max(1, min(batch * heads, _SCORES // positions**2))


def _scratch(q: Tensor, count: int) -> list[Tensor]:
    positions = q.shape[2]
    return [q.new_empty(_matrices(q), positions, positions) for _ in range(count)]


def _parts(*tensors: Tensor) -> "zip[tuple[Tensor, ...]]":
    """The same heads of each tensor, [matrices, positions, d], part by part."""
    return zip(*(x.flatten(0, 1).split(_matrices(x)) for x in tensors), strict=True)


@_attend_on_cpu.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.empty_like(q)


@_attend_on_cpu_backward.register_fake
def _(dy: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _attend_on_cpu_backward(dy.contiguous(), *ctx.saved_tensors)


def _setup(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


_attend_on_cpu.register_autograd(_backward, setup_context=_setup)
