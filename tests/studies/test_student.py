"""Student's distribution against printed tables."""

import math

import pytest

from studies.student import t_limit, t_tail


@pytest.mark.parametrize(
    ("share", "freedom", "limit"),
    [(0.05, 1, 12.7062), (0.05, 2, 4.3027), (0.05, 4, 2.7764), (0.01, 4, 4.6041), (0.05, 30, 2.0423),
     (0.001, 10, 4.5869), (0.1, 2.5, 2.5582), (0.05, 1e6, 1.95997),
     (1e-4, 1, 6366.1977)],
)  # fmt: skip
def test_limits_are_those_of_the_tables(share: float, freedom: float, limit: float):
    assert t_limit(share, freedom) == pytest.approx(limit, abs=2e-4)
    assert t_tail(limit, freedom) == pytest.approx(share, rel=1e-3)


def test_the_tails_of_two_distributions_with_a_formula():
    for t in (0.0, 0.1, 1.0, 5.0, 300.0):
        assert t_tail(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-12)
        assert t_tail(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)
