"""Random numbers as a pure function of (seed, row, column): the same bits on every device.

With a stateful generator, the numbers of a row would depend on the rows drawn before it, and differ between devices.
"""

import numpy as np
import torch
from torch import Tensor


def _signed(bits: int) -> int:
    """Reinterpret 64 unsigned bits as an int64."""
    return bits - (1 << 64) if bits >> 63 else bits


# the constants of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)
_STEP, _FIRST, _SECOND = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))

_SEEDS = 1  # the stream of the factors that make a seed of tokens
_UNUSED_BITS = 63 - 23  # 23 bits and a half are exact in fp32


def seed_of(*entropy: int) -> int:
    """One int64 seed from several integers >= 0, such as (seed, stream, step); trailing zeros make no difference."""
    return _signed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


def seeds_of(tokens: Tensor) -> Tensor:
    """A seed for each row of tokens [n, seq], int64 [n]; equal rows have equal seeds."""
    factors = random_words(_SEEDS, torch.arange(tokens.shape[1], device=tokens.device), 1).squeeze(1)
    return (tokens.long() * factors).sum(1)


def random_words(seed: int, rows: Tensor, columns: int) -> Tensor:
    """Uniform integers in 0..2**63 - 1: int64 [n, columns] on the device of `rows`; each row is a splitmix64 stream.

    Args:
        seed: an int64, see `seed_of`.
        rows: int64 [n], the indices of the rows.
        columns: number of integers per row.
    """
    streams = _mix(rows * _STEP + seed)[:, None]
    return _shift_right(_mix(streams + torch.arange(1, columns + 1, device=rows.device) * _STEP), 1)


def uniform(seed: int, rows: Tensor, columns: int) -> Tensor:
    """Uniform numbers strictly between 0 and 1, fp32 [n, columns], from the leading bits of `random_words`."""
    return ((random_words(seed, rows, columns) >> _UNUSED_BITS).float() + 0.5) * 2.0 ** (_UNUSED_BITS - 63)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64; int64 products wrap around, as the unsigned ones of splitmix64 do."""
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical (unsigned) shift of `x` to the right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
