"""The order of the packed gate and up weights: a chunk of gate rows, the same chunk of up rows, the next chunk, ...

One product then computes both, and each thread finds a gate beside its up in its own registers.
"""

import triton
import triton.language as tl
from torch import Tensor

CHUNK = tl.constexpr(32)  # rows of a chunk; the inner width and the columns of tiles are multiples of it


def interleave(gate_up: Tensor, chunk: int = CHUNK.value) -> Tensor:
    """[gate; up], [2 * inner, :], in chunks of rows that alternate."""
    return gate_up.unflatten(0, (2, -1, chunk)).transpose(0, 1).flatten(0, 2)


def separate(pairs: Tensor, chunk: int = CHUNK.value) -> Tensor:
    """The inverse of `interleave`."""
    return pairs.unflatten(0, (-1, 2, chunk)).transpose(0, 1).flatten(0, 2)


@triton.jit
def halves(pairs, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The gate and the up of columns that alternate in chunks, without moving data between threads.

    [ROWS, 2 * COLUMNS] -> two of [ROWS, COLUMNS].
    """
    gate, up = tl.split(pairs.reshape(ROWS, COLUMNS // CHUNK, 2, CHUNK).permute(0, 1, 3, 2))
    return gate.reshape(ROWS, COLUMNS), up.reshape(ROWS, COLUMNS)


@triton.jit
def alternate(gate, up, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The inverse of `halves`."""
    pairs = tl.join(gate.reshape(ROWS, COLUMNS // CHUNK, CHUNK), up.reshape(ROWS, COLUMNS // CHUNK, CHUNK))
    return pairs.permute(0, 1, 3, 2).reshape(ROWS, 2 * COLUMNS)
