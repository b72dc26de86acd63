"""Train on tasks of one's own for a few minutes each, beside a transformer of as many parameters and a majority guess.

    python -m bench.own_tasks examples/futoshiki.py examples/three_colouring.py examples/word_problem.py --steps 1000
    python -m bench.own_tasks reasoning_gym:spell_backward --steps 1000

It prints the rows of the table in docs/your_own_task.md, with the time that passed and the processor time: on a machine
that does other things too, the first is longer.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

import pretrain
from dataset.task_checks import majority_guess, read_examples
from dataset.task_choice import choose_task, task_overrides
from dataset.tasks import load_task
from utils.errors import exit_on_user_error
from utils.hydra import compose

_BATCH = 64
_BASELINE = (
    "arch=transformers_baseline", "arch.H_layers=2", "arch.halt_max_steps=1", "eval_halt_max_steps=1",
)  # fmt: skip


@dataclass
class Flags:
    """Train on tasks, and compare."""

    tasks: Annotated[list[str], tyro.conf.Positional]
    """The tasks, as for task=..."""
    steps: int = 1000
    """Optimizer steps of each training, rounded to whole epochs."""
    train_size: int = 4000
    """Training puzzles."""
    test_size: int = 200
    """Test puzzles."""
    threads: int = 2
    """Threads of PyTorch."""
    output: Path = Path("checkpoints/own_tasks")
    """Folder of the runs."""
    overrides: list[str] = field(default_factory=list)
    """Further settings of pretrain.py."""


def main(flags: Flags) -> None:
    """Train two models for each task, and print a row of the table for each."""
    torch.set_num_threads(flags.threads)
    for spec in flags.tasks:
        name = choose_task(spec).name
        for model, kind, more in (("TRM", "trm", ()), ("transformer", "transformer", _BASELINE)):
            row = train(spec, name, kind, more, flags)
            print(f"| {name} | {model} | {row} | load {os.getloadavg()[0]:.0f} |", flush=True)
        task = load_task(name)
        examples = read_examples(task.of(*task.own_size()), data_of(name, flags), flags.train_size)
        _, places, answer = majority_guess(task.of(*task.own_size()), examples.train, examples.test)
        guess = max(places, answer)
        print(f"| {name} | majority guess | | | exact {guess:.3f} | |", flush=True)


def data_of(name: str, flags: Flags) -> Path:
    """The data set of a task: one of its own, because that in data/ may have been built with other sizes."""
    return flags.output / "data" / f"{name.replace(':', '-')}-{flags.train_size}-{flags.test_size}"


def train(spec: str, name: str, kind: str, more: tuple[str, ...], flags: Flags) -> str:
    """One training: the steps made, the time, and the metrics of the evaluation at its end, as cells of the table."""
    folder = flags.output / f"{name.replace(':', '-')}-{kind}"
    epochs = max(1, round(flags.steps * _BATCH / flags.train_size))
    given = [
        f"task={spec}", "experiment=own_task", *more, f"data_builder.options.train_size={flags.train_size}",
        f"data_builder.options.test_size={flags.test_size}", f'data_paths=["{data_of(name, flags)}"]',
        f"checkpoint_path={folder}", "wandb_mode=disabled", f"epochs={epochs}", f"global_batch_size={_BATCH}",
        *flags.overrides,
    ]  # fmt: skip
    begun, processed = time.perf_counter(), time.process_time()
    pretrain.train(compose("cfg_pretrain", task_overrides(given)))
    minutes = (time.perf_counter() - begun) / 60, (time.process_time() - processed) / 60
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    shown = {key: value for key, value in last.items() if key == "all/exact_accuracy" or key[0].isupper()}
    columns = ", ".join(f"{key} {value:.3f}" for key, value in shown.items())
    return f"{last['step']} steps | {minutes[0]:.1f} min, {minutes[1]:.1f} of a processor | {columns}"


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Flags, description=__doc__)))
