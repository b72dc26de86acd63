"""trace.html: traces as one self-contained page, to look through in a browser."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.tasks.look import WHITE, Look, Status
from evaluators.pages.page import Arrays, render
from evaluators.trace.motion import MOTIONS, motion
from evaluators.trace.trace import Trace
from utils.atomic_file import write_text
from utils.constants import IGNORE_LABEL_ID
from utils.errors import UserError

NOTHING = 255  # in the page: no token
_ENTROPY_UNIT = 32  # entropies are stored in this many parts of a bit


def write_page(path: Path, traces: Sequence[Trace]) -> None:
    """Write a page of at least one trace; the puzzles that several of them share can be seen side by side.

    Raises:
        UserError: the boards of two traces differ, or have more than 254 tokens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page(traces))


def page(traces: Sequence[Trace]) -> str:
    """The page as text; see `write_page`."""
    first = traces[0].about
    for trace in traces:
        if (trace.about["task"], trace.about["seq_len"]) != (first["task"], first["seq_len"]):
            raise UserError(
                f"traces of other tasks cannot stand side by side: {first['task']} with {first['seq_len']} cells, "
                f"{trace.about['task']} with {trace.about['seq_len']}."
            )
    if first["vocab_size"] >= NOTHING:
        raise UserError(f"a page shows at most {NOTHING - 1} tokens, this trace has {first['vocab_size']}.")
    arrays, keys = Arrays(), dict[bytes, int]()
    names = [trace.about["name"] for trace in traces]
    runs = [_run(trace, arrays, keys) for trace in traces]
    for number, run in enumerate(runs):
        if names.count(run["name"]) > 1:
            run["name"] = f"{run['name']} ({number + 1})"
    look = traces[0].task.look()
    data = {"title": first["name"], "task": first["task"], "board": _board(look, first["vocab_size"]), "runs": runs}
    return render("trace", f"Trace of {first['name']}", data, arrays)


def _board(look: Look, vocab_size: int) -> dict[str, Any]:
    """How boards look: for each token its text, and its colour where the task has colours."""
    tokens: list[dict[str, Any]] = []
    for token in range(vocab_size):
        cell = np.full((16, 16, 3), 255, np.uint8)
        look.paint_cell(cell, token, token, Status.PLAIN)
        text = look.cell_text(token, Status.PLAIN)
        tokens.append(
            {
                "name": look.character(token),
                "text": "" if text is None else text.text,
                "ink": None if text is None else _hex(text.colour),
                "fill": _hex(tuple(int(value) for value in cell[8, 8])),
            }
        )
    coloured = any(token["fill"] != _hex(WHITE) for token in tokens)
    box = list(look.box) if look.box is not None else None
    return {"height": look.height, "width": look.width, "box": box, "coloured": coloured, "tokens": tokens}


def _hex(colour: tuple[int, ...]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)


def _run(trace: Trace, arrays: Arrays, keys: dict[bytes, int]) -> dict[str, Any]:
    """One trace for the page: plain values, and the places of its arrays."""
    shown = _shown(trace)
    flags = trace.solved * 1 + trace.halted_too_early * 2 + trace.lost * 4
    number = [keys.setdefault(row.tobytes(), len(keys)) for row in trace["inputs"].astype(np.int32)]
    values: dict[str, np.ndarray] = {
        "inputs": trace["inputs"].astype(np.uint8),
        **shown,
        "probability": _parts(trace["probability"], 255),
        "entropy": _parts(trace["entropy"], _ENTROPY_UNIT),
        "halt": trace["halt"].astype(np.float32),
        "accuracy": trace["accuracy"].astype(np.float32),
        "right": trace["right"].astype(np.uint8),
        "change": trace["change"].astype(np.float32),
        "halted": trace["halted_at"].astype(np.int32),
        "index": trace["index"].astype(np.int32),
        "flags": flags.astype(np.uint8),
        "motion": np.array([[MOTIONS.index(name) for name in row] for row in motion(trace)], np.uint8),
        "puzzle": np.array(number, np.int32),
    }
    if trace.has_inner:
        values["innerProbability"] = _parts(trace["inner_probability"], 255)
        values["innerHalt"] = trace["inner_halt"].astype(np.float32)
        values["innerChange"] = trace["inner_change"].astype(np.float32)
    about = trace.about
    return {
        "name": about["name"],
        "about": {key: str(about[key]) for key in ("set", "choice") if about.get(key) is not None} | _checkpoint(about),
        "count": len(trace),
        "steps": trace.steps,
        "cells": about["seq_len"],
        "latents": about["latents"],
        "updates": about["updates"] if trace.has_inner else [],
        "threshold": about["threshold"],
        "unchanged": about["unchanged"],
        "earlyHalting": about["early_halting"],
        "motions": list(MOTIONS),
        "entropyUnit": _ENTROPY_UNIT,
        "votes": trace.votes,
        "arrays": {name: arrays.add(array) for name, array in values.items()},
    }


def _checkpoint(about: dict[str, Any]) -> dict[str, str]:
    """The weights, by the end of their path."""
    path = about.get("checkpoint")
    return {} if path is None else {"weights": "/".join(Path(str(path)).parts[-2:])}


def _shown(trace: Trace) -> dict[str, np.ndarray]:
    """What the task displays of each puzzle: answers, expected tokens, given cells, and the windows of the boards."""
    look, n = trace.task.look(), len(trace)
    shape = (look.height, look.width)
    names = ["answers", *(["inner_answers"] if trace.has_inner else [])]
    shown = {name: trace[name].astype(np.uint8) for name in names}
    expected = np.full((n, look.height * look.width), NOTHING, np.uint8)
    given = np.zeros(expected.shape, np.uint8)
    windows = np.zeros((n, 8), np.int16)
    for row in range(n):
        inputs, labels = (trace[name][row].astype(np.int64).reshape(shape) for name in ("inputs", "labels"))
        for name in names:
            answers = trace[name][row].astype(np.int64).reshape(-1, *shape)
            view = look.view(inputs, labels, answers)
            shown[name][row] = view.answers.reshape(shown[name][row].shape)
            if name == "answers":
                expected[row] = np.where(view.expected == IGNORE_LABEL_ID, NOTHING, view.expected).reshape(-1)
                windows[row] = [*_bounds(view.window, shape), *_bounds(view.question_window, shape)]
        given[row] = look.given(inputs).reshape(-1)
    solved = trace["verdict"][np.arange(n), trace.final_step] == 1
    # by the rules, another answer than the known one may be right as well
    final = shown["answers"][np.arange(n), trace.final_step]
    expected = np.where(solved[:, None] & (expected != NOTHING), final, expected)
    result = {"answers": shown["answers"], "expected": expected, "given": given, "windows": windows}
    return result | ({"innerAnswers": shown["inner_answers"]} if trace.has_inner else {})


def _bounds(window: tuple[slice, slice], shape: tuple[int, int]) -> list[int]:
    """First row, row after the last, first column, column after the last."""
    (top, bottom, _), (left, right, _) = (part.indices(size) for part, size in zip(window, shape, strict=True))
    return [top, bottom, left, right]


def _parts(values: np.ndarray, unit: int) -> np.ndarray:
    """`values` in parts of a unit, uint8."""
    return np.nan_to_num(values.astype(np.float32) * unit).round().clip(0, 255).astype(np.uint8)
