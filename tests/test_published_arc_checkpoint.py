"""A file in the form of the published ARC-1 checkpoint: compiled prefix, unknown keys, 876,406 puzzle embeddings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dataset.shards import PuzzleDatasetMetadata, write_identifiers, write_split
from models.recursive_reasoning.trm import TinyRecursiveModel
from tests.runs import ROOT, environment, start

ARCH = {
    "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
    "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
    "H_cycles": 3,
    "L_cycles": 4,
    "H_layers": 0,
    "L_layers": 2,
    "expansion": 4,
    "num_heads": 8,
    "pos_encodings": "rope",
    "forward_dtype": "bfloat16",
    "mlp_t": False,
    "puzzle_emb_len": 16,
    "halt_exploration_prob": 0.1,
    "halt_max_steps": 16,
    "no_ACT_continue": True,
}


def write_published(folder: Path, rows: int, hidden: int, examples: int) -> tuple[Path, Path]:
    """(checkpoint, data set): random weights from our own model in a published file, and tasks to go with its table."""
    arch = {**ARCH, "hidden_size": hidden, "puzzle_emb_ndim": hidden}
    torch.manual_seed(0)
    sizes = {"vocab_size": 12, "seq_len": 900, "num_puzzle_identifiers": rows, "batch_size": 96}
    state = TinyRecursiveModel({**arch, **sizes}).state_dict()
    state["inner.puzzle_emb.weights"].uniform_(-1, 1)
    folder.mkdir()
    torch.save({f"_orig_mod.model.{name}": value for name, value in state.items()}, folder / "step_155718")
    config = {
        "arch": {**arch, "puzzle_dropout": 0.1},
        "entity": "somebody",
        "ema": True,
        "evaluators": [{"name": "arc@ARC"}],
    }
    (folder / "all_config.yaml").write_text(yaml.safe_dump(config))

    data = folder / "data"
    rng = np.random.default_rng(0)
    names = ["<blank>", *(f"{i:08x}" for i in range(1, rows))]
    ids = np.sort(rng.choice(np.arange(1, rows), examples, replace=False))
    grids = np.full((examples, 30, 30), 0, dtype=np.uint8)
    grids[:, :5, :5] = rng.integers(2, 12, (examples, 5, 5))
    arrays = {
        "inputs": grids.reshape(examples, 900),
        "labels": grids.reshape(examples, 900),
        "puzzle_identifiers": ids,
        "puzzle_indices": np.arange(examples + 1),
        "group_indices": np.arange(examples + 1),
    }
    metadata = PuzzleDatasetMetadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=12,
        seq_len=900,
        num_puzzle_identifiers=rows,
        total_groups=examples,
        mean_puzzle_examples=1.0,
        total_puzzles=examples,
        sets=["all"],
    )
    write_split(data / "test", arrays, metadata)
    write_identifiers(data, names)
    pairs = {names[i]: (grids[n, :5, :5] - 2).tolist() for n, i in enumerate(ids)}
    pair = {name: [{"input": grid, "output": grid}] for name, grid in pairs.items()}
    tasks = {name: {"test": both, "train": both} for name, both in pair.items()}
    (data / "test_puzzles.json").write_text(json.dumps(tasks))
    return folder / "step_155718", data


@pytest.mark.thorough
def test_a_small_one(tmp_path: Path):
    checkpoint, data = write_published(tmp_path / "published", rows=50, hidden=32, examples=5)
    args = [f"load_checkpoint={checkpoint}", f"data_paths=[{data}]", "device=cpu", "halt_max_steps=2", "save_path=out"]
    output = start("evaluate.py", args, tmp_path)
    assert "dropped unknown keys: entity" in output
    assert "dropped unknown architecture keys: arch.puzzle_dropout" in output
    result = json.loads((tmp_path / "out" / "results.json").read_text())["sets"]["all"]
    assert result["examples"] == 5
    assert set(result["task_metrics"]) == {f"ARC/pass@{k}" for k in (1, 2, 5, 10, 100, 1000)}
    assert len(json.loads((tmp_path / "out" / "submission.json").read_text())) == 5


@pytest.mark.slow
def test_the_full_table_fits_in_memory(tmp_path: Path):
    checkpoint, data = write_published(tmp_path / "published", rows=876_406, hidden=512, examples=64)
    args = [f"load_checkpoint={checkpoint}", f"data_paths=[{data}]", "device=cpu", "halt_max_steps=2", "save_path=out"]
    # the interpreter in between reports the memory of its one child
    program = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); " \
              "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program, sys.executable, str(ROOT / "evaluate.py"), *args],
        cwd=tmp_path,
        env={**environment(), "OMP_NUM_THREADS": str(os.cpu_count())},
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(done.stdout.split("peak ")[-1])
    size = checkpoint.stat().st_size
    print(f"file {size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB")
    assert peak < 2.5 * size
