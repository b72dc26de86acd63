"""The pictures, tables and pages of an evaluation, for W&B and TensorBoard, from the files that it has written."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.report.runs import RESULTS
from evaluators.trace.files import NAME as TRACE
from evaluators.trace.page import write_page
from evaluators.trace.pictures import save_trace_png
from evaluators.trace.trace import load_trace
from utils.media import MakeMedia, Media, Page, Picture, Table

_EXAMPLES = "examples"  # folder of the pictures that are made here


def evaluation_media(folder: Path) -> MakeMedia:
    """What makes the media of the evaluation in `folder`, once, when it is called; nothing if there are no files.

    media/trace: the page of trace.npz; media/solved and media/failed: one example each; media/accuracy_by_step,
    media/halting and media/calibration: tables of each set; pictures/NAME: pictures of the evaluators.
    """

    @cache
    def make() -> Media:
        found: Media = {}
        for path in sorted(set(folder.glob("**/*.png")) - set(folder.glob(f"{_EXAMPLES}/*.png"))):
            found[f"pictures/{path.stem}"] = Picture(path)
        if (folder / RESULTS).exists():
            sets: dict[str, Any] = json.loads((folder / RESULTS).read_text())["sets"]
            for name, result in sets.items():
                suffix = "" if len(sets) == 1 else f"/{name}"
                found |= {f"{key}{suffix}": table for key, table in _tables(result).items()}
        if (folder / TRACE).exists():
            found |= _pictures(folder)
        return found

    return make


def _pictures(folder: Path) -> Media:
    trace = load_trace(folder / TRACE)
    page = folder / "trace.html"
    write_page(page, [trace])
    found: Media = {"media/trace": Page(page)}
    for name, rows in (("solved", np.flatnonzero(trace.solved)), ("failed", np.flatnonzero(~trace.solved))):
        if len(rows):
            path = folder / _EXAMPLES / f"{name}.png"
            save_trace_png(trace.take(rows[:1]), path)
            found[f"media/{name}"] = Picture(path)
    return found


def _tables(result: dict[str, Any]) -> Media:
    """Accuracy by step, steps to halt and calibration of one set; none of a set without labels."""
    if not result["count"]:
        return {}
    exact, cells = result["exact_accuracy_after_step"], result["accuracy_after_step"]
    by_step = [[step, *values] for step, values in enumerate(zip(exact, cells, strict=True), start=1)]
    halting = [
        ["never" if step == 0 else str(step), *values]
        for step, values in enumerate(
            zip(result["steps_taken"], result["head_stops"], result["head_stops_right"], strict=True)
        )
    ]
    names = ("calibration_count", "calibration_probability", "calibration_right")
    calibration = [_calibration_row(*values) for values in zip(*(result[name] for name in names), strict=True)]
    return {
        "media/accuracy_by_step": Table(["step", "exact_accuracy", "accuracy"], by_step),
        "media/halting": Table(["step", "taken", "head_stops", "head_stops_right"], halting),
        "media/calibration": Table(["answers", "halting_probability", "share_right"], calibration),
    }


def _calibration_row(count: float, probability: float, right: float) -> Sequence[float | None]:
    return [count, probability / count, right / count] if count else [0, None, None]
