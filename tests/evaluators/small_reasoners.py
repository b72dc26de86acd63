"""Small untrained models as reasoners, and as the checkpoints of runs."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from dataset.shards import write_identifiers
from dataset.tasks import load_task
from models.factory import make_head
from models.losses import ACTLossHead
from utils.checkpoint import save_weights
from utils.data_record import FILE
from utils.settings import ArchConfig

ARCH: dict[str, Any] = {
    "name": "recursive_reasoning.trm@TinyRecursiveModel",
    "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
    "hidden_size": 16,
    "num_heads": 2,
    "H_cycles": 2,
    "L_cycles": 2,
    "L_layers": 1,
    "puzzle_emb_ndim": 0,
    "halt_max_steps": 6,
    "forward_dtype": "float32",
}
SIZES = {"sudoku": (16, 6), "maze": (49, 6), "arithmetic": (9, 13), "arc": (900, 12)}
NAMES = ["<blank>", "first", "second"]  # of the puzzles of a model with an embedding for each


def small_head(task: str, seed: int = 0, rows: int = 1, **arch: Any) -> ACTLossHead:
    """A small model whose halting head and answers vary with the puzzle."""
    torch.manual_seed(seed)
    head = make_head(ArchConfig(**{**ARCH, **arch}), SIZES[task][1], SIZES[task][0], rows)
    with torch.no_grad():
        for name, value in head.state_dict().items():
            if "q_head" in name or "puzzle_emb" in name:
                value.copy_(torch.randn_like(value))
    return head


def write_run(folder: Path, task: str, rows: int = 1, seed: int = 0, **arch: Any) -> Path:
    """A run folder with the checkpoint step_3, as a training run leaves it: the folder."""
    folder.mkdir(parents=True)
    head = small_head(task, seed, rows, **arch)
    save_weights(folder, 3, head)
    data = folder / "data"
    data.mkdir()
    write_identifiers(data, NAMES[:rows])
    config = {"arch": {**ARCH, **arch}, "data_paths": [str(data)], "eval_halt_max_steps": None}
    (folder / "all_config.yaml").write_text(yaml.safe_dump(config))
    seq_len, vocab_size = SIZES[task]
    record = {"seq_len": seq_len, "vocab_size": vocab_size, "task": load_task(task).name}
    (folder / FILE).write_text(json.dumps(record))
    return folder
