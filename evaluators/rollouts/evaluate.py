"""Evaluates a set by rollouts: every selector at every budget, on the same rollouts of the same puzzles."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dataset.puzzle_dataset import EvalBatches
from dataset.tasks.own_code import verdict_of
from dataset.tasks.task import Task
from evaluators.rollouts.curve import Curve, Judge, Point, draw, powers, table, write_csv
from evaluators.rollouts.run import Puzzle, RolloutRule, roll_out
from evaluators.rollouts.selectors import SELECTORS, Selector
from evaluators.rollouts.trajectories import Trajectories
from models.losses import ACTLossHead
from utils.distributed import Ranks, barrier, summed_over_ranks

Example = tuple[Puzzle, Judge]
_KEPT_BYTES = 1 << 28  # of answers that wait for those of particle filters


@dataclass(frozen=True)
class RolloutEvaluation:
    """How a set is evaluated.

    Attributes:
        rule: the rollouts.
        selectors: what chooses among them; see `default_selectors`.
        curve: whether to report smaller budgets too. Without, a puzzle whose answer all selectors know leaves early.
        rows: rows of a batch in this process.
    """

    rule: RolloutRule
    selectors: list[Selector]
    curve: bool
    rows: int


def default_selectors(task: Task, question: np.ndarray) -> list[Selector]:
    """All selectors that one set of rollouts serves; the verifier only if the task has rules."""
    rules = task.solved_check in task.checks or verdict_of(task, question, question).checked
    return [one for one in SELECTORS.values() if not one.resamples and (rules or not one.verifies)]


def rollout_points(
    head: ACTLossHead,
    task: Task,
    examples: Iterable[Example],
    how: RolloutEvaluation,
    flops_per_pass: float,
    ranks: Ranks,
) -> list[Point]:
    """What holds for each selector at each budget. Collective.

    Args:
        head: the model, in evaluation mode.
        task: the task of the data.
        examples: the examples of this rank, each with its judge.
        how: the rollouts and the selectors.
        flops_per_pass: floating-point operations of one pass over one example.
        ranks: the rank of this process.

    Raises:
        UserError: see `evaluators.rollouts.run.roll_out`.
    """
    rule, trained = how.rule, head.model.config.halt_max_steps
    limit = head.model.steps_limit(rule.steps)
    restarts, steps = (powers(rule.restarts), powers(limit, trained)) if how.curve else ([rule.restarts], [limit])
    curve = Curve(how.selectors, restarts, steps, trained)
    # a smaller number of particles is another filter, not a part of a larger one
    filters = restarts if any(selector.resamples for selector in how.selectors) else []
    most = max(1, _KEPT_BYTES // (sum(filters) * limit * task.seq_len)) if filters else None
    hidden = None if ranks.is_main else True
    with tqdm(desc="rollouts", unit=" puzzles", disable=hidden, leave=False) as progress:
        for puzzles in _parts(iter(examples), most):
            judges: dict[int, Judge] = {}
            resampled: dict[int, dict[int, Trajectories]] = {}
            for particles in filters:
                assert isinstance(puzzles, list)
                fewer = replace(rule, restarts=particles)
                given = _judged(puzzles, judges)
                resampled[particles] = dict(roll_out(head, task, given, fewer, how.rows, resample=particles > 1))
            known = None if how.curve or filters else _known(how.selectors, judges)
            for number, found in roll_out(head, task, _judged(puzzles, judges), rule, how.rows, known=known):
                own = {particles: by_puzzle.pop(number) for particles, by_puzzle in resampled.items()}
                curve.add(found, judges.pop(number), own)
                progress.update()
    barrier()
    device = next(head.parameters()).device
    return curve.summed(device, summed_over_ranks).points(flops_per_pass)


def examples_of(batches: EvalBatches, task: Task) -> Iterator[Example]:
    """The examples of a data set, each with its judge."""
    dtype = task.token_dtype
    for batch in batches:
        rows = zip(batch["inputs"], batch["labels"], batch["puzzle_identifiers"], strict=True)
        for tokens, label, identifier in rows:
            question, known = np.asarray(tokens).astype(dtype), np.where(label > 0, label, 0).astype(dtype)
            yield (question, int(identifier)), Judge(task, question, known if known.any() else None)


def _parts(examples: Iterator[Example], most: int | None) -> Iterator[Iterable[Example]]:
    """Lists of at most `most` examples; None: all of them at once, which are not kept."""
    if most is None:
        yield examples
    else:
        while part := list(islice(examples, most)):
            yield part


def _judged(examples: Iterable[Example], judges: dict[int, Judge]) -> Iterator[Puzzle]:
    """The puzzles; their judges are added to `judges` by number, as they are taken."""
    for number, (puzzle, judge) in enumerate(examples):
        judges[number] = judge
        yield puzzle


def _known(selectors: Sequence[Selector], judges: dict[int, Judge]) -> Callable[[int, Trajectories], bool]:
    """Whether all selectors know their answer."""

    def known(number: int, found: Trajectories) -> bool:
        choices = (one.choose(found, judges[number].verify) for one in selectors)
        return all(choice is not None and choice.needed is not None for choice in choices)

    return known


def report_rollouts(points: list[Point], rule: RolloutRule, folder: Path) -> dict[str, Any]:
    """Print a table of the full budget, and write rollouts.csv and rollouts.png; returns what is for results.json."""
    if not points:
        print("\nrollouts: there is no example")
        return {}
    steps = max(point.steps for point in points)
    print(f"\n{rule.restarts} rollouts of {steps} steps, vary={rule.vary}, {points[0].puzzles} puzzles:")
    print(table(points, rule.restarts, steps))
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(points, folder / "rollouts.csv")
    draw(points, folder / "rollouts.png")
    return {"rule": asdict(rule), "points": [asdict(point) for point in points]}
