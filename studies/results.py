"""What the runs of a study show together: each arm over its seeds, the comparisons, and the claims of others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studies.comparing import BETTER, ONE_SEED, SAME, WORSE, Comparison, compare
from studies.records import Row
from studies.study_file import Budget, Study, claim_pair
from utils.errors import UserError

CLAIM_VERDICTS = {
    BETTER: "confirmed",
    WORSE: "denied: it is the other way round",
    SAME: "not shown",
    ONE_SEED: ONE_SEED,
}


@dataclass(frozen=True)
class ArmResult:
    """An arm over its seeds, in the order of the seeds."""

    arm: str
    rows: list[Row]
    comparison: Comparison | None  # with the baseline; None for the baseline itself

    @property
    def accuracies(self) -> np.ndarray:
        """Exact accuracy of each run, [seeds]."""
        return np.array([row.exact_accuracy for row in self.rows])

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None with a single one."""
        return float(self.accuracies.std(ddof=1)) if len(self.rows) > 1 else None

    @property
    def curve(self) -> np.ndarray:
        """Mean exact accuracy after each pass, [passes]."""
        return np.mean([row.exact_accuracy_after_pass for row in self.rows], axis=0)


@dataclass(frozen=True)
class Claim:
    """What somebody has reported, and how the runs compare."""

    source: str
    text: str
    comparison: Comparison

    @property
    def verdict(self) -> str:
        """Whether the runs confirm it."""
        return CLAIM_VERDICTS[self.comparison.verdict]


@dataclass(frozen=True)
class BudgetResult:
    """What holds when every arm gets as much of `budget` as the baseline.

    Attributes:
        budget: steps or flops.
        baseline: the arm that the others are compared with.
        arms: those that have runs, in the order of the study.
        claims: those whose two arms have runs.
        comparisons: how many comparisons the p-values are corrected for.
        missing: `ARM, seed N` of each run that has not ended.
    """

    budget: Budget
    baseline: str
    arms: list[ArmResult]
    claims: list[Claim]
    comparisons: int
    missing: list[str]


def results_of(study: Study, rows: Sequence[Row]) -> list[BudgetResult]:
    """The results at each budget of the study; rows of other arms and seeds do not count.

    Raises:
        UserError: two runs were evaluated on different puzzles.
    """
    counted = [row for row in rows if row.arm in study.arms and row.seed in study.seeds]
    for row in counted:
        first = counted[0]
        if (row.puzzles, row.puzzles_digest) != (first.puzzles, first.puzzles_digest):
            raise UserError(
                f"{row.arm}, seed {row.seed}, was evaluated on other puzzles ({row.puzzles}) than {first.arm}, seed "
                f"{first.seed} ({first.puzzles}), so they cannot be compared. Has a data set been built again in "
                "between? Run the study in a new folder, with --folder."
            )
    return [_result(study, budget, [row for row in counted if budget in row.budgets]) for budget in study.equal]


def _result(study: Study, budget: Budget, rows: Sequence[Row]) -> BudgetResult:
    by_run = {(row.arm, row.seed): row for row in rows}
    of_arm = {arm: [by_run[arm, seed] for seed in study.seeds if (arm, seed) in by_run] for arm in study.arms}
    right = {arm: np.stack([row.answers() for row in found]) for arm, found in of_arm.items() if found}
    baseline = study.baseline_arm
    pairs = [(arm, baseline) for arm in right if arm != baseline and baseline in right]
    claimed = {title: claim_pair(claim) for title, claim in study.claims.items()}
    known = {title: pair for title, pair in claimed.items() if pair is not None and set(pair) <= right.keys()}
    pairs += [pair for pair in dict.fromkeys(known.values()) if pair not in pairs and pair[::-1] not in pairs]
    comparisons = {(found.one, found.other): found for found in compare(right, pairs)}
    both_ways = comparisons | {(other, one): found.reversed() for (one, other), found in comparisons.items()}
    return BudgetResult(
        budget,
        baseline,
        [ArmResult(arm, of_arm[arm], comparisons.get((arm, baseline))) for arm in right],
        [Claim(title, study.claims[title], both_ways[pair]) for title, pair in known.items()],
        len(pairs),
        [f"{arm}, seed {seed}" for arm in study.arms for seed in study.seeds if (arm, seed) not in by_run],
    )
