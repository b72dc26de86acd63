"""The summary page of a report, made from its files of JSON lines alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.gpu_report.lines import read_lines
from scripts.gpu_report.stage import evaluation_of, is_evaluation
from utils.atomic_file import write_text

PAGE = "summary.md"
_CURVE_ROWS = 12
_HEAD = """# GPU report

Written by `scripts/gpu_report.sh` from the `*.jsonl` files in this folder: the last result of each stage. Do not edit.
"""


def curve_file(stage: str) -> str:
    """The name of the file with the learning curve of a training run."""
    return f"{stage}_curve.jsonl"


def write_summary(folder: Path) -> None:
    """Write the page of a folder with results; without results there is none."""
    page = summary(folder)
    if page is not None:
        write_text(folder / PAGE, page)


def summary(folder: Path) -> str | None:
    """The page of a folder with results, or None if it has none."""
    lines = sorted(read_lines(folder / "stages.jsonl"), key=lambda line: line["date"])
    if not lines:
        return None
    latest = {line["stage"]: line for line in lines}
    seconds = dict.fromkeys(latest, 0.0)
    for line in lines:
        if line["report"] == latest[line["stage"]]["report"]:
            seconds[line["stage"]] += line["seconds"]
    done = {name: line for name, line in latest.items() if line["status"] in ("done", "going on")}
    parts = [
        _HEAD,
        _stages(latest, seconds),
        _figures("Machine", done.get("environment")),
        _figures("Matrix products, TFLOP/s", done.get("matmul")),
        _training_steps([line for name, line in done.items() if name.startswith("step_")]),
        *(_curve(line, read_lines(folder / curve_file(name))) for name, line in done.items()),
    ]
    return "\n".join(part for part in parts if part)


def _stages(latest: dict[str, dict[str, Any]], seconds: dict[str, float]) -> str:
    rows = []
    for name, line in latest.items():
        said = ", ".join(f"{key} {_text(value)}" for key, value in _main_figures(line).items())
        if "error" in line:
            said = line["error"].splitlines()[-1]
        rows.append((name, line["title"], line["status"], f"{seconds[name]:.0f}", said))
    return _section("Stages", ("stage", "what", "status", "seconds", "found"), rows)


def _main_figures(line: dict[str, Any]) -> dict[str, Any]:
    """What fits into the table of the stages; machine, products and steps have tables of their own."""
    if line["stage"] in ("environment", "matmul") or line["stage"].startswith("step_"):
        return {}
    return {key: value for key, value in line["figures"].items() if isinstance(value, int | float)}


def _figures(title: str, line: dict[str, Any] | None) -> str:
    """All figures of a stage, one a row."""
    if line is None:
        return ""
    return _section(title, ("what", "value"), [(key, _text(value)) for key, value in line["figures"].items()])


def _training_steps(lines: Sequence[dict[str, Any]]) -> str:
    if not lines:
        return ""
    head = ("experiment and batch", "ms, best", "ms, median", "share of the product", "peak memory, GB",
            "first step, s", "one ACT step without gradient, ms")  # fmt: skip
    keys = ("train step/best_ms", "train step/median_ms", "share_best", "peak_memory_gb", "first_step_s",
            "evaluation, one ACT step/best_ms")  # fmt: skip
    rows = [(line["title"], *(_text(line["figures"].get(key)) for key in keys)) for line in lines]
    return _section("Training step", head, rows)


def _curve(line: dict[str, Any], steps: list[dict[str, Any]]) -> str:
    """The learning curve of a training run: its evaluations, or if there are few, its steps."""
    steps = [step for step in steps if step["report"] == line["report"]]
    if not steps:
        return ""
    evaluated = [step for step in steps if is_evaluation(step)]
    shown = _evenly(evaluated if len(evaluated) >= 3 else steps)
    keys = [key for key in ("train/lm_loss", "train/exact_accuracy") if key in steps[-1]]
    keys += [key for key in evaluation_of(evaluated[-1] if evaluated else {}) if key.endswith(("accuracy", "solved"))]
    rows = [
        (str(step["step"]), f"{step['seconds'] / 60:.1f}", *(_text(step.get(key)) for key in keys)) for step in shown
    ]
    return _section(line["title"], ("step", "minutes", *keys), rows)


def _evenly(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `_CURVE_ROWS` of the steps, the last one included."""
    stride = -(-len(steps) // _CURVE_ROWS)
    return steps[::-stride][::-1]


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = [head, ["---"] * len(head), *rows]
    lines = ("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in table)
    return f"## {title}\n\n" + "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
