"""Comparisons of simulated experiments, of which the truth is known."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from studies.comparing import BETTER, ONE_SEED, SAME, WORSE, Comparison, compare, holm, seed_spreads

SEEDS, PUZZLES, PAIRS = 3, 300, 200


def answers(
    rng: np.random.Generator, difficulty: np.ndarray, ability: float, spread: float = 0.25, seeds: int = SEEDS
) -> np.ndarray:
    """Right answers of the runs of an experiment, bool [seeds, puzzles]: each run has its own ability and its luck."""
    of_run = ability + spread * rng.standard_normal((seeds, 1))
    return of_run + 1.5 * rng.standard_normal((seeds, len(difficulty))) > difficulty


def pair(rng: np.random.Generator, abilities: tuple[float, float], seeds: int = SEEDS) -> Comparison:
    difficulty = 2 * rng.standard_normal(PUZZLES)
    right = {
        name: answers(rng, difficulty, ability, seeds=seeds) for name, ability in zip("ab", abilities, strict=True)
    }
    (found,) = compare(right, [("a", "b")])
    return found


def test_identical_experiments_are_rarely_called_different_and_two_floors_are_found():
    """One in twenty of 200 pairs at most, for several seeds and accuracies; the floor is what two groups differ by."""
    rng = np.random.default_rng(0)
    for seeds, ability in ((3, 0.0), (5, 1.5)):
        same = [pair(rng, (ability, ability), seeds) for _ in range(PAIRS)]
        assert sum(found.verdict != SAME for found in same) <= 0.05 * PAIRS
        gaps, floors = np.array([found.gap for found in same]), np.array([found.floor or 0 for found in same])
        assert (np.abs(gaps) > floors).mean() <= 0.08  # 5 % are expected
        typical = float(np.median(floors))
        assert typical > np.quantile(np.abs(gaps), 0.8)
        # an ability by which the second is worse by two floors
        worse = next(a for a in np.arange(ability, -9, -0.05) if share(ability) - share(a) > 2 * typical)
        different = [pair(rng, (ability, float(worse)), seeds) for _ in range(PAIRS)]
        assert np.mean([found.gap for found in different]) == pytest.approx(2 * typical, rel=0.15)
        assert sum(found.verdict == BETTER for found in different) >= 0.9 * PAIRS
        assert not any(found.verdict == WORSE for found in different)


def share(ability: float) -> float:
    """The expected accuracy of an ability: difficulty, run and luck are normal."""
    return NormalDist(0, math.sqrt(2**2 + 0.25**2 + 1.5**2)).cdf(ability)


def test_among_many_identical_experiments_few_studies_name_any():
    """Fifteen experiments whose spreads over seeds differ widely; the spread of each is moderated by the others'."""
    rng, named = np.random.default_rng(1), 0
    for _ in range(40):
        difficulty = 2 * rng.standard_normal(200)
        spreads = 0.25 * np.exp(0.7 * rng.standard_normal(15))
        right = {f"e{n}": answers(rng, difficulty, 0.5, spread) for n, spread in enumerate(spreads)}
        named += any(found.verdict != SAME for found in compare(right, [(f"e{n}", "e0") for n in range(1, 15)]))
    assert named <= 4
    assert {spread.freedom > SEEDS - 1 for spread in seed_spreads(right).values()} == {True}


def test_puzzles_count_too():
    """Experiments that answer other puzzles are not told apart by few puzzles, however alike their seeds are."""
    few, many = np.zeros((2, 5, 20), bool), np.zeros((2, 5, 2000), bool)
    for right in (few, many):
        count = right.shape[-1]
        right[0, :, : 11 * count // 20] = True
        right[1, :, 7 * count // 20 : 16 * count // 20] = True
    verdicts = [compare({"a": of[0], "b": of[1]}, [("a", "b")])[0] for of in (few, many)]
    assert [found.gap for found in verdicts] == pytest.approx([0.1, 0.1])
    assert [found.verdict for found in verdicts] == [SAME, BETTER]
    assert all(found.floor is not None and found.floor < 0.05 for found in verdicts)


def test_one_seed_is_no_result():
    right = {"a": np.ones((1, 50), bool), "b": np.zeros((1, 50), bool), "c": np.zeros((3, 50), bool)}
    for found in compare(right, [("a", "b"), ("a", "c"), ("c", "b")]):
        assert (found.verdict, found.p, found.floor, found.interval) == (ONE_SEED, None, None, None)
    assert compare(right, [("a", "b")])[0].gap == 1.0


def test_seeds_that_agree_to_the_puzzle_do_not_make_any_gap_significant():
    one, other = np.zeros((3, 100), bool), np.zeros((3, 100), bool)
    one[:, :50], other[:, :49] = True, True
    (found,) = compare({"a": one, "b": other}, [("a", "b")])
    assert found.verdict == SAME
    assert found.p is not None
    assert found.p > 0.05


def test_the_correction_of_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
