"""Recording a trace: what a model answers after each step, how sure it is, and how its latents move."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.tasks.task import Task
from evaluators.answers import MODEL_INPUTS, HaltRule
from evaluators.trace.trace import VERSION, Trace
from models.losses import ACTLossHead, Score, log_stablemax, stablemax_cross_entropy
from models.recorder import Update, UpdateRecorder

Arrays = dict[str, np.ndarray]
_ROWS = 64  # puzzles at once


@torch.inference_mode()
def record(
    head: ACTLossHead,
    data: Mapping[str, np.ndarray],
    task: Task,
    about: Mapping[str, Any],
    *,
    index: Sequence[int] | np.ndarray | None = None,
    rule: HaltRule,
    early_halting: bool,
    max_steps: int | None = None,
    inner: bool = False,
    rows: int | None = None,
    votes: Sequence[dict[str, Any]] = (),
) -> Trace:
    """The trace of a model on some puzzles. Every puzzle takes all steps, also those after it would have halted.

    Args:
        head: the model, in evaluation mode.
        data: the puzzles: inputs, labels [n, seq] (-100: not asked for), puzzle_identifiers [n].
        task: their task; `Task` itself if it is not known.
        about: what else is known, as plain values: name (of the model, for pictures), and whatever one likes.
        index: the places of the puzzles in their set; None: they are in none.
        rule: the halting rule whose decision is recorded.
        early_halting: whether the answer at which it stops counts, and not the last.
        max_steps: ACT steps; None: halt_max_steps of the model.
        inner: also record every inner update.
        rows: compute on exactly this many puzzles at once, as a compiled model asks for; None: on 64 or fewer.
        votes: see `evaluators.trace.votes`.

    Raises:
        UserError: `inner`, and the architecture does not report its inner updates.
    """
    count, size = len(data["inputs"]), rows or _ROWS
    parts: list[Arrays] = []
    names: dict[str, list[str]] = {"latents": [], "updates": []}
    for start in range(0, count, size):
        places = np.arange(start, start + size if rows else min(start + size, count)).clip(max=count - 1)
        part = {key: torch.from_numpy(data[key][places]).to(_device(head)) for key in MODEL_INPUTS}
        arrays, names = _record_batch(head, part, rule, max_steps, inner)
        parts.append({name: values[: count - start] for name, values in arrays.items()})
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    token = task.token_dtype
    for name in ("answers", "inner_answers"):
        if name in found:
            found[name] = found[name].astype(token)
    found["inputs"] = data["inputs"].astype(token)
    found["labels"] = data["labels"].astype(np.int16 if task.vocab_size < 2**15 else np.int32)
    found["index"] = np.asarray(index if index is not None else [-1] * count, np.int64)
    found["verdict"] = verdicts(task, found["inputs"], found["answers"])
    found["right"] = np.where(found["verdict"] >= 0, found["verdict"] == 1, found["right"])
    return Trace(_about(task, about, rule, early_halting) | names, found, list(votes))


def _about(task: Task, about: Mapping[str, Any], rule: HaltRule, early_halting: bool) -> dict[str, Any]:
    look = task.look()
    return {
        "format_version": VERSION,
        "task": getattr(task, "name", None),
        "task_options": {},
        "seq_len": task.seq_len,
        "vocab_size": task.vocab_size,
        "height": look.height,
        "width": look.width,
        "characters": "".join(look.character(token) for token in range(task.vocab_size)),
        "threshold": rule.threshold,
        "unchanged": rule.unchanged,
        "early_halting": early_halting,
        **about,
    }


def verdicts(task: Task, inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """By the rules of the task, int8 [n, steps]: 1 solved, 0 not; -1 if the task has no rules.

    Args:
        task: the task.
        inputs: tokens of the questions [n, seq].
        answers: tokens of the answers [n, steps, seq].
    """
    n, steps, seq = answers.shape
    if task.solved_check not in task.checks:
        return np.full((n, steps), -1, np.int8)
    asked, answered = inputs.repeat(steps, 0), answers.reshape(-1, seq)
    return task.check(asked, answered)[task.solved_check].reshape(n, steps).astype(np.int8)


def _device(head: ACTLossHead) -> torch.device:
    return next(head.parameters()).device


def _record_batch(
    head: ACTLossHead, data: dict[str, Tensor], rule: HaltRule, max_steps: int | None, inner: bool
) -> tuple[Arrays, dict[str, list[str]]]:
    """Arrays [rows, ...] of some puzzles, and the names of the latents and of the updates of a step."""
    model, labels = head.model, data["labels"]
    steps: list[dict[str, Tensor]] = []
    latents, updates = _Changes(), _Inner(head)
    halted_at = torch.zeros(len(labels), dtype=torch.int32, device=labels.device)
    preds: Tensor | None = None
    with UpdateRecorder(model) if inner else nullcontext() as recorder:
        for step, (states, outputs) in enumerate(model.answer_steps(data, model.steps_limit(max_steps)), start=1):
            score = Score(outputs["logits"].argmax(-1), outputs["q_halt_logits"], labels)
            probability, entropy = certainty(head, outputs["logits"], score.preds)
            stops = model.wants_to_halt(outputs, rule.threshold)
            if rule.unchanged:
                stops = stops & (score.preds == preds).all(-1) if preds is not None else torch.zeros_like(stops)
            halted_at = torch.where(stops & (halted_at == 0), step, halted_at)
            preds = score.preds
            change, change_two = latents.add(latents_of(model.inner, states))
            found = {
                "answers": preds,
                "probability": probability,
                "entropy": entropy,
                "halt": outputs["q_halt_logits"].float().sigmoid().nan_to_num(0.0),
                "right": score.exact & score.labelled,
                "accuracy": score.accuracy,
                "change": change,
                "change_two": change_two,
            }
            if recorder is not None:
                found |= updates.add(recorder.take())
            steps.append({name: value.cpu() for name, value in found.items()})
    arrays = {name: torch.stack([step[name] for step in steps], 1).numpy() for name in steps[0]}
    return arrays | {"halted_at": halted_at.cpu().numpy()}, {"latents": latents.names, "updates": updates.names}


def latents_of(inner: Any, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The latents among the states, which may also hold how an iteration goes: fp32 [rows, any]."""
    names = [name for name in states if name in getattr(inner, "states", ())] or list(states)
    return {name: states[name].flatten(1).float() for name in names if states[name].ndim > 2}


def certainty(head: ACTLossHead, logits: Tensor, preds: Tensor) -> tuple[Tensor, Tensor]:
    """(probability of each token of the answer, entropy in bits), float16 [..., seq], as the loss defines them."""
    logits = logits.float()
    log = log_stablemax(logits) if head.loss_fn is stablemax_cross_entropy else logits.log_softmax(-1)
    log = log.nan_to_num(nan=0.0, neginf=-1e4)
    entropy = -(log.exp() * log).sum(-1) / np.log(2)
    return log.gather(-1, preds.unsqueeze(-1)).squeeze(-1).exp().half(), entropy.half()


class _Changes:
    """How much latents move from step to step, relative to their size."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._before: list[dict[str, Tensor]] = []  # the last two steps, the older first

    def add(self, now: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(change over one step, change over two), fp32 [rows, latents]."""
        self.names = list(now)
        one, two = (
            torch.stack([relative_change(now[name], before[name] if before else None) for name in now], 1)
            for before in (self._before[-1] if self._before else None, self._before[0] if self._before[1:] else None)
        )
        self._before = [*self._before[-1:], now]
        return one, two


def relative_change(now: Tensor, before: Tensor | None) -> Tensor:
    """|now - before| / |now| of latents [rows, any], [rows]; NaN without `before`."""
    if before is None:
        return torch.full((len(now),), torch.nan, device=now.device)
    return (now - before).norm(dim=1) / now.norm(dim=1).clamp_min(1e-12)


class _Inner:
    """What the heads of a model read from each inner update."""

    def __init__(self, head: ACTLossHead):
        self._head, self._inner = head, head.model.inner
        self._before: dict[str, Tensor] = {}
        self.names: list[str] = []

    def add(self, updates: list[Update]) -> dict[str, Tensor]:
        """Arrays [rows, updates, ...] of a step."""
        self.names = [update.latent for update in updates]
        found: dict[str, list[Tensor]] = {}
        for name, z in updates:
            logits = self._inner.logits(z)[:, self._inner.prefix_len :]
            preds = logits.argmax(-1)
            flat = z.flatten(1).float()
            values = {
                "inner_answers": preds,
                "inner_probability": certainty(self._head, logits, preds)[0],
                "inner_halt": self._inner.q_head(z[:, 0])[:, 0].float().sigmoid().nan_to_num(0.0),
                "inner_change": relative_change(flat, self._before.get(name)),
            }
            self._before[name] = flat
            for key, value in values.items():
                found.setdefault(key, []).append(value)
        return {key: torch.stack(values, 1) for key, values in found.items()}
