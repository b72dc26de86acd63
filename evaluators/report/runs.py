"""What a training run has written about itself, read for its report: logs, evaluations and configuration.

Only files are read, no model. Logs may be empty, cut off or damaged: what can be read is used, and the rest is named.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.config import read_yaml
from utils.errors import UserError

METRICS, PERF, CONFIG, RESULTS = "metrics.jsonl", "perf.jsonl", "all_config.yaml", "results.json"
POINTS = 400  # of a curve; longer ones are averaged
_EVALUATION = re.compile(r"evaluation_step_(\d+)")


@dataclass(frozen=True)
class Series:
    """A metric by step."""

    steps: np.ndarray  # int64 [n], ascending
    values: np.ndarray  # float64 [n]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: the results of each set (see `evaluators.evaluation.EvaluationResult`)."""

    step: int
    sets: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A run for the report.

    Attributes:
        name: the name of its folder.
        folder: where it lies.
        config: the configuration, flat: `arch.hidden_size` -> value.
        metrics: series of metrics.jsonl by name.
        perf: series of perf.jsonl by name.
        evaluations: ascending by step.
        notes: what could not be read.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    metrics: dict[str, Series]
    perf: dict[str, Series]
    evaluations: list[Evaluation]
    notes: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The last step with a line in the log; 0 if there is none."""
        return max((int(series.steps[-1]) for series in self.metrics.values()), default=0)

    @property
    def batch_size(self) -> int | None:
        """Rows of a step, if the configuration says it."""
        size = self.config.get("global_batch_size")
        return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None

    def seconds(self) -> Series | None:
        """The time since the start, in seconds, of the steps alone: without evaluations, checkpoints and starts.

        Steps whose time was not recorded count with the mean of the others.
        """
        milliseconds = self.perf.get("perf/step_ms")
        if milliseconds is None:
            return None
        steps, values = milliseconds.steps, milliseconds.values / 1000
        gaps = np.diff(steps, prepend=0) - 1
        return Series(steps, np.cumsum(values + gaps * values.mean()))

    def flops_per_step(self) -> float | None:
        """Floating-point operations of a step, if the log has them."""
        rate, milliseconds = self.perf.get("perf/tflops"), self.perf.get("perf/step_ms")
        if rate is None or milliseconds is None or len(rate.values) != len(milliseconds.values):
            return None
        return float(np.median(rate.values * 1e12 * milliseconds.values / 1000))


def read_run(folder: Path | str) -> Run:
    """Read what a run folder says.

    Raises:
        UserError: there is no such folder, or it holds no log of a run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder (from {Path.cwd()}). Give the folder of a run, which holds {METRICS}.")
    if not (folder / METRICS).exists():
        below = sorted(path.parent for path in folder.glob(f"*/{METRICS}"))[:3]
        hint = f" Did you mean {below[0]}?" if below else ""
        raise UserError(f"{folder} holds no {METRICS}, so it is no folder of a run.{hint}")
    notes: list[str] = []
    metrics = _read_log(folder / METRICS, notes)
    perf = _read_log(folder / PERF, notes) if (folder / PERF).exists() else _missing(PERF, notes)
    config: dict[str, Any] = {}
    try:
        config = _flat(read_yaml(folder / CONFIG))
    except UserError as error:
        notes.append(f"the configuration cannot be read: {error}")
    name = folder.resolve().name
    return Run(name, folder, config, metrics, perf, _evaluations(folder, notes), notes)


def _missing(name: str, notes: list[str]) -> dict[str, Series]:
    notes.append(f"{name} is missing, so there are no times and no throughput")
    return {}


def _read_log(path: Path, notes: list[str]) -> dict[str, Series]:
    """The series of a log. Of several lines for a step the last counts; lines that cannot be read are counted."""
    found: dict[int, dict[str, float]] = {}
    damaged = 0
    try:
        content = path.read_bytes()
    except OSError as error:
        notes.append(f"{path.name} cannot be read ({error.strerror or error})")
        return {}
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            step = values["step"]
            if type(step) is not int or step < 1:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged += 1
            continue
        numbers = {name: _number(value) for name, value in values.items() if name != "step"}
        found[step] = {name: value for name, value in numbers.items() if value is not None}
    if damaged:
        notes.append(f"{path.name}: {damaged} damaged {'line is' if damaged == 1 else 'lines are'} left out")
    if not found:
        notes.append(f"{path.name} holds no step")
    steps_of: dict[str, list[int]] = {}
    values_of: dict[str, list[float]] = {}
    for step in sorted(found):
        for name, value in found[step].items():
            steps_of.setdefault(name, []).append(step)
            values_of.setdefault(name, []).append(value)
    return {name: Series(np.array(steps_of[name], np.int64), np.array(values_of[name])) for name in steps_of}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _evaluations(folder: Path, notes: list[str]) -> list[Evaluation]:
    found: list[Evaluation] = []
    for path in folder.glob(f"evaluation_step_*/{RESULTS}"):
        match = _EVALUATION.fullmatch(path.parent.name)
        if match is None:
            continue
        try:
            content = json.loads(path.read_bytes())
            sets = {str(name): result for name, result in content["sets"].items() if isinstance(result, dict)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            notes.append(f"{path.parent.name}/{path.name} cannot be read")
            continue
        found.append(Evaluation(int(match[1]), sets))
    return sorted(found, key=lambda evaluation: evaluation.step)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dots between the names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return flat


def sampled(series: Series, points: int = POINTS) -> Series:
    """At most `points` points: each the mean over a stretch of steps, at its last step; only finite values count."""
    finite = np.isfinite(series.values)
    steps, values = series.steps[finite], series.values[finite]
    if len(steps) <= points:
        return Series(steps, values)
    parts = np.array_split(np.arange(len(steps)), points)
    return Series(
        np.array([steps[part[-1]] for part in parts]), np.array([math.fsum(values[part]) / len(part) for part in parts])
    )
