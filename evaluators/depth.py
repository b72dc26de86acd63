"""Depth stability: what becomes of the answers if a model goes on for many more steps than it was trained with.

A model may solve a puzzle at step 16 and lose the answer again by step 128; an evaluation of 16 steps cannot show it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset.puzzle_dataset import EvalBatches, Shard, Source
from evaluators.answers import MODEL_INPUTS
from evaluators.rollouts.curve import powers
from evaluators.trace.record import latents_of, relative_change
from models.losses import ACTLossHead, Score

_ROWS = 128  # examples at once


@dataclass(frozen=True)
class DepthPoint:
    """What holds after so many steps, as means over the examples with labels."""

    steps: int
    exact_accuracy: float  # share of the examples whose answer is right
    accuracy: float  # share of right cells
    ever_right: float  # share of the examples whose answer was right at this or an earlier step
    lost: float  # share of the examples whose answer was right at an earlier step and is wrong now
    state_change: float | None  # |z - z before| / |z|, the mean over latents; None at the first step


@torch.inference_mode()
def depth_stability(
    head: ACTLossHead,
    source: Source,
    shard: Shard,
    most: int,
    max_examples: int | None = None,
    seed: int = 0,
    rows: int | None = None,
) -> list[DepthPoint]:
    """What holds after 1, 2, 4, 8, ... and `most` steps; empty if no example has a label.

    Args:
        head: the model, in evaluation mode.
        source, shard: the set.
        most: ACT steps that every example takes.
        max_examples, seed: take a random subset of this size, drawn with this seed.
        rows: compute on exactly this many examples at once, as a compiled model asks for; None: on 128 or fewer.
    """
    device, size = next(head.parameters()).device, rows or _ROWS
    reported = powers(most)
    sums = torch.zeros(len(reported), 5, dtype=torch.float64)
    count = 0
    for batch in EvalBatches(source, shard, size, max_examples=max_examples, seed=seed):
        places = torch.arange(rows or len(batch["inputs"])).clamp(max=len(batch["inputs"]) - 1)
        data = {key: torch.from_numpy(batch[key])[places].to(device) for key in MODEL_INPUTS}
        counted = torch.arange(len(places), device=device) < len(batch["inputs"])
        counted &= (data["labels"] >= 0).any(1)
        count += int(counted.sum())
        ever = torch.zeros_like(counted)
        before: dict[str, Tensor] | None = None
        for step, (states, outputs) in enumerate(head.model.answer_steps(data, most), start=1):
            score = Score(outputs["logits"].argmax(-1), outputs["q_halt_logits"], data["labels"])
            right, was = score.exact, ever
            ever = ever | right
            now = latents_of(head.model.inner, states)
            if step in reported:
                changes = [relative_change(now[name], before[name] if before else None) for name in now]
                change = torch.stack(changes).mean(0) if changes else torch.full_like(score.accuracy, torch.nan)
                values = torch.stack([right, score.accuracy, ever, was & ~right, change], 1)
                sums[reported.index(step)] += values[counted].double().sum(0).cpu()
            before = now
    if not count:
        return []
    means = (sums / count).tolist()
    return [
        DepthPoint(steps, exact, cells, ever, lost, None if change != change else change)
        for steps, (exact, cells, ever, lost, change) in zip(reported, means, strict=True)
    ]


def report_depth(points: list[DepthPoint], trained_steps: int, path: Path, say: Callable[[str], None]) -> list[Any]:
    """Print the points as a table and draw them to a PNG; returns them as plain values.

    Args:
        points: see `depth_stability`.
        trained_steps: steps that the model was trained with.
        path: the picture.
        say: prints lines.
    """
    if not points:
        say("\ndepth: no example has a label, so there is nothing to compare answers with")
        return []
    say("\nafter step    exact accuracy    ever right    lost again    state change")
    for point in points:
        change = "" if point.state_change is None else f"{point.state_change:.2e}"
        say(f"{point.steps:>10}{point.exact_accuracy:>18.4f}{point.ever_right:>14.4f}{point.lost:>14.4f}{change:>16}")
    draw_depth(points, trained_steps, path)
    return [asdict(point) for point in points]


def draw_depth(points: list[DepthPoint], trained_steps: int, path: Path) -> None:
    """Draw accuracy, lost answers and the change of the states against the number of steps, as a PNG."""
    from matplotlib.figure import Figure  # imported here: it takes a second, and few evaluations draw

    figure = Figure(figsize=(9, 3.4), layout="constrained", dpi=120)
    answers, states = figure.subplots(1, 2)
    steps = [point.steps for point in points]
    answers.plot(steps, [point.exact_accuracy for point in points], "o-", color="#0072B2", label="right now")
    answers.plot(steps, [point.ever_right for point in points], "s--", color="#009E73", label="right at some step")
    answers.plot(steps, [point.lost for point in points], "x-", color="#D55E00", label="lost again")
    answers.set(xscale="log", xlabel="steps", ylabel="share of the examples", ylim=(-0.02, 1.02))
    moved = [(point.steps, point.state_change) for point in points if point.state_change]
    states.plot(*zip(*moved, strict=True) if moved else ([], []), "o-", color="#0072B2")
    states.set(xscale="log", yscale="log", xlabel="steps", ylabel="relative change of the latents in a step")
    for axis in (answers, states):
        axis.axvline(trained_steps, color="#777777", linestyle=":", label=f"trained with {trained_steps}")
        axis.set_xticks(steps, [str(step) for step in steps], fontsize=8)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    answers.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
