"""Full attention: torch's fused kernel, and a faster implementation with matrix products on the CPU.

torch's CPU kernel is made for long sequences and many cores. At the sequence lengths of puzzles, plain matrix products
are two to four times as fast, as long as the scores stay in the cache (docs/performance.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORES = 2**21  # scores computed at once, always in the same buffer: 4 MB in bf16 stay in the cache


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v`. [batch, heads, positions, d] each -> the same."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    # scaled and made contiguous here, because the compiler fuses both with the rotation
    q = q * q.shape[-1] ** -0.5
    return _attend_on_cpu(q.contiguous(), k.contiguous(), v.contiguous())


# These are custom operators rather than plain functions because Inductor would decompose the softmax into slower code,
# and so that the backward pass recomputes the probabilities instead of keeping them.


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
        # torch's own gradient of softmax
        torch._softmax_backward_data(d_scores, p, -1, q.dtype, grad_input=d_scores)
        torch.bmm(d_scores, k_, out=dq_)
        torch.bmm(d_scores.mT, q_, out=dk_)
    return dq, dk, dv


def _probabilities(q: Tensor, k: Tensor, scratch: Tensor) -> Tensor:
    """Attention probabilities [matrices, positions, positions], written to `scratch`."""
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
    """Chunks of heads, [matrices, positions, d], the same heads of every tensor at a time."""
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
