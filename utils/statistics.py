"""Small statistics of shares: intervals, and a test of two results on the same examples."""

from math import lgamma, log, sqrt

import numpy as np


def wilson(successes: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a share, by default of 95 % confidence; (0, 1) without examples."""
    if not total:
        return 0.0, 1.0
    share = successes / total
    centre, spread = share + z * z / (2 * total), z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def paired_test(better: int, worse: int) -> float:
    """The two-sided p-value of McNemar's exact test.

    Args:
        better, worse: examples of which only the one result, and only the other result, is right.
    """
    n, k = better + worse, min(better, worse)
    if not n:
        return 1.0
    steps = np.arange(k + 1)
    logs = np.array([lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) - n * log(2) for i in steps.tolist()])
    return float(min(1.0, 2 * np.exp(logs).sum()))
