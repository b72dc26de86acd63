"""Random numbers as a pure function of (seed, row, column): the same bits on every device.

A generator with a state would make a row's numbers depend on the rows drawn before it, and differ between devices.
"""

import numpy as np
import torch
from torch import Tensor


def _signed(bits: int) -> int:
    """64 bits as the int64 of the same bits."""
    return bits - (1 << 64) if bits >> 63 else bits


# the constants of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)
_STEP, _FIRST, _SECOND = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def seed_of(*entropy: int) -> int:
    """One int64 seed of several whole numbers >= 0, such as (seed, what for, step); zeros at the end do not count."""
    return _signed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


def random_words(seed: int, rows: Tensor, columns: int) -> Tensor:
    """Uniform whole numbers in 0..2**63 - 1: int64 [n, columns], each row a splitmix64 stream of its own.

    Args:
        seed: an int64, see `seed_of`.
        rows: int64 [n], which rows; the device of the result.
        columns: numbers of a row.
    """
    streams = _mixed(rows * _STEP + seed)[:, None]
    return _shifted(_mixed(streams + torch.arange(1, columns + 1, device=rows.device) * _STEP), 1)


def _mixed(x: Tensor) -> Tensor:
    """The finaliser of splitmix64; int64 products wrap around, as there."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """`x` >> `bits` as if it had no sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
