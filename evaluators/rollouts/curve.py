"""Accuracy against compute: what selectors give for 1, 2, 4, ... rollouts of 1, 2, 4, ... steps."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.tasks.symmetric import same_answer
from dataset.tasks.task import Task
from evaluators.rollouts.selectors import SELECTORS, Choice, Selector
from evaluators.rollouts.trajectories import Trajectories
from utils.statistics import paired_test, wilson

OUTCOMES = ("solved", "wrong", "undecided")
ANY = "any"  # the row that says whether one of the rollouts is right: a bound, since nobody knows which
_ONE_PASS = SELECTORS["last"]


@dataclass(frozen=True)
class Point:
    """What holds for one selector at one budget, over all puzzles. Shares of `OUTCOMES` add up to 1.

    Attributes:
        selector: its name, or `any`: one of so many rollouts is right, whichever.
        restarts, steps: the budget.
        puzzles: how many there were.
        solved: share of right answers, by the rules of the task, or by the labels if there are none.
        wrong: share of answers that are not right.
        undecided: share of puzzles without an answer, or without anything to check it by.
        exact: share of answers that are the label.
        low, high: 95 % confidence interval of `solved`.
        passes: passes of the model for a puzzle; a selector that knows its answer early takes no more of them.
        gflops: floating-point operations for a puzzle, in 10^9.
        better, worse: puzzles that only this selector solves, and only one pass of the trained depth.
        p: p-value of the paired test of the two (McNemar).
    """

    selector: str
    restarts: int
    steps: int
    puzzles: int
    solved: float
    wrong: float
    undecided: float
    exact: float
    low: float
    high: float
    passes: float
    gflops: float
    better: int
    worse: int
    p: float


class Judge:
    """Whether the answers to one puzzle are right.

    Args:
        task: the task.
        question: tokens [seq].
        label: tokens of the solution, 0 where nothing is asked for; None: unknown.
    """

    def __init__(self, task: Task, question: np.ndarray, label: np.ndarray | None):
        self.task, self.question, self.label = task, question, label
        self._known: dict[bytes, tuple[int, bool]] = {}
        self._obeys: dict[bytes, bool] = {}

    def outcomes(self, answers: np.ndarray) -> list[tuple[int, bool]]:
        """(place in `OUTCOMES`, whether it is the label) of each answer, tokens [n, seq]."""
        keys = [answer.tobytes() for answer in answers]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            statuses = self.task.statuses(self.question, answers[new], self.label)
            for place, status in zip(new, statuses, strict=True):
                exact = self.label is not None and same_answer(answers[place], self.label)
                self._known[keys[place]] = OUTCOMES.index(status), exact
        return [self._known[key] for key in keys]

    def verify(self, answers: np.ndarray) -> np.ndarray:
        """Which answers obey the rules, whatever the label is; bool [n]."""
        keys = [answer.tobytes() for answer in answers]
        new = [place for place, key in enumerate(keys) if key not in self._obeys]
        if new:
            statuses = self.task.statuses(self.question, answers[new])
            self._obeys |= {keys[place]: status == "solved" for place, status in zip(new, statuses, strict=True)}
        return np.array([self._obeys[key] for key in keys], np.bool_)


def powers(most: int, *more: int) -> list[int]:
    """1, 2, 4, ... up to `most`, `most` itself, and those of `more` that are smaller; ascending."""
    found = {1 << power for power in range(most.bit_length())} | {most} | {n for n in more if 0 < n < most}
    return sorted(found)


class Curve:
    """Sums over puzzles for every selector and budget.

    Args:
        selectors: what chooses.
        restarts, steps: the budgets, ascending.
        trained_steps: steps of the one pass that everything is compared with.
        sums, puzzles: where to begin.
    """

    def __init__(
        self,
        selectors: Sequence[Selector],
        restarts: Sequence[int],
        steps: Sequence[int],
        trained_steps: int,
        sums: np.ndarray | None = None,
        puzzles: int = 0,
    ):
        self.selectors, self.restarts, self.steps = list(selectors), list(restarts), list(steps)
        self.trained_steps = min(trained_steps, self.steps[-1])
        shape = (len(self.selectors) + 1, len(self.restarts), len(self.steps))
        # by selector (the last is ANY) and budget: the outcomes, exact answers, passes, and the paired counts
        self.sums = np.zeros((*shape, len(OUTCOMES) + 4)) if sums is None else sums
        self.puzzles = puzzles

    def add(self, found: Trajectories, judge: Judge, resampled: dict[int, Trajectories] | None = None) -> None:
        """Count one puzzle.

        Args:
            found: its rollouts, as many as the largest budget has.
            judge: knows the right answers.
            resampled: by number of particles, the rollouts for selectors that resample.
        """
        self.puzzles += 1
        one = self._outcome(found.cut(1, self.trained_steps), _ONE_PASS, judge)[0] == 0
        for place, selector in enumerate(self.selectors):
            for r, restarts in enumerate(self.restarts):
                source = resampled[restarts] if selector.resamples and resampled is not None else found
                for s, steps in enumerate(self.steps):
                    part = source.cut(min(restarts, selector.rollouts or restarts), steps)
                    outcome, exact, choice = self._outcome(part, selector, judge)
                    needed = steps if choice is None or choice.needed is None else choice.needed
                    self._count(place, r, s, outcome, exact, part.passes(needed), one)
        self._add_any(found, judge)

    def _outcome(self, found: Trajectories, selector: Selector, judge: Judge) -> tuple[int, bool, Choice | None]:
        choice = selector.choose(found, judge.verify)
        if choice is None:
            return OUTCOMES.index("undecided"), False, None
        return *judge.outcomes(found.answers[choice.rollout, choice.step][None])[0], choice

    def _count(self, place: int, r: int, s: int, outcome: int, exact: bool, passes: int, one: bool) -> None:
        row = self.sums[place, r, s]
        row[outcome] += 1
        row[3:] += [exact, passes, outcome == 0 and not one, outcome != 0 and one]

    def _add_any(self, found: Trajectories, judge: Judge) -> None:
        """Whether one of k rollouts is right, as the mean over all choices of k of them."""
        most = found.restarts
        for s, steps in enumerate(self.steps):
            judged = judge.outcomes(found.answers[:, steps - 1])
            right, exact = sum(outcome == 0 for outcome, _ in judged), sum(same for _, same in judged)
            for r, restarts in enumerate(self.restarts):
                share = share_of_lucky(restarts, most, right)
                row = self.sums[-1, r, s]
                row[:3] += [share, 1 - share, 0.0]
                row[3:5] += [share_of_lucky(restarts, most, exact), found.cut(restarts, steps).passes(steps)]

    def summed(self, device: torch.device, sum_over_ranks: Any) -> "Curve":
        """The curve over the puzzles of all ranks. Collective."""
        values = torch.from_numpy(np.append(self.sums.ravel(), self.puzzles)).to(torch.float64)
        summed = sum_over_ranks(values.to(device))[0].cpu().numpy()
        sums = summed[:-1].reshape(self.sums.shape)
        return Curve(self.selectors, self.restarts, self.steps, self.trained_steps, sums, int(summed[-1]))

    def points(self, flops_per_pass: float) -> list[Point]:
        """What holds at each budget; empty without a puzzle."""
        if not self.puzzles:
            return []
        found = []
        for place, name in enumerate([*(selector.name for selector in self.selectors), ANY]):
            for r, restarts in enumerate(self.restarts):
                for s, steps in enumerate(self.steps):
                    sums = self.sums[place, r, s].tolist()
                    solved, wrong, undecided, exact, passes = (value / self.puzzles for value in sums[:5])
                    better, worse = (int(value) for value in sums[5:])
                    low, high = wilson(round(sums[0]), self.puzzles)
                    p = paired_test(better, worse) if name != ANY else float("nan")
                    found.append(
                        Point(
                            name, restarts, steps, self.puzzles, solved, wrong, undecided, exact, low, high, passes,
                            passes * flops_per_pass / 1e9, better, worse, p,
                        )
                    )  # fmt: skip
        return found


def share_of_lucky(k: int, n: int, right: int) -> float:
    """The probability that one of k different ones out of n is right, if `right` of the n are. ("pass@k")"""
    return 1 - comb(n - right, k) / comb(n, k)


def table(points: Sequence[Point], restarts: int, steps: int) -> str:
    """The points of one budget as lines of text."""
    lines = [
        f"{'selector':<20}{'solved':>8}{'95 %':>16}{'wrong':>8}{'undecided':>11}{'exact':>8}{'passes':>9}{'GFLOP':>9}"
        f"{'p':>10}"
    ]
    for point in points:
        if (point.restarts, point.steps) != (restarts, steps):
            continue
        interval = f"{point.low:.4f}-{point.high:.4f}" if point.selector != ANY else ""
        p = f"{point.p:.1e}" if point.p == point.p else ""
        lines.append(
            f"{point.selector:<20}{point.solved:>8.4f}{interval:>16}{point.wrong:>8.4f}{point.undecided:>11.4f}"
            f"{point.exact:>8.4f}{point.passes:>9.1f}{point.gflops:>9.2f}{p:>10}"
        )
    return "\n".join(lines)


def write_csv(points: Sequence[Point], path: Path) -> None:
    """Write all points, a line each."""
    names = [field.name for field in fields(Point)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for point in points:
            values = [getattr(point, name) for name in names]
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the share of solved puzzles against the passes, as a PNG.

    On the left more rollouts of all steps, a line for each selector; on the right more steps, for 1, 2, 4, ... rollouts
    selected by the halting head, or by the first selector if that is not there.
    """
    from matplotlib.figure import Figure  # imported here: it takes a second, and few evaluations draw

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    by_restarts, by_steps = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(point.selector for point in points))
    most = max(point.steps for point in points)
    for number, name in enumerate(names):
        line = [point for point in points if point.selector == name and point.steps == most]
        if name == _ONE_PASS.name:
            by_restarts.axhline(line[0].solved, color="#777777", linestyle=":", label="one pass")
            continue
        style = {"color": _COLORS[number % len(_COLORS)], "linestyle": "--" if name == ANY else "-", "marker": "o"}
        x = [point.passes for point in line]
        by_restarts.plot(x, [point.solved for point in line], label=name.replace("_", " "), markersize=3, **style)
        if name != ANY:
            low, high = [point.low for point in line], [point.high for point in line]
            by_restarts.fill_between(x, low, high, color=style["color"], alpha=0.1, linewidth=0)
    chosen = "halting_head" if "halting_head" in names else names[0]
    counts = sorted({point.restarts for point in points})
    for number, restarts in enumerate(counts):
        line = [point for point in points if (point.selector, point.restarts) == (chosen, restarts)]
        shade = 0.25 + 0.75 * number / max(1, len(counts) - 1)
        x, y = [point.passes for point in line], [point.solved for point in line]
        by_steps.plot(x, y, "o-", markersize=3, color="#0072B2", alpha=shade, label=f"{restarts} rollouts")
    by_restarts.set(ylabel="share of the puzzles solved", title=f"1 to {counts[-1]} rollouts of {most} steps")
    by_steps.set(title=f"1 to {most} steps, {chosen.replace('_', ' ')}")
    for axis in (by_restarts, by_steps):
        axis.set(xscale="log", xlabel="passes of the model for a puzzle")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path)


_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
