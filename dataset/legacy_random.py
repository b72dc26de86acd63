"""The random numbers of `numpy.random.seed(s)` and the legacy functions, drawn one by one with less overhead."""

from collections.abc import MutableSequence
from typing import Any

import numpy as np


class LegacyRandom:
    """Draws exactly the numbers of `numpy.random.RandomState(seed)`.

    Published data sets were built with numpy's legacy generator, one number at a time. Its `randint` spends most of its
    time on checking arguments. `below` draws directly from the same bit generator, and is several times as fast.
    """

    def __init__(self, seed: int) -> None:
        bits = np.random.MT19937()
        generator = np.random.RandomState(bits)
        generator.seed(seed)
        self._word = bits.random_raw
        self._shuffle = generator.shuffle

    def below(self, end: int) -> int:
        """`randint(0, end)` for 1 <= end <= 2**32: draw words, masked to the bits needed, until one is below `end`."""
        if end == 1:
            return 0  # numpy draws nothing in this case
        mask = (1 << (end - 1).bit_length()) - 1
        while (number := self._word() & mask) >= end:
            pass
        return number

    def shuffle(self, items: MutableSequence[Any] | np.ndarray) -> None:
        """`shuffle(items)`, in place. `permutation(array)` is the same on a copy."""
        self._shuffle(items)
