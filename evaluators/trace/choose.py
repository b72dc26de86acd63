"""Which puzzles of a set to trace: failed or solved ones, slow ones, random ones, or given ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataset.puzzle_dataset import EvalBatches, Shard, Source
from dataset.tasks.task import Task
from evaluators.answers import HaltRule
from evaluators.trace.record import record
from evaluators.trace.trace import Trace, join
from models.losses import ACTLossHead
from utils.errors import UserError
from utils.settings import TraceChoice

_AT_ONCE = 64  # examples that are tried at once


def trace_examples(
    head: ACTLossHead,
    source: Source,
    shard: Shard,
    task: Task,
    about: Mapping[str, Any],
    count: int,
    choice: TraceChoice | Sequence[int],
    *,
    rule: HaltRule,
    early_halting: bool,
    max_steps: int | None = None,
    inner: bool = False,
    max_examples: int | None = None,
    seed: int = 0,
    rows: int | None = None,
) -> Trace | None:
    """The trace of at most `count` examples of a set; None if there are none of the kind that was asked for.

    Args:
        head, task, about, rule, early_halting, max_steps, inner, rows: see `evaluators.trace.record.record`.
        source, shard: the set.
        count: how many to choose.
        choice: `failed` or `solved` ones, as far as there are; `mixed`: half of both, filled up; `slow`: the solved
            ones whose answer was right last, the slowest first; `random`; or the places of examples in the set.
        max_examples, seed: choose from a random subset of this size, drawn with this seed; `random` uses it too.

    Raises:
        UserError: a given place is not in the set, or `inner` is not possible.
    """

    def recorded(examples: Sequence[int] | np.ndarray, inner: bool) -> Trace:
        batch = EvalBatches(source, shard, max(1, len(examples)), examples=list(map(int, examples)))[0]
        index = batch["example_index"]
        halting = {"rule": rule, "early_halting": early_halting, "max_steps": max_steps}
        return record(head, batch, task, about, index=index, inner=inner, rows=rows, **halting)

    everything = EvalBatches(source, shard, 1, max_examples=max_examples, seed=seed).examples
    if not isinstance(choice, str):
        size = len(shard.inputs)
        outside = [place for place in choice if not 0 <= place < size]
        if outside:
            raise UserError(f"trace_choice: example {outside[0]}: {shard.name} has the examples 0 to {size - 1}.")
        return recorded(list(dict.fromkeys(choice)), inner) if choice else None
    if choice == "random":
        rng = np.random.default_rng(seed)
        return recorded(np.sort(rng.choice(everything, min(count, len(everything)), replace=False)), inner)
    parts: list[Trace] = []
    found = {True: 0, False: 0}  # solved, failed
    half = count // 2
    wanted = {"failed": {True: 0, False: count}, "solved": {True: count, False: 0}, "slow": {True: np.inf, False: 0}}
    for start in range(0, len(everything), _AT_ONCE):
        part = recorded(everything[start : start + _AT_ONCE], False)
        parts.append(part)
        for kind in found:
            found[kind] += int((part.solved == kind).sum())
        if all(found[kind] >= most for kind, most in wanted.get(choice, {True: count - half, False: half}).items()):
            break
    trace = join(parts)
    rows_chosen = _chosen(trace, count, choice)
    if not len(rows_chosen):
        return None
    return recorded(trace["index"][rows_chosen], True) if inner else trace.take(rows_chosen)


def _chosen(trace: Trace, count: int, choice: TraceChoice) -> np.ndarray:
    """The rows of the chosen examples."""
    failed, solved = np.flatnonzero(~trace.solved), np.flatnonzero(trace.solved)
    if choice == "slow":
        wrong = ~trace["right"][solved]
        last_wrong = np.where(wrong.any(1), wrong.shape[1] - wrong[:, ::-1].argmax(1), 0)
        return solved[np.argsort(-last_wrong, kind="stable")][:count]
    if choice == "mixed":  # where there are too few of one kind, more of the other
        few = count // 2 if len(solved) >= count - count // 2 else count - len(solved)
        failed = failed[:few]
        return np.sort(np.concatenate([failed, solved[: count - len(failed)]]))
    return (failed if choice == "failed" else solved)[:count]
