"""report.html: what one or several runs have done, as one self-contained page."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.pages.page import render
from evaluators.report.findings import calibration_error, findings
from evaluators.report.groups import differences, group_by_seed, mean_and_spread
from evaluators.report.runs import Run, Series, read_run, sampled
from utils.atomic_file import write_text
from utils.errors import UserError
from utils.files import writing_to

NAME = "report.html"
_MOST_EVALUATIONS = 24  # whose details are in the page; of more, these many are taken evenly
_SHOWN = (
    "count", "exact_accuracy_after_step", "accuracy_after_step", "metrics", "task_metrics", "lost", "steps_taken",
    "head_stops", "head_stops_right", "calibration_count", "calibration_probability", "calibration_right",
)  # fmt: skip
_DIGITS = 6  # significant ones of the numbers of a curve


def write_report(folders: Sequence[Path | str], path: Path) -> Path:
    """Write the report of some runs; returns its path.

    Raises:
        UserError: a folder is none of a run, or the page cannot be written.
    """
    runs = [read_run(folder) for folder in folders]
    with writing_to(path.parent, "Choose another file for the report."):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page(runs))
    return path


def report_at_end(folder: Path, wanted: bool, say: Callable[[str], None]) -> None:
    """Write the report of a run that has ended into its folder, if it is wanted. Whatever fails is said, no more."""
    if not wanted:
        return
    try:
        say(f"report: {write_report([folder], folder / NAME)}")
    except Exception as error:  # the run itself has succeeded, and a picture of it must not change that
        say(f"note: no report was written ({type(error).__name__}: {error}); make one with: report.py {folder}")


def page(runs: Sequence[Run]) -> str:
    """The page as text.

    Raises:
        UserError: there is no run.
    """
    if not runs:
        raise UserError("report.py needs the folder of at least one run.")
    names = _distinct([run.name for run in runs], [str(run.folder) for run in runs])
    groups = group_by_seed(runs)
    data = {
        "runs": [_run(run, name) for run, name in zip(runs, names, strict=True)],
        "groups": [_group([runs[number] for number in group], group, names) for group in groups],
        "names": _order(set().union(*(run.metrics for run in runs), *(run.perf for run in runs))),
        "differences": [{"key": key, "values": values} for key, values in differences(runs)],
    }
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs"
    return render("report", f"Report: {title}", data)


def _distinct(names: list[str], folders: list[str]) -> list[str]:
    """The names of folders; where two are the same, the folders themselves."""
    return [name if names.count(name) == 1 else folder for name, folder in zip(names, folders, strict=True)]


def _order(names: Iterable[str]) -> list[str]:
    """The names of metrics in the order in which they are shown."""
    first = ("loss", "perplexity", "exact_accuracy", "accuracy", "pass@", "solved", "q_halt", "steps")

    def rank(name: str) -> tuple[int, int, str]:
        base = name.rpartition("/")[2]
        place = next((place for place, word in enumerate(first) if word in base), len(first))
        return name.startswith(("perf/", "optim/")), place, name

    return sorted(names, key=rank)


def _run(run: Run, name: str) -> dict[str, Any]:
    seconds = run.seconds()
    by_time = sampled(seconds) if seconds is not None else None
    ema = run.config.get("ema")
    return {
        "name": name,
        "folder": str(run.folder),
        "seed": run.config.get("seed"),
        "lastStep": run.last_step,
        "examples": run.batch_size,
        "flops": run.flops_per_step(),
        # the last step of a stretch has the time at its end
        "time": None if seconds is None or by_time is None else _curve(_at(seconds, by_time.steps)),
        "averaged": bool(ema),
        "series": {key: _curve(sampled(series)) for key, series in (run.metrics | run.perf).items()},
        "last": {key: float(series.values[-1]) for key, series in run.metrics.items()},
        "throughput": _throughput(run),
        "evaluations": [_evaluation(one.step, one.sets) for one in _evenly(run.evaluations)],
        "findings": findings(run),
        "notes": run.notes,
        "config": {key: str(value) for key, value in sorted(run.config.items())},
    }


def _evenly(evaluations: list[Any]) -> list[Any]:
    if len(evaluations) <= _MOST_EVALUATIONS:
        return evaluations
    places = np.linspace(0, len(evaluations) - 1, _MOST_EVALUATIONS).round().astype(int)
    return [evaluations[place] for place in places]


def _evaluation(step: int, sets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """An evaluation, with what the page shows of each set."""
    found: dict[str, Any] = {}
    for name, result in sets.items():
        off = calibration_error(result)
        found[name] = {key: result.get(key) for key in _SHOWN} | {
            "calibration_error": off[0] if off is not None else None
        }
    return {"step": step, "sets": found}


def _at(series: Series, steps: np.ndarray) -> Series:
    return Series(steps, np.interp(steps, series.steps, series.values))


def _throughput(run: Run) -> dict[str, float]:
    """Medians over all steps but the first, which is slow, by name."""
    found: dict[str, float] = {}
    for name, series in run.perf.items():
        values = series.values[1:] if len(series.values) > 1 else series.values
        values = values[np.isfinite(values)]
        if len(values):
            found[name] = float(np.median(values))
    return found


def _group(runs: Sequence[Run], numbers: list[int], names: list[str]) -> dict[str, Any]:
    """Several seeds of one configuration: mean and spread of every curve that all of them have."""
    group: dict[str, Any] = {"runs": numbers, "name": names[numbers[0]], "series": {}}
    if len(runs) < 2:
        return group
    group["name"] = f"{names[numbers[0]]} and {len(runs) - 1} more seed{'s' if len(runs) > 2 else ''}"
    for key in set.intersection(*(set(run.metrics | run.perf) for run in runs)):
        series = [(run.metrics | run.perf)[key] for run in runs]
        series = [Series(one.steps[np.isfinite(one.values)], one.values[np.isfinite(one.values)]) for one in series]
        if all(len(one.steps) for one in series):
            mean, low, high = mean_and_spread(series)
            group["series"][key] = _curve(mean) | {"low": _numbers(low), "high": _numbers(high)}
            last = np.array([one.values[-1] for one in series])
            group.setdefault("last", {})[key] = {"mean": float(last.mean()), "std": float(last.std(ddof=1))}
    return group


def _curve(series: Series) -> dict[str, list[Any]]:
    return {"steps": series.steps.tolist(), "values": _numbers(series.values)}


def _numbers(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]
