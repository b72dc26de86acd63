"""One stage of a report: a program, when it may run, and what it found."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.gpu_report.programs import Program

Figures = dict[str, Any]


def no_figures() -> Figures:
    """For a stage that only has to succeed."""
    return {}


@dataclass(frozen=True)
class Stage:
    """A stage, which is one program.

    Attributes:
        name: what it is called in every file of the report.
        title: what it shows, for the summary.
        program: the program.
        read: the figures of a program that has ended well.
        needs: seconds that must be left of an invocation for the stage to begin.
        limit: seconds after which the program has failed; not for a training run.
        after: stages whose results it uses. If one of them fails, it is skipped.
        inputs: files and folders without which it is skipped.
        essential: if it fails, nothing else is worth trying.
        output: a file of JSON lines in the results that also gets the figures; None: they are only in stages.jsonl.
        run: the folder of a training run, which goes on in the next invocation; None: no training run.
        budget: seconds after which a training run has had its share, and counts as done.
        every: a line of metrics.jsonl in so many goes to the results, besides those with an evaluation.
    """

    name: str
    title: str
    program: Program
    read: Callable[[], Figures] = no_figures
    needs: float = 40
    limit: float = 240
    after: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    essential: bool = False
    output: str | None = None
    run: Path | None = field(default=None)
    budget: float = float("inf")
    every: int = 25


def read_json(path: Path) -> Callable[[], Figures]:
    """Reads the figures from a JSON file, or from the last line of a file of JSON lines."""
    return lambda: json.loads(path.read_text().splitlines()[-1])


def read_sets(path: Path) -> Callable[[], Figures]:
    """Reads results.json of evaluate.py or search.py: the plain figures of its only set."""

    def read() -> Figures:
        found = json.loads(path.read_text())
        (of_set,) = found["sets"].values()
        figures = {**of_set, **of_set.get("metrics", {}), **of_set.get("task_metrics", {})}
        plain = {key: value for key, value in figures.items() if isinstance(value, int | float)}
        return {**plain, "seconds": found.get("seconds", plain.get("seconds"))}

    return read


def read_pytest(log: Path) -> Callable[[], Figures]:
    """Reads the last line that pytest printed, such as `47 passed, 3 skipped in 12.31s`."""

    def read() -> Figures:
        lines = [line.strip("= ") for line in log.read_text(errors="replace").splitlines()]
        last = next(line for line in reversed(lines) if " in " in line and ("passed" in line or "skipped" in line))
        counts = [part.split() for part in last.partition(" in ")[0].split(", ")]
        return {word: int(number) for number, word in counts}

    return read


def read_comparison(run: Path, other: Path) -> Callable[[], Figures]:
    """Compares the metrics of two runs that should be the same: steps, equal lines, the largest relative difference."""

    def read() -> Figures:
        pairs = list(zip(_metrics(run), _metrics(other), strict=True))
        largest = max((_difference(a[key], b[key]) for a, b in pairs for key in a), default=0.0)
        return {"steps": len(pairs), "equal_steps": sum(a == b for a, b in pairs), "largest_difference": largest}

    return read


def read_run(run: Path) -> Callable[[], Figures]:
    """Reads the last step of a training run and its last evaluation."""

    def read() -> Figures:
        lines = _metrics(run)
        evaluated = next((line for line in reversed(lines) if is_evaluation(line)), {})
        return {"step": lines[-1]["step"], "lm_loss": lines[-1]["train/lm_loss"], **evaluation_of(evaluated)}

    return read


def is_evaluation(line: Figures) -> bool:
    """Whether a line of metrics.jsonl has the results of an evaluation."""
    return bool(evaluation_of(line))


def evaluation_of(line: Figures) -> Figures:
    """The results of the evaluation in a line of metrics.jsonl, without those after each step of halting."""
    return {
        key: value for key, value in line.items() if key != "step" and not key.startswith(("train/", "optim/", "perf/"))
    }


def _metrics(run: Path) -> list[Figures]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _difference(a: float, b: float) -> float:
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))
