"""W&B offline: a run directory with the configuration, the published metric names, and one id over a resume."""

import json
from pathlib import Path

from tests.runs import start, tiny, write_sudoku


def records(folder: Path) -> dict[str, list]:
    """The records of the offline runs below `folder`, by kind."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    found: dict[str, list] = {}
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)
    for path in files:
        store = DataStore()
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.setdefault(record.WhichOneof("record_type") or "", []).append(record)
    return found


def test_offline_run_and_resume(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=12, tests=5)
    folder = tmp_path / "run"
    settings = {"wandb_mode": "offline", "project_name": "proj", "checkpoint_every_steps": 3, "eval_interval": 1}
    start("pretrain.py", tiny(data, folder, **settings, max_steps=6), tmp_path)
    resumed = tiny(data, folder, **settings, max_steps=9, load_checkpoint="latest")
    start("pretrain.py", resumed, tmp_path)

    found = records(folder)
    runs = [record.run for record in found["run"]]
    assert len(runs) >= 2
    assert len({run.run_id for run in runs}) == 1
    assert {run.project for run in runs} == {"proj"}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["arch"]["hidden_size"] == 16
    assert config["global_batch_size"] == 6
    logged = {item.key or item.nested_key[0] for record in found["history"] for item in record.history.item}
    assert {"train/lm_loss", "train/q_halt_loss", "train/lr", "all/exact_accuracy", "all/accuracy"} <= logged
    assert {"perf/examples_per_second", "perf/step_ms"} <= logged
    steps = [record.history.step.num for record in found["history"]]
    assert steps == list(range(1, 10))
