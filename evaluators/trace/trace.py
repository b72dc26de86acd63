"""How a model thinks about some puzzles, step by step: the arrays of a trace, and their file.

A trace is one `.npz` file that plain numpy reads, without pickle:

    import json, numpy as np
    trace = np.load("trace.npz")
    about = json.loads(str(trace["about"]))                       # model, task, settings, names of the latents
    characters = np.array(list(about["characters"]))
    print(characters[trace["answers"][0, -1]].reshape(about["height"], about["width"]))   # the last answer to puzzle 0

`about` is JSON text; the other arrays are listed in `ARRAYS`. n: puzzles, steps: ACT steps, seq: cells, latents: as
named in about["latents"], updates: inner updates of a step, whose latents are named in about["updates"]. `votes`
is JSON text too.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.tasks import load_task
from dataset.tasks.task import Task
from utils.atomic_file import replacing
from utils.errors import UserError

VERSION = 1
_GIVE = "Give a trace.npz that evaluate.py or Trace.save wrote."
_KEYS = {
    "task", "task_options", "seq_len", "vocab_size", "latents", "updates", "name", "early_halting", "threshold",
    "unchanged",
}  # fmt: skip
# name -> (axes, meaning)
ARRAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "index": (("n",), "int64: the place of the puzzle in its set; -1 if it is in none"),
    "inputs": (("n", "seq"), "tokens of the question"),
    "labels": (("n", "seq"), "tokens of the solution, -100 where nothing is asked for or known"),
    "answers": (("n", "steps", "seq"), "tokens of the answer after each step"),
    "probability": (("n", "steps", "seq"), "float16: the probability of that token"),
    "entropy": (("n", "steps", "seq"), "float16: entropy over all tokens, in bits"),
    "halt": (("n", "steps"), "float32: the probability, by the halting head, that the answer is right"),
    "halted_at": (("n",), "int32: the step, from 1, at which the halting rule would stop; 0: it would not"),
    "right": (("n", "steps"), "bool: whether the answer is right, by the rules of the task or else by the label"),
    "verdict": (("n", "steps"), "int8: by the rules of the task, 1 solved, 0 not; -1: it has none"),
    "accuracy": (("n", "steps"), "float32: share of the cells asked for that are right"),
    "change": (("n", "steps", "latents"), "float32: |z - z before| / |z| of each latent; NaN at the first step"),
    "change_two": (("n", "steps", "latents"), "float32: the same over two steps; small where a latent oscillates"),
}
INNER_ARRAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "inner_answers": (("n", "steps", "updates", "seq"), "tokens that the output head reads from the updated latent"),
    "inner_probability": (("n", "steps", "updates", "seq"), "float16: the probability of that token"),
    "inner_halt": (("n", "steps", "updates"), "float32: what the halting head reads from it"),
    "inner_change": (("n", "steps", "updates"), "float32: relative change since its last update; NaN at its first"),
}


@dataclass(frozen=True, eq=False)
class Trace:
    """Some puzzles and the way of a model through them.

    Attributes:
        about: what was traced, as plain values (see `evaluators.trace.record.about`).
        arrays: by name; see `ARRAYS` and `INNER_ARRAYS`.
        votes: for ARC, the votes for each test input among the puzzles (see `evaluators.trace.votes`).
    """

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]
    votes: list[dict[str, Any]]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __len__(self) -> int:
        return len(self["inputs"])

    @property
    def steps(self) -> int:
        """ACT steps of each puzzle."""
        return self["halt"].shape[1]

    @property
    def has_inner(self) -> bool:
        """Whether the inner updates were recorded."""
        return "inner_answers" in self.arrays

    @property
    def task(self) -> Task:
        """The task at its size; without one that is known, boards of plain tokens."""
        about = self.about
        kind = load_task(about["task"], "the task of a trace:") if about["task"] is not None else Task
        return kind.of(about["seq_len"], about["vocab_size"], **about["task_options"])

    @property
    def halt_step(self) -> np.ndarray:
        """The step, from 0, at which the halting rule stops, or the last; [n]."""
        return np.where(self["halted_at"] > 0, self["halted_at"], self.steps) - 1

    @property
    def final_step(self) -> np.ndarray:
        """The step, from 0, whose answer counts: `halt_step` with early halting, else the last; [n]."""
        return self.halt_step if self.about["early_halting"] else np.full(len(self), self.steps - 1)

    @property
    def solved(self) -> np.ndarray:
        """Whether the answer that counts is right, bool [n]."""
        return self["right"][np.arange(len(self)), self.final_step]

    @property
    def halted_too_early(self) -> np.ndarray:
        """Whether the halting rule stops at a wrong answer although a later one is right, bool [n]."""
        later = np.arange(self.steps) > self.halt_step[:, None]
        return (
            (self["halted_at"] > 0)
            & ~self["right"][np.arange(len(self)), self.halt_step]
            & (self["right"] & later).any(1)
        )

    @property
    def lost(self) -> np.ndarray:
        """Whether an answer before the one that counts was right and that one is wrong, bool [n]."""
        before = np.arange(self.steps) < self.final_step[:, None]
        return ~self.solved & (self["right"] & before).any(1)

    def take(self, rows: np.ndarray) -> "Trace":
        """The trace of some of the puzzles, given by their rows here."""
        return Trace(self.about, {name: values[rows] for name, values in self.arrays.items()}, self.votes)

    def save(self, path: Path) -> None:
        """Write the trace to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = {name: np.array(json.dumps(value)) for name, value in (("about", self.about), ("votes", self.votes))}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **texts, **self.arrays)


def join(traces: Sequence[Trace]) -> Trace:
    """One trace of all puzzles of at least one trace, which were recorded in the same way."""
    first = traces[0]
    arrays = {name: np.concatenate([trace[name] for trace in traces]) for name in first.arrays}
    return Trace(first.about, arrays, [vote for trace in traces for vote in trace.votes])


def load_trace(path: Path | str) -> Trace:
    """Read a trace.

    Raises:
        UserError: the file is missing, damaged, or no trace.
    """
    path = Path(path)
    try:
        # numpy would leave a damaged file open
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        about, votes = (json.loads(str(content.pop(name))) for name in ("about", "votes"))
        trace = Trace(about, content, votes)
        problem = _problem(trace)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). {_GIVE}") from None
    except (ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no trace, or damaged ({error}). {_GIVE}") from None
    if problem is not None:
        raise UserError(f"{path} is no trace, or damaged ({problem}). {_GIVE}")
    return trace


def _problem(trace: Trace) -> str | None:
    """What is wrong with the content of a file, or None."""
    if not isinstance(trace.about, dict) or not isinstance(trace.votes, list):
        return "about or votes have another form"
    if trace.about.get("format_version") != VERSION:
        return f"format_version {trace.about.get('format_version')!r}, known is {VERSION}"
    missing = _KEYS - set(trace.about)
    if missing:
        return f"about lacks {', '.join(sorted(missing))}"
    sizes: dict[str, int] = {
        "seq": trace.about["seq_len"],
        "latents": len(trace.about["latents"]),
        "updates": len(trace.about["updates"]),
    }
    for name, (axes, _) in (ARRAYS | (INNER_ARRAYS if trace.has_inner else {})).items():
        if name not in trace.arrays:
            return f"{name} is missing"
        shape = trace[name].shape
        if len(shape) != len(axes) or any(sizes.setdefault(axis, size) != size for axis, size in zip(axes, shape)):  # noqa: B905
            return f"{name} has the shape {list(shape)}"
    return None
