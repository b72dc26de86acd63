"""Which differences between experiments are real: their runs compared on the same puzzles, over seeds and puzzles.

The gap of two experiments is the difference of their mean accuracies. It would be another with other seeds and with
other puzzles, so its variance has two parts, which are added as for data with two crossed groupings (Cameron, Gelbach
and Miller 2011, "Robust inference with multiway clustering"):

    seeds      v_A / n_A + v_B / n_B, with v the variance of the accuracy over seeds and n the number of seeds
    puzzles    the variance of the difference on a puzzle, divided by the number of puzzles, without what the seeds
               contribute to it, which the first part has already

The variance over three seeds is itself badly known. With enough experiments, that of each is therefore averaged with
the variance that all of them have relative to a (1 - a), where a is the accuracy. The weight of this common value
follows from how much the experiments differ in it (Smyth 2004, "Linear models and empirical Bayes methods"), and is at
most that of the experiment's own: then even experiments whose variances differ tenfold are rarely called different.

The gap over its standard error follows Student's distribution, with the degrees of freedom of Welch and Satterthwaite.
There is no bootstrap over seeds: drawn from three seeds, its variance is a third too small, and nothing in it makes up
for how badly three seeds know their variance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from studies.student import t_limit, t_tail

LEVEL = 0.05  # share of identical experiments that may be called different
BETTER, WORSE, SAME, ONE_SEED = "better", "worse", "no difference shown", "one seed: no result"
_FEWEST_GROUPS = 6  # whose variances can say how much variances differ
# weights of the common variance, in degrees of freedom, and values of it, among which the likelihood chooses
_PRIOR_FREEDOMS = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
_PRIOR_RATIOS = np.geomspace(1e-7, 1.0, 141)


@dataclass(frozen=True)
class SeedSpread:
    """What the seeds of an experiment do to its accuracy."""

    variance: float  # of the accuracy of one run
    freedom: float  # degrees of freedom with which the variance is known
    seeds: int

    @property
    def of_mean(self) -> float:
        """The variance of the mean over the seeds."""
        return self.variance / self.seeds


@dataclass(frozen=True)
class Comparison:
    """One experiment compared with another. Accuracies are shares of the puzzles, from 0 to 1.

    Attributes:
        one, other: their names.
        gap: mean accuracy of `one` minus that of `other`.
        interval: 95 % interval of the gap; None with a single seed, as are the next three.
        floor: the seed floor: two groups of so many seeds of one and the same experiment differ by more than this in
            5 % of all cases.
        p: probability of a gap of this size between experiments that are equally good.
        corrected_p: the same for any of all comparisons that are made at once (Holm 1979).
        verdict: `BETTER`, `WORSE`, `SAME` or `ONE_SEED`; of `one`.
    """

    one: str
    other: str
    gap: float
    interval: tuple[float, float] | None
    floor: float | None
    p: float | None
    corrected_p: float | None
    verdict: str

    def reversed(self) -> "Comparison":
        """The same comparison, of `other` with `one`."""
        interval = None if self.interval is None else (-self.interval[1], -self.interval[0])
        verdict = {BETTER: WORSE, WORSE: BETTER}.get(self.verdict, self.verdict)
        return replace(self, one=self.other, other=self.one, gap=-self.gap, interval=interval, verdict=verdict)


def compare(right: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Compare the experiments of each pair.

    Args:
        right: name of an experiment -> which run answered which puzzle correctly, bool [seeds, puzzles]; the puzzles
            are the same for all.
        pairs: the names to compare. The correction is for all of them.
    """
    spreads = seed_spreads(right)
    measured = [_measure(right[one], right[other], spreads.get(one), spreads.get(other)) for one, other in pairs]
    corrected = iter(holm([found[3] for found in measured if found is not None]))
    comparisons: list[Comparison] = []
    for (one, other), found in zip(pairs, measured, strict=True):
        gap = float(right[one].mean() - right[other].mean())
        if found is None:
            comparisons.append(Comparison(one, other, gap, None, None, None, None, ONE_SEED))
            continue
        error, freedom, floor, p = found
        reach, corrected_p = t_limit(LEVEL, freedom) * error, next(corrected)
        shown = corrected_p < LEVEL and abs(gap) > floor
        verdict = SAME if not shown else BETTER if gap > 0 else WORSE
        interval = (gap - reach, gap + reach)
        comparisons.append(Comparison(one, other, gap, interval, floor, p, corrected_p, verdict))
    return comparisons


def seed_spreads(right: Mapping[str, np.ndarray]) -> dict[str, SeedSpread]:
    """The spread over seeds of each experiment that has at least two; see the module."""
    several = {name: of for name, of in right.items() if len(of) > 1}
    puzzles = max((of.shape[1] for of in several.values()), default=1)
    counts = np.array([len(of) for of in several.values()], np.float64)
    # no accuracy is known better than to a part of a puzzle
    own = np.array([max(of.mean(1).var(ddof=1), 1 / (12 * puzzles**2)) for of in several.values()])
    means = np.clip([of.mean() for of in several.values()], 0.5 / puzzles, 1 - 0.5 / puzzles)
    scale = means * (1 - means)
    weight, ratio = _common(own / scale, counts - 1) if len(several) >= _FEWEST_GROUPS else (0.0, 0.0)
    freedoms = counts - 1 + weight
    variances = ((counts - 1) * own + weight * ratio * scale) / freedoms
    return {
        name: SeedSpread(float(variance), float(freedom), int(count))
        for name, variance, freedom, count in zip(several, variances, freedoms, counts, strict=True)
    }


def _common(ratios: np.ndarray, freedoms: np.ndarray) -> tuple[float, float]:
    """(weight in degrees of freedom, at most that of the groups' own; value) of the variance that all have in common.

    A ratio over the common value follows the F distribution with (its freedom, weight) degrees of freedom. Weight and
    value are means over their likelihood, on logarithmic scales.
    """
    d, d0, x = freedoms, _PRIOR_FREEDOMS[:, None, None], ratios / _PRIOR_RATIOS[None, :, None]
    lgamma = np.vectorize(math.lgamma)
    log_beta = lgamma(d / 2) + lgamma(d0 / 2) - lgamma((d + d0) / 2)
    log_f = d / 2 * np.log(d / d0) + (d / 2 - 1) * np.log(x) - (d + d0) / 2 * np.log1p(d * x / d0) - log_beta
    likelihood = (log_f - np.log(_PRIOR_RATIOS)[None, :, None]).sum(-1)
    weights = np.exp(likelihood - likelihood.max())
    weights /= weights.sum()
    weight = math.exp((weights.sum(1) * np.log(_PRIOR_FREEDOMS)).sum())
    return min(weight, float(d.mean())), math.exp((weights.sum(0) * np.log(_PRIOR_RATIOS)).sum())


def _measure(
    one: np.ndarray, other: np.ndarray, a: SeedSpread | None, b: SeedSpread | None
) -> tuple[float, float, float, float] | None:
    """(standard error of the gap, its degrees of freedom, seed floor, p); None with a single seed."""
    if a is None or b is None:
        return None
    puzzles = one.shape[1]
    seeds = a.of_mean + b.of_mean
    differences = one.mean(0) - other.mean(0)
    # what the seeds contribute to the variance of the differences
    shared = (one.var(0, ddof=1).mean() / a.seeds + other.var(0, ddof=1).mean() / b.seeds) / puzzles
    over_puzzles = max(0.0, float(differences.var(ddof=1)) / puzzles - float(shared)) if puzzles > 1 else 0.0
    variance = seeds + over_puzzles
    squares = a.of_mean**2 / a.freedom + b.of_mean**2 / b.freedom
    freedom = variance**2 / (squares + over_puzzles**2 / max(1, puzzles - 1))
    floor = t_limit(LEVEL, seeds**2 / squares) * math.sqrt(seeds)
    error = math.sqrt(variance)
    return error, freedom, floor, t_tail(float(differences.mean()) / error, freedom)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for being many, in the order given (Holm 1979)."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected
