"""Student's t distribution, of which neither Python nor NumPy has the distribution function."""

import math
from statistics import NormalDist

_STEPS = 10_000  # of the continued fraction; it needs about the square root of the larger parameter
_TINY = 1e-300  # in place of a zero that would be divided by


def t_tail(t: float, freedom: float) -> float:
    """The probability that |T| >= |t|, for T of Student's distribution with `freedom` > 0 degrees of freedom."""
    return 1.0 if t == 0 else _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def t_limit(share: float, freedom: float) -> float:
    """The t with `t_tail(t, freedom) == share`, for 0 < share < 1."""
    t = NormalDist().inv_cdf(1 - share / 2)  # below the result, from where Newton's method rises to it
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    for _ in range(200):
        density = math.exp(log_scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (t_tail(t, freedom) - share) / (2 * density)
        t += step
        if step <= 1e-12 * t:
            break
    return t


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # there the fraction of the complement converges faster
        return 1 - _incomplete_beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) / a * _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction 1 / (1 + d1 / (1 + d2 / (1 + ...))) of DLMF 8.17.23, by Lentz's method."""
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or _TINY)
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for coefficient in (even, odd):
            d = 1 / ((1 + coefficient * d) or _TINY)
            c = (1 + coefficient / c) or _TINY
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
