"""Runs that differ in nothing but their seed, taken together; and in what the others differ."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.report.runs import Run, Series, sampled

# keys that say where and under which name a run computes, not what
UNCOUNTED = {
    "run_name", "project_name", "checkpoint_path", "load_checkpoint", "wandb_mode", "logger", "report", "eval_traces",
    "show_example", "device", "num_workers", "data_on_device", "keep_train_states", "checkpoint_every_eval",
    "checkpoint_every_minutes", "checkpoint_every_steps", "frozen_rank_seconds", "resolved.device",
}  # fmt: skip


def group_by_seed(runs: Sequence[Run]) -> list[list[int]]:
    """The numbers of runs whose configurations agree but for the seed, in the order of their first run.

    Runs whose configuration is not known stand alone.
    """
    groups: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        kept = {key: value for key, value in run.config.items() if key not in UNCOUNTED | {"seed"}}
        key = json.dumps(kept, sort_keys=True, default=str) if kept else f"run {number}"
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """(key, its value in each run as text) of each key in which the configurations differ, sorted by key."""
    keys = sorted(set().union(*(run.config for run in runs)) - UNCOUNTED)
    rows = [(key, [_text(run.config[key]) if key in run.config else "-" for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def mean_and_spread(series: Sequence[Series]) -> tuple[Series, np.ndarray, np.ndarray]:
    """(mean, smallest, largest) of several runs at the steps of the first, as far as all of them got."""
    first = sampled(series[0])
    first_step, last = max(int(one.steps[0]) for one in series), min(int(one.steps[-1]) for one in series)
    steps = first.steps[(first.steps >= first_step) & (first.steps <= last)]
    if not len(steps):
        steps = np.array([last])
    smooth = [sampled(one) for one in series]
    values = np.stack([np.interp(steps, one.steps, one.values) for one in smooth])
    return Series(steps, values.mean(0)), values.min(0), values.max(0)
