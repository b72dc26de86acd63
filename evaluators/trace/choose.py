"""Which puzzles of a set to trace: failed or solved ones, slow ones, random ones, or given ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dataset.puzzle_dataset import EvalBatches, Shard, Source
from dataset.tasks.task import Task
from evaluators.answers import HaltRule
from evaluators.trace.record import record
from evaluators.trace.trace import Trace, join
from evaluators.trace.votes import find_votes
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
    votes: bool = True,
) -> Trace | None:
    """The trace of at most `count` examples of a set; None if there are none of the kind that was asked for.

    Args:
        head, task, about, rule, early_halting, max_steps, inner, rows: see `evaluators.trace.record.record`.
        source, shard: the set.
        count: how many to choose.
        choice: `failed` or `solved` ones, as far as there are; `mixed`: half of both, filled up; `slow`: the solved
            ones whose answer was right last, the slowest first; `random`; or the places of examples in the set.
        max_examples, seed: choose from a random subset of this size, drawn with this seed; `random` uses it too.
        votes: for ARC, also count the votes for the test inputs, and trace copies that carried them.

    Raises:
        UserError: a given place is not in the set, or `inner` is not possible.
    """

    def recorded(examples: Sequence[int] | np.ndarray, inner: bool = inner) -> Trace:
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
        chosen = np.array(list(dict.fromkeys(choice)), np.int64)
        trace = recorded(chosen) if len(chosen) else None
    elif choice == "random":
        rng = np.random.default_rng(seed)
        trace = recorded(np.sort(rng.choice(everything, min(count, len(everything)), replace=False)))
    else:
        tried = _try(everything, count, choice, max(_AT_ONCE, rows or 0), lambda examples: recorded(examples, False))
        rows_chosen = _chosen(tried, count, choice)
        trace = recorded(tried["index"][rows_chosen]) if inner and len(rows_chosen) else tried.take(rows_chosen)
    if trace is None or not len(trace):
        return None
    if not votes or task_name(task) != "arc":
        return trace
    found = find_votes(head, source, shard, trace["index"], rule if early_halting else None, max_steps, rows)
    more = np.setdiff1d(found.carriers, trace["index"])
    joined = join([trace, recorded(more)]) if len(more) else trace
    return Trace(joined.about, joined.arrays, found.votes)


def task_name(task: Task) -> str | None:
    """The name of a task; None for boards of plain tokens."""
    return getattr(task, "name", None)


def _try(
    examples: np.ndarray, count: int, choice: TraceChoice, at_once: int, recorded: Callable[[np.ndarray], Trace]
) -> Trace:
    """The trace of so many of the examples that `count` of the wanted kind are among them, or of all."""
    half = count // 2
    wanted: dict[str, tuple[float, float]] = {  # solved and failed ones
        "failed": (0, count),
        "solved": (count, 0),
        "slow": (np.inf, 0),
        "mixed": (count - half, half),
    }
    parts: list[Trace] = []
    solved = failed = 0
    for start in range(0, len(examples), at_once):
        parts.append(recorded(examples[start : start + at_once]))
        solved += int(parts[-1].solved.sum())
        failed += int((~parts[-1].solved).sum())
        if solved >= wanted[choice][0] and failed >= wanted[choice][1]:
            break
    return join(parts)


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
