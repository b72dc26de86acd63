"""The formulas of `scripts.scale` against runs on this machine: three predictions from two others, each in a process.

Time is that of the processor on one thread, because the machine may have other work.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from models.factory import make_head
from models.flops import flops_per_example
from models.memory import step_memory
from models.training import PuzzleEmbRates, TrainState
from scripts.scale import DataSize, checkpoint_bytes, step_seconds
from utils.checkpoint import published_weights
from utils.checkpoint_pair import write_pair
from utils.distributed import Ranks
from utils.hydra import compose
from utils.settings import PretrainConfig

ROOT = Path(__file__).resolve().parents[1]
BASE = (
    "experiment=arc1", "arch.hidden_size=128", "arch.num_heads=4", "arch.H_cycles=2", "arch.L_cycles=2",
    "arch.puzzle_emb_ndim=512", "arch.forward_dtype=float32", "device=cpu", "compile=false",
)  # fmt: skip
SEQ_LEN, VOCAB_SIZE, STEPS = 400, 12, 4
# overrides and rows of the puzzle table
KNOWN = ((("global_batch_size=4",), 1_000), (("global_batch_size=12",), 1_000))
PREDICTED = (
    (("global_batch_size=8",), 100_000),
    (("global_batch_size=6", "arch.L_cycles=5"), 20_000),
    (("global_batch_size=8", "arch.H_cycles=4", "ema=false"), 200_000),
)


def run(overrides: list[str], puzzles: int) -> dict[str, float]:
    """A few steps and a checkpoint in this process: seconds of a step, peak memory and size of the files."""
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
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        content = state.state_dict()
        with state.averaged():
            weights = published_weights(head)
        waits = time.perf_counter() - began
        write_pair(Path(folder), STEPS, weights, content)
        written = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    peak = _peak() - before
    return {"step": min(seconds), "memory": peak, "checkpoint": size, "waits": waits, "written": written}


def predict(config: PretrainConfig, puzzles: int, rate: float, overhead: float) -> dict[str, float]:
    """The same from the formulas."""
    data = DataSize(VOCAB_SIZE, SEQ_LEN, puzzles, 0, 0, 0)
    flops = flops_per_example(config.arch, VOCAB_SIZE, SEQ_LEN)
    memory = step_memory(config, VOCAB_SIZE, SEQ_LEN, puzzles, 1, "float32", compiled=False)
    files = checkpoint_bytes(config, data)
    return {
        "step": step_seconds(config.global_batch_size, flops, rate, overhead),
        # while a checkpoint is written there are copies of its content, and no activations
        "memory": max(memory.total, memory.total - memory.activations + files),
        "checkpoint": files,
    }


def check() -> str:
    """A table of predictions and measurements, as Markdown."""
    known = [(compose("cfg_pretrain", [*BASE, *overrides]), _child(overrides, puzzles)) for overrides, puzzles in KNOWN]
    work = [c.global_batch_size * flops_per_example(c.arch, VOCAB_SIZE, SEQ_LEN) for c, _ in known]
    rate = (work[1] - work[0]) / (known[1][1]["step"] - known[0][1]["step"])
    overhead = known[0][1]["step"] - work[0] / rate
    lines = [
        f"From two runs: {rate / 1e9:.1f} GFLOP/s of one thread, and {overhead * 1e3:.0f} ms a step besides.",
        "",
        "| run | what | predicted | measured | difference |",
        "|---|---|---|---|---|",
    ]
    for overrides, puzzles in PREDICTED:
        found = _child(overrides, puzzles)
        expected = predict(compose("cfg_pretrain", [*BASE, *overrides]), puzzles, rate, overhead)
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
