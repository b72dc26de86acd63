"""The random numbers against splitmix64 in Python's whole numbers, and their statistics."""

import numpy as np
import torch

from utils.counter_random import random_words, seed_of

MASK, STEP = (1 << 64) - 1, 0x9E3779B97F4A7C15


def finalised(x: int) -> int:
    x &= MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def test_the_generator_is_splitmix64():
    # the published generator's first outputs for the state 1234567
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [finalised(1234567 + i * STEP) for i in range(1, 5)] == outputs


def test_words_are_those_of_plain_whole_numbers():
    rows = [0, 1, 5, 1 << 40]
    for seed in (0, 1, -1, seed_of(3, 2, 1), (1 << 63) - 1, -(1 << 63)):
        words = random_words(seed, torch.tensor(rows), 6)
        assert words.dtype == torch.int64
        for row, found in zip(rows, words.tolist(), strict=True):
            stream = finalised(seed + row * STEP)
            assert found == [finalised(stream + column * STEP) >> 1 for column in range(1, 7)]


def test_words_are_uniform_and_uncorrelated():
    n = 50_000
    words = random_words(seed_of(0, 1), torch.arange(n), 4).numpy()
    for shift in (0, 20, 40, 55):  # low, middle and high bits
        for column in range(4):
            counts = np.bincount(words[:, column] >> shift & 255, minlength=256)
            assert ((counts - n / 256) ** 2 / (n / 256)).sum() < 255 + 4.5 * 510**0.5
    together = np.concatenate([words[1:], words[:-1]], axis=1).astype(float)  # columns of a row, and of its neighbour
    correlations = np.corrcoef(together.T) - np.eye(8)
    assert np.abs(correlations).max() < 5 / n**0.5


def test_seeds_differ_in_every_part():
    seeds = {seed_of(*parts) for parts in ((0, 1), (1, 0), (1, 0, 5), (1, 0, 6), (1, 1, 5), (2, 0))}
    assert len(seeds) == 6
    assert all(-(1 << 63) <= seed < 1 << 63 for seed in seeds)
    assert seed_of(4, 5) == seed_of(4, 5)
