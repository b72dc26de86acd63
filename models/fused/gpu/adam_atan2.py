"""The update of `utils.optimizers.AdamATan2` and of the averages for all parameters in one Triton kernel.

One launch instead of several for each parameter: small models are limited by launches, not by memory.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from utils.machine import to_device

_BLOCK = 2048  # elements of a program


@triton.jit
def _kernel(
    addresses, pieces, keep, rate, correction, new1, beta2, new2, ema_rate, new_average,
    HALF_PI: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program i updates the piece pieces[i] = (parameter, first element, number of elements).

    `addresses`: int64 [parameters, 5], of p, gradient, m, v and average (0: none).
    """
    piece = pieces + tl.program_id(0) * 3
    row = addresses + tl.load(piece) * 5
    first = tl.load(piece + 1)
    at = tl.arange(0, BLOCK)
    there = at < tl.load(piece + 2)
    at += first
    p_at = tl.load(row).to(tl.pointer_type(tl.float32)) + at
    m_at = tl.load(row + 2).to(tl.pointer_type(tl.float32)) + at
    v_at = tl.load(row + 3).to(tl.pointer_type(tl.float32)) + at
    p, m = tl.load(p_at, there), tl.load(m_at, there)
    g, v = tl.load(tl.load(row + 1).to(tl.pointer_type(tl.float32)) + at, there), tl.load(v_at, there)
    m += new1 * (g - m)
    v = beta2 * v + new2 * g * g
    x = tl.sqrt_rn(v) * correction
    # atan2(m, x) for x >= 0, with the polynomial of `utils.optimizers.atan2_above`
    size = tl.abs(m)
    t = tl.minimum(size, x) / tl.maximum(tl.maximum(size, x), 1e-37)
    t2 = t * t
    polynomial = -0.00435524729 * t2 + 0.0230395634
    polynomial = polynomial * t2 - 0.0577727708
    polynomial = polynomial * t2 + 0.0979417588
    polynomial = polynomial * t2 - 0.139765603
    polynomial = polynomial * t2 + 0.199627001
    polynomial = polynomial * t2 - 0.333316588
    angle = t + t * t2 * polynomial
    angle = tl.where(size > x, HALF_PI - angle, angle)
    angle = tl.where(m < 0, -angle, angle)
    p = keep * p - rate * angle
    tl.store(p_at, p, there)
    tl.store(m_at, m, there)
    tl.store(v_at, v, there)
    average = tl.load(row + 4)
    if average != 0:
        average_at = average.to(tl.pointer_type(tl.float32)) + at
        tl.store(average_at, ema_rate * tl.load(average_at, there) + new_average * p, there)


def adam_atan2(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    m: Sequence[Tensor],
    v: Sequence[Tensor],
    averages: Sequence[Tensor | None],
    keep: float,
    rate: float,
    correction: float,
    beta1: float,
    beta2: float,
    ema_rate: float,
) -> None:
    """The update of `utils.optimizers.AdamATan2.update_in_one_pass`, on contiguous fp32 tensors of one device."""
    if not parameters:
        return
    rows: list[list[int]] = []
    for tensors in zip(parameters, gradients, m, v, averages, strict=True):
        if any(t is not None and (t.dtype != torch.float32 or not t.is_contiguous()) for t in tensors):
            raise ValueError("adam_atan2 takes contiguous fp32 tensors")
        rows.append([0 if t is None else t.data_ptr() for t in tensors])
        for index, t in enumerate(tensors):
            if t is not None and index != 1:
                torch.autograd.graph.increment_version(t)
    device = parameters[0].device
    addresses = to_device(torch.tensor(rows, dtype=torch.int64), device)
    pieces = _pieces(tuple(p.numel() for p in parameters), device)
    kernel: Any = _kernel
    kernel[(len(pieces),)](
        addresses, pieces, keep, rate, correction, 1 - beta1, beta2, 1 - beta2, ema_rate, 1 - ema_rate,
        HALF_PI=math.pi / 2, BLOCK=_BLOCK,
    )  # fmt: skip


@functools.cache
def _pieces(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """int64 [pieces, 3]: for each piece its parameter, first element and number of elements."""
    pieces = [
        (index, first, min(_BLOCK, count - first))
        for index, count in enumerate(counts)
        for first in range(0, count, _BLOCK)
    ]
    return torch.tensor(pieces, dtype=torch.int64).to(device)
