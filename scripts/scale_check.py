"""Runs on this machine against `scripts.scale_model`: three predictions, fitted to three other runs.

It is the model that makes the tables of `scripts.scale`. What it leaves to the machine is measured in the first three
runs, each in a process of its own: the rates of the forward and of the backward pass, the seconds that every step
takes, and how much memory a step needs besides the tensors that are counted, as a constant and as a share of the
activations. Time is that of the processor on one thread, because the machine may have other work.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from models.factory import make_head
from models.training import PuzzleEmbRates, TrainState
from scripts.scale_model import DataSize, Measured, fit, predict
from utils.checkpoint import published_weights
from utils.checkpoint_pair import write_pair
from utils.distributed import Ranks
from utils.hydra import compose

ROOT = Path(__file__).resolve().parents[1]
BASE = (
    "experiment=arc1", "arch.hidden_size=128", "arch.num_heads=4", "arch.H_cycles=2", "arch.L_cycles=2",
    "arch.puzzle_emb_ndim=512", "arch.forward_dtype=float32", "device=cpu", "compile=false",
)  # fmt: skip
SEQ_LEN, VOCAB_SIZE, STEPS, ROUNDS = 400, 12, 6, 2
# overrides and rows of the puzzle table
KNOWN = (
    (("global_batch_size=4",), 1_000),
    (("global_batch_size=12",), 1_000),
    # more passes without a gradient, and more that are kept for the backward pass
    (("global_batch_size=8", "arch.H_cycles=5", "arch.L_cycles=3"), 1_000),
)
PREDICTED = (
    (("global_batch_size=8",), 100_000),
    (("global_batch_size=6", "arch.L_cycles=5"), 20_000),
    (("global_batch_size=8", "arch.H_cycles=4", "ema=false"), 200_000),
)


def run(overrides: list[str], puzzles: int) -> dict[str, float]:
    """A few steps and a checkpoint in this process: seconds of a step, peaks of memory and size of the files."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = compose("cfg_pretrain", [*BASE, *overrides])
    before = _reset_peak()
    head = make_head(config.arch, VOCAB_SIZE, SEQ_LEN, puzzles, dtype="float32")
    rates = PuzzleEmbRates(config.puzzle_emb_lr, config.puzzle_emb_weight_decay)
    state = TrainState(head, config, Ranks(), 1000, 1, rates, False, frozenset())
    head.train()
    rows, seconds = config.global_batch_size, []
    for step in range(STEPS):
        tokens = torch.randint(2, VOCAB_SIZE, (2, rows, SEQ_LEN), dtype=torch.int32)
        ids = torch.randint(1, puzzles, (rows,), dtype=torch.int32)
        began = time.process_time()
        state.train_step({"inputs": tokens[0], "labels": tokens[1].long(), "puzzle_identifiers": ids})
        seconds += [time.process_time() - began] if step else []
    memory = _peak() - before
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        content = state.state_dict()
        with state.averaged():
            weights = published_weights(head)
        waits = time.perf_counter() - began
        write_pair(Path(folder), STEPS, weights, content)
        written = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {
        "step": min(seconds), "memory": memory, "memory, with a checkpoint": _peak() - before, "checkpoint": size,
        "waits": waits, "written": written,
    }  # fmt: skip


def size_of(puzzles: int) -> DataSize:
    """The data of a run with so many puzzles."""
    return DataSize(VOCAB_SIZE, SEQ_LEN, puzzles)


def check() -> str:
    """A table of predictions and measurements, as Markdown."""
    everything = [*KNOWN, *PREDICTED]
    # in turn, because the speed of a machine varies from minute to minute
    rounds = [[_child(overrides, puzzles) for overrides, puzzles in everything] for _ in range(ROUNDS)]
    measured = [
        {name: float(statistics.median(found[name] for found in of_run)) for name in of_run[0]}
        | {"step": min(found["step"] for found in of_run)}
        for of_run in zip(*rounds, strict=True)
    ]
    known = [
        Measured(compose("cfg_pretrain", [*BASE, *overrides]), size_of(puzzles), found["step"], found["memory"])
        for (overrides, puzzles), found in zip(KNOWN, measured, strict=False)
    ]
    machine = fit(known)
    lines = [
        f"From {len(known)} runs: {machine.forward / 1e9:.1f} GFLOP/s of one thread forward and "
        f"{machine.backward / 1e9:.1f} backward, and {machine.step * 1e3:.0f} ms a step besides; "
        f"{machine.activations:.2f} times the activations, {machine.row / 1e6:.1f} MB a row of the batch, and "
        f"{machine.memory / 1e6:.0f} MB besides.",
        "",
        "| run | what | predicted | measured | difference |",
        "|---|---|---|---|---|",
    ]
    for (overrides, puzzles), found in zip(PREDICTED, measured[len(KNOWN) :], strict=True):
        needs = predict(compose("cfg_pretrain", [*BASE, *overrides]), size_of(puzzles), 1, machine)
        expected = {
            "step": needs.step, "memory": needs.memory, "memory, with a checkpoint": needs.with_checkpoint,
            "checkpoint": needs.checkpoint,
        }  # fmt: skip
        name = f"`{' '.join(overrides)}`, {puzzles:,} puzzles"
        for what, value in expected.items():
            shown = (f"{x:.3f} s" if what == "step" else f"{x / 1e6:.0f} MB" for x in (value, found[what]))
            lines.append(f"| {name} | {what} | {' | '.join(shown)} | {100 * (value / found[what] - 1):+.1f} % |")
            name = ""
        lines.append(f"| | checkpoint, seconds | | {found['waits']:.2f} copied, {found['written']:.2f} written | |")
    return "\n".join(lines)


def _child(overrides: tuple[str, ...], puzzles: int) -> dict[str, Any]:
    """`run` in a fresh process."""
    command = [sys.executable, "-m", "scripts.scale_check", str(puzzles), *overrides]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])


def _reset_peak() -> int:
    """Resident memory in bytes; from now on `_peak` counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[2:], int(sys.argv[1]))))
