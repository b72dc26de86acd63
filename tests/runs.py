"""Starting training and evaluation as a user would, and reading what they wrote."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import evaluate
import export
import generate
import pretrain
import pretrain_text
import search
from dataset.shards import ARRAYS, PuzzleDatasetMetadata, write_identifiers, write_split
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import parse_box
from utils.hydra import hydra_main
from utils.settings import EvaluateConfig, ExportConfig, GenerateConfig, PretrainConfig, SearchConfig, TextConfig

ROOT = Path(__file__).resolve().parents[1]
# program -> its configuration, the class of its settings and what runs it
PROGRAMS: dict[str, tuple[str, type[Any], Callable[[Any], object]]] = {
    "pretrain": ("cfg_pretrain", PretrainConfig, pretrain.run),
    "pretrain_text": ("cfg_tinystories_1m", TextConfig, pretrain_text.run),
    "evaluate": ("cfg_evaluate", EvaluateConfig, evaluate.evaluate),
    "search": ("cfg_search", SearchConfig, search.search_puzzles),
    "generate": ("cfg_generate", GenerateConfig, generate.generate),
    "export": ("cfg_export", ExportConfig, export.export),
}

# a model that trains in milliseconds
TINY_ARCH = {
    "arch.hidden_size": 16,
    "arch.num_heads": 2,
    "arch.H_cycles": 2,
    "arch.L_cycles": 2,
    "arch.L_layers": 1,
    "arch.puzzle_emb_len": 1,
    "arch.halt_max_steps": 4,
    "arch.halt_exploration_prob": 0.3,
    "arch.forward_dtype": "float32",
}


def write_sudoku(root: Path, groups: int, tests: int, own_ids: bool = True, copies: int = 2) -> Path:
    """A data set of 4x4 Sudokus, each group one puzzle `copies` times under ids of their own (or the blank id)."""
    box = parse_box("2x2")
    found = list(generate_puzzles(groups + tests, box, np.random.default_rng(0), min_clues=7))
    puzzles, solutions = (
        np.stack([puzzle for puzzle, _ in found]) + 1,
        np.stack([solution for _, solution in found]) + 1,
    )
    ids = groups * copies + 1 if own_ids else 1
    for split, rows, n in (
        ("train", np.repeat(np.arange(groups), copies), copies),
        ("test", np.arange(groups, groups + tests), 1),
    ):
        count = len(rows)
        train_ids = np.arange(1, count + 1) if own_ids and split == "train" else np.zeros(count)
        arrays = {
            "inputs": puzzles[rows],
            "labels": solutions[rows],
            "puzzle_identifiers": train_ids,
            "puzzle_indices": np.arange(count + 1),
            "group_indices": np.arange(0, count + 1, n),
        }
        assert set(arrays) == set(ARRAYS)
        metadata = PuzzleDatasetMetadata(
            pad_id=0,
            ignore_label_id=0,
            blank_identifier_id=0,
            vocab_size=box.vocab_size,
            seq_len=box.cells,
            num_puzzle_identifiers=ids,
            total_groups=count // n,
            mean_puzzle_examples=1.0,
            total_puzzles=count,
            sets=["all"],
            task="sudoku",
        )
        write_split(root / split, arrays, metadata)
    write_identifiers(root, ["<blank>", *(f"puzzle-{i}" for i in range(1, ids))])
    return root


def arguments(**settings: Any) -> list[str]:
    """`key=value` for the command line; `arch__x` stands for `arch.x`."""
    return [f"{key.replace('__', '.')}={_text(value)}" for key, value in settings.items()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(str, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def tiny(data: Path, folder: Path | None, **more: Any) -> list[str]:
    """Arguments of a tiny training run."""
    settings: dict[str, Any] = {
        **TINY_ARCH,
        "data_paths": [data],
        "evaluators": "[]",
        "global_batch_size": 6,
        "epochs": 20,
        "eval_interval": 5,
        "lr": 1e-3,
        "lr_warmup_steps": 5,
        "puzzle_emb_lr": 1e-2,
        "ema": True,
        "ema_rate": 0.9,
        "device": "cpu",
        "show_example": False,
        "eval_traces": 0,
        "report": False,
        "wandb_mode": "disabled",
        "checkpoint_path": folder,
        **more,
    }
    return arguments(**settings)


def command(script: str, args: list[str], processes: int = 0) -> list[str]:
    """The command line; with `processes` under torchrun."""
    if not processes:
        return [sys.executable, str(ROOT / script), *args]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, str(ROOT / script), *args]


def environment() -> dict[str, str]:
    """The environment of a subprocess: one thread, no W&B settings of the host."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def outcome(program: str, args: list[str]) -> tuple[int, str]:
    """Run one of `PROGRAMS` in this process: (exit status, what it printed)."""
    printed, before, status = io.StringIO(), sys.argv, 0
    sys.argv = [program, *args]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            hydra_main(*PROGRAMS[program])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
    return status, printed.getvalue()


def refused(program: str, args: list[str], *parts: str) -> None:
    """The program must end with an error that has all `parts` and no traceback."""
    status, output = outcome(program, args)
    assert status != 0, output
    assert "Traceback" not in output
    for part in parts:
        assert part in output, output


def start(script: str, args: list[str], cwd: Path, processes: int = 0) -> str:
    """Run to the end, in this process or under torchrun; the output. Fails the test, with it, if the program fails."""
    if not processes:
        with contextlib.chdir(cwd):
            status, output = outcome(script.removesuffix(".py"), args)
    else:
        output, status = start_process(command(script, args, processes), cwd)
    assert status == 0, output[-6000:]
    return output


def start_process(arguments: list[str], cwd: Path) -> tuple[str, int]:
    """Run a command line to its end: (output, exit status)."""
    done = subprocess.run(
        arguments, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    return done.stdout, done.returncode


def metrics(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl as a list."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def kill_at(script: str, step: int, args: list[str], cwd: Path, folder: Path, processes: int = 0) -> None:
    """Start training and kill -9 all its processes once it has logged `step`."""
    process = subprocess.Popen(
        command(script, args, processes),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = folder / "metrics.jsonl"
    try:
        for _ in range(20_000):
            if log.exists() and log.read_text().count("\n") >= step:
                break
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tensors(value: object, path: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a nested structure by path; other leaves as tensors of their repr's bytes."""
    if isinstance(value, torch.Tensor):
        return {path: value}
    if isinstance(value, dict):
        found: dict[str, torch.Tensor] = {}
        for key, item in value.items():
            found |= tensors(item, f"{path}/{key}")
        return found
    return {path: torch.tensor(list(repr(value).encode()))}


def different(one: object, two: object) -> list[str]:
    """Paths at which two nested structures differ in any bit."""
    left, right = tensors(one), tensors(two)
    assert left.keys() == right.keys()
    return [path for path in left if not torch.equal(left[path], right[path])]
