"""Accuracy against compute of trained models: every selector over 1, 2, 4, ... rollouts, as a table and a picture.

    python -m bench.rollouts sudoku_newspaper maze_10x10 arithmetic --puzzles 300 --restarts 64

The puzzles are generated, with a seed that no data set of ours uses. A part of docs/results.md is written anew for each
model between the two lines that name it, and docs/rollouts_<model>.png beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from evaluators.answers import HaltRule
from evaluators.loading import load
from evaluators.reasoner import Reasoner
from evaluators.rollouts.curve import ANY, Judge, Point, draw
from evaluators.rollouts.evaluate import Example, RolloutEvaluation, default_selectors, rollout_points
from evaluators.rollouts.run import RolloutRule
from evaluators.rollouts.selectors import SELECTORS
from models.flops import flops_per_pass
from utils.distributed import launched_ranks
from utils.errors import exit_on_user_error
from utils.settings import Variation

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_SEED = 20_261_127


@dataclass
class Flags:
    """Measure accuracy against compute."""

    models: Annotated[list[str], tyro.conf.Positional]
    """Names in weights/, run folders or checkpoints."""
    puzzles: int = 300
    """Puzzles of each task."""
    restarts: int = 64
    """Rollouts of each puzzle."""
    vary: list[Variation] | None = None
    """How rollouts differ. By default symmetric views and noise."""
    noise: float = 0.3
    """Standard deviation of the noise."""
    particles: bool = True
    """Also run the particle filter, with noise."""
    threads: int = 2
    """Threads of PyTorch."""
    output: Path = _DOCS
    """Folder of results.md and of the pictures."""


def main(flags: Flags) -> None:
    """Measure each model, and write its part of results.md."""
    torch.set_num_threads(flags.threads)
    for name in flags.models:
        reasoner = load(name)
        model = Path(name).name
        lines: list[str] = []
        for vary in flags.vary or ("views", "noise"):
            points = measure(reasoner, vary, flags)
            picture = f"rollouts_{model}_{vary}.png"
            draw(points, flags.output / picture)
            lines += [*table(points, vary), "", f"![{model}, {vary}]({picture})", ""]
        text = "\n".join(lines)
        print(f"{model}\n{text}", flush=True)
        replace_part(flags.output / "results.md", f"rollouts of {model}", text)


def measure(reasoner: Reasoner, vary: Variation, flags: Flags) -> list[Point]:
    """What holds at each budget."""
    task = reasoner.task
    rule = RolloutRule(flags.restarts, vary, flags.noise, reasoner.origin.max_steps, HaltRule(), early_halting=True)
    rng = np.random.default_rng(_SEED)
    selectors = default_selectors(task, task.random_question(np.random.default_rng(_SEED)))
    if flags.particles and vary == "noise":
        selectors.append(SELECTORS["particle_filter"])

    def examples() -> Iterator[Example]:
        for _ in range(flags.puzzles):
            question, label = task.random_example(rng)
            yield (question, 0), Judge(task, question, label)

    how = RolloutEvaluation(rule, selectors, curve=True, rows=max(128, flags.restarts))
    flops = flops_per_pass(reasoner.origin.arch, task.vocab_size, task.seq_len)
    return rollout_points(reasoner.head, task, examples(), how, flops, launched_ranks())


def table(points: Sequence[Point], vary: str) -> list[str]:
    """A row for each selector, with the share of solved puzzles by the number of rollouts."""
    steps = max(point.steps for point in points)
    counts = sorted({point.restarts for point in points})
    lines = [
        f"`vary={vary}`, {points[0].puzzles} puzzles, at most {steps} steps each:",
        "",
        f"| selector | {' | '.join(map(str, counts))} | undecided | exact | passes | p against one pass |",
        f"|---|{'---|' * (len(counts) + 4)}",
    ]
    for name in dict.fromkeys(point.selector for point in points):
        row = {point.restarts: point for point in points if (point.selector, point.steps) == (name, steps)}
        last = row[counts[-1]]
        solved = " | ".join(f"{100 * row[count].solved:.1f}" for count in counts)
        p = "" if name == ANY or name == "last" else f"{last.p:.1e}"
        lines.append(
            f"| {name.replace('_', ' ')} | {solved} | {100 * last.undecided:.1f} | {100 * last.exact:.1f} | "
            f"{last.passes:.1f} | {p} |"
        )
    return lines


def replace_part(path: Path, name: str, text: str) -> None:
    """Replace what stands between the lines `<!-- name -->` and `<!-- end of name -->`; appended if there are none."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    part = f"{begin}\n{text}\n{end}"
    if begin in old and end in old:
        head, rest = old.split(begin, 1)
        new = head + part + rest.split(end, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n{part}\n"
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Flags)))
