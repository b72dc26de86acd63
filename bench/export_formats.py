"""Size, speed and agreement of the exported formats, as a table in docs/export.md.

    uv run python -m bench.export_formats                                  # all models, 200 puzzles each
    uv run python -m bench.export_formats --models sudoku_6x6 --puzzles 50
    uv run python -m bench.export_formats --models checkpoints/.../step_1000 --steps 1

Measures the models of weights/ and, untrained, TRM at its published sizes for Sudoku-Extreme: with attention (`trm`)
and with an MLP over the cells (`trm_mlp`); or those that are named, among which may be checkpoints. Of models that are
named, the rows in the table are replaced, and the others are kept. The logits of all formats are compared with those of
the model itself in fp32.
"""

import os
import platform
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import tyro

from dataset.tasks import load_task
from evaluators.loading import load, shipped_names
from evaluators.reasoner import Origin, Reasoner
from exporting.checks import Answers, compare, onnx_answers, original_answers, program_answers, sample_puzzles
from exporting.int8 import quantised
from exporting.models import name_of
from exporting.onnx_models import answer_model
from exporting.program import answer_program, save_program
from models.factory import make_head
from utils.hydra import CONFIG_DIR
from utils.settings import ArchConfig

DOCUMENT = CONFIG_DIR.parent / "docs" / "export.md"
BEGIN, END = "<!-- written by bench/export_formats.py -->", "<!-- end -->"
COLUMNS = (
    "model", "format", "MB", "puzzles, steps", "other answers", "logits within", "solved", "puzzles/s", "processor ms",
)  # fmt: skip
HEADER = f"| {' | '.join(COLUMNS)} |"
PUBLISHED = {"trm": {}, "trm_mlp": {"mlp_t": True, "pos_encodings": "none"}}
_MOST_STEPS = 16


@dataclass
class Config:
    """What to measure."""

    models: list[str] = field(default_factory=lambda: [*shipped_names(), *PUBLISHED])
    """Names of models in weights/, trm and trm_mlp, and paths of checkpoints."""
    puzzles: int = 200
    """Puzzles of each model."""
    steps: int | None = None
    """ACT steps; by default as in the evaluations of a model, at most 16, and 1 for the untrained ones."""
    threads: int = 2
    """Threads of torch and of onnxruntime."""
    program: bool = True
    """Measure the program of torch.export too."""


def published(name: str) -> Reasoner:
    """An untrained TRM of the published size for 9x9 Sudokus."""
    keys: dict[str, Any] = {"name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"}
    keys |= {"loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"}, "puzzle_emb_ndim": 512}
    keys |= {"puzzle_emb_len": 16, "forward_dtype": "float32", "H_layers": 0, **PUBLISHED[name]}
    arch = ArchConfig(**keys)
    task = load_task("sudoku").of(81, 11)
    torch.manual_seed(0)
    head = make_head(arch, task.vocab_size, task.seq_len, 1).requires_grad_(False).eval()
    return Reasoner(head, task, Origin(arch, {}, None, None, Path(name)))


def remembered(answers: Answers) -> Answers:
    """`answers`, each computed once."""
    known: dict[tuple[bytes, int], tuple[np.ndarray, np.ndarray]] = {}

    def answer(inputs: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        key = inputs.tobytes(), steps
        if key not in known:
            known[key] = answers(inputs, steps)
        return known[key]

    return answer


def rows_of(model_name: str, config: Config) -> tuple[str, list[str]]:
    """(what the table calls a model, its rows)."""
    untrained = model_name in PUBLISHED
    reasoner = published(model_name) if untrained else load(model_name, "cpu", dtype="float32")
    name = model_name if untrained else name_of(reasoner)
    inputs, _ = sample_puzzles(reasoner, config.puzzles)
    usual = reasoner.origin.max_steps or reasoner.head.model.config.halt_max_steps
    steps = config.steps or (1 if untrained else min(usual, _MOST_STEPS))
    original = remembered(original_answers(reasoner))
    rows: list[str] = []

    def add(kind: str, path: Path, exported: Answers) -> None:
        size, result = path.stat().st_size, compare(reasoner, exported, inputs, steps, original=original)
        tied = f" and {result.tied} tied" if result.tied else ""
        solved = "" if untrained or result.exact is None else f"{result.exact} of {result.puzzles}"
        rows.append(
            f"| {name} | {kind} | {size / 1e6:.2f} | {result.puzzles}, {result.steps} | {result.wrong}{tied} | "
            f"{result.difference:.0e}, {result.difference_of_all:.0e} | {solved} | "
            f"{result.puzzles / result.seconds:.3g} | {1000 * result.processor_seconds / result.puzzles:.3g} |"
        )
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = reasoner.save(Path(folder) / "saved") / "model.safetensors"
        again = load(path.parent, "cpu", dtype="float32")
        add("torch (safetensors)", path, original_answers(again))
        model, path = answer_model(reasoner), Path(folder) / "model.onnx"
        onnx.save_model(model, path)
        add("ONNX", path, onnx_answers(reasoner, path))
        onnx.save_model(quantised(model), path)
        add("ONNX int8", path, onnx_answers(reasoner, path))
        if config.program:
            path = Path(folder) / "model.pt2"
            save_program(answer_program(reasoner), path)
            add("torch.export", path, program_answers(reasoner, path))
    return name, rows


def _load() -> str:
    """What to say if much other work shared the processor."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return "" if load < 1.5 * cores else f", beside other work (load average {load:.0f} on {cores} cores)"


def main(config: Config) -> None:
    """Measure, and write the table."""
    torch.set_num_threads(config.threads)
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    kept = [row for row in old.splitlines() if row.startswith("| ") and row != HEADER]
    for model_name in config.models:
        name, own = rows_of(model_name, config)
        kept = [row for row in kept if not row.startswith(f"| {name} |")] + own
        rule = "|" + "---|" * len(COLUMNS)
        machine = f"Measured with torch {torch.__version__.split('+')[0]} on {config.threads} thread(s) of a CPU "
        machine += f"({platform.machine()}){_load()}."
        DOCUMENT.write_text("\n".join([before + BEGIN, machine, "", HEADER, rule, *kept, END]) + after)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
