"""The order of the packed gate and up weights: a chunk of gate rows, the same chunk of up rows, the next chunk, ...

One product then computes a chunk of both, and each thread finds a gate beside its up in its own registers.
"""

import triton
import triton.language as tl
from torch import Tensor


def interleave(gate_up: Tensor, chunk: int) -> Tensor:
    """[gate; up], [2 * inner, :], in chunks of rows that alternate; `chunk` divides inner."""
    return gate_up.unflatten(0, (2, -1, chunk)).transpose(0, 1).flatten(0, 2)


def separate(pairs: Tensor, chunk: int) -> Tensor:
    """The inverse of `interleave`."""
    return pairs.unflatten(0, (-1, 2, chunk)).transpose(0, 1).flatten(0, 2)


@triton.jit
def halves(x, ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """The left and the right half of x [ROWS, 2 * CHUNK], without moving data between threads."""
    return tl.split(x.reshape(ROWS, 2, CHUNK).permute(0, 2, 1))


@triton.jit
def side_by_side(left, right, ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """[left | right], the inverse of `halves`."""
    return tl.join(left, right).permute(0, 2, 1).reshape(ROWS, 2 * CHUNK)
