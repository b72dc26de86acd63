"""W&B offline: a run directory with the configuration, the published metric names, and the same id after a resume."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2

from tests.runs import command, start_process, tiny, write_sudoku

BLOCK, HEADER = 32768, 7
# of a run that solves nothing, so there is no solved example
MEDIA = ["media/accuracy_by_step", "media/calibration", "media/failed", "media/halting", "media/trace"]


def chunks(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: a LevelDB log with a file header of seven bytes."""
    data, position, parts = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:  # the end of a block, too short for a record
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def records(folder: Path) -> dict[str, list[Any]]:
    """The records of the offline runs below `folder`, by kind, in the order of the runs."""
    record_type = getattr(wandb_internal_pb2, "Record")  # noqa: B009  # made at run time, so unknown to type checkers
    found: dict[str, list[Any]] = {}
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)
    for path in files:
        for chunk in chunks(path):
            record = record_type.FromString(chunk)
            found.setdefault(record.WhichOneof("record_type") or "", []).append(
                getattr(record, record.WhichOneof("record_type"))
            )
    return found


def media_of(found: dict[str, list[Any]]) -> dict[int, list[str]]:
    """Step -> the names of the media that were logged at it, each as often as it was."""
    logged: dict[int, list[str]] = {}
    for history in found["history"]:
        names = sorted(item.nested_key[0] for item in history.item if list(item.nested_key[1:]) == ["_type"])
        if names:
            logged.setdefault(history.step.num, []).extend(names)
    return logged


@pytest.mark.thorough
def test_offline_run_and_resume(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=12, tests=5)
    folder = tmp_path / "run"
    settings = {"wandb_mode": "offline", "project_name": "proj", "checkpoint_every_steps": 3, "eval_interval": 1}
    settings |= {"eval_traces": 8, "report": True}
    for more in ({"max_steps": 6}, {"max_steps": 9, "load_checkpoint": "latest"}):
        output, status = start_process(command("pretrain.py", tiny(data, folder, **settings, **more)), tmp_path)
        assert status == 0, output

    found = records(folder)
    runs = found["run"]
    assert len(runs) >= 2
    assert len({run.run_id for run in runs}) == 1
    assert {run.project for run in runs} == {"proj"}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["arch"]["hidden_size"] == 16
    assert config["global_batch_size"] == 6
    logged = {item.key or item.nested_key[0] for history in found["history"] for item in history.item}
    assert {"train/lm_loss", "train/q_halt_loss", "train/lr", "all/exact_accuracy", "all/accuracy"} <= logged
    assert {"perf/examples_per_second", "perf/step_ms"} <= logged
    steps = [history.step.num for history in found["history"]]
    assert steps == list(range(1, 10))

    # the media of each evaluation are there once, and their files too
    assert media_of(found) == dict.fromkeys((2, 4, 6, 8, 9), MEDIA)
    for folder_of_run in folder.glob("wandb/offline-run-*"):
        for file in ("table/media/calibration_*", "html/media/trace_*", "images/media/failed_*"):
            assert list(folder_of_run.glob(f"files/media/{file}")), file
    assert "<html" in (folder / "report.html").read_text()


@pytest.mark.thorough
def test_a_wrong_key_leaves_the_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = write_sudoku(tmp_path / "data", groups=12, tests=5)
    settings = {"wandb_mode": "online", "eval_interval": 20, "max_steps": 3, "checkpoint_path": tmp_path / "run"}
    line = command("pretrain.py", tiny(data, None, **settings))
    output, status = start_process(["env", "WANDB_API_KEY=wrong", "WANDB_MODE=", *line], tmp_path)
    assert status == 0, output
    assert output.count("W&B cannot be used now (WANDB_API_KEY invalid") == 1, output
    assert f"Upload it later with: wandb sync {tmp_path / 'run'}/wandb/offline-run-" in output
    assert [history.step.num for history in records(tmp_path / "run")["history"]] == [1, 2, 3]


@pytest.mark.thorough
def test_a_run_that_diverges_has_failed(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=12, tests=5)
    for lr, weight_decay, status in ((1e-3, 0.1, 0), (1000, 1000, 2)):
        folder = tmp_path / f"run{status}"
        settings = {"wandb_mode": "offline", "eval_interval": 20, "max_steps": 8, "lr_warmup_steps": 0}
        settings |= {"lr": lr, "weight_decay": weight_decay}
        output, ended = start_process(command("pretrain.py", tiny(data, folder, **settings)), tmp_path)
        assert ended == status, output
        assert ("training has diverged" in output) == bool(status)
        assert [end.exit_code for end in records(folder)["exit"]] == [min(status, 1)]
