"""Training an LDT with pretrain.py, resuming it, and search.py on its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset.tasks.sudoku.rules import Box
from dataset.tasks.sudoku.task import Sudoku
from tests.runs import arguments, outcome, refused, tiny, write_sudoku

LDT = {"arch.n_loops": 2, "arch.H_cycles": 1, "arch.puzzle_emb_len": None, "ema": False, "arch.dropout": 0.1}


def ldt(data: Path, folder: Path, **more: object) -> list[str]:
    """Arguments of a tiny training run of an LDT."""
    args = tiny(
        data, folder, **{**LDT, "arch.L_cycles": 1, "optimizer": "adamw", "epochs": 40, "eval_interval": 20, **more}
    )
    return ["arch=ldt", *(arg for arg in args if not arg.startswith("arch.puzzle_emb"))]


def test_training_resuming_and_searching(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=6, tests=9, own_ids=False)
    whole, parts, out = tmp_path / "whole", tmp_path / "parts", tmp_path / "out"
    for args in (
        ldt(data, whole),
        ldt(data, parts, max_steps=13),
        [*ldt(data, parts), f"load_checkpoint={parts}"],
    ):
        status, output = outcome("pretrain", args)
        assert status == 0, output
    assert (whole / "metrics.jsonl").read_text().splitlines()[-1] == (parts / "metrics.jsonl").read_text().splitlines()[
        -1
    ]

    settings = {"load_checkpoint": whole, "save_path": out, "device": "cpu", "chains": 4, "rows": 8, "rounds": 30}
    status, output = outcome("search", arguments(**settings))
    assert status == 0, output
    found = json.loads((out / "results.json").read_text())["sets"]["all"]
    assert found["puzzles"] == 9
    assert found["solved"] + found["undecided"] == 9
    assert found["wrong"] == found["not_tried"] == 0
    assert f"solved {found['solved']:.0f}" in " ".join(output.split())
    arrays = np.load(out / "all_puzzles.0.npz")
    assert sorted(arrays["example"]) == list(range(9))
    right = Sudoku(16, Box(2, 2).vocab_size).check(arrays["inputs"], arrays["answers"])["solved"]
    np.testing.assert_array_equal(right, arrays["solved"])

    status, output = outcome("search", arguments(**{**settings, "propagate": True, "loops": 1, "rounds": 1000}))
    assert status == 0, output
    found = json.loads((out / "results.json").read_text())["sets"]["all"]
    assert (found["solved"], found["undecided"], found["wrong"], found["unsolvable"]) == (9, 0, 0, 0)
    assert 0 < found["solved_by_rules_alone"] <= 9
    assert found["rows"] <= found["rounds_of_solved"]


def test_only_an_ldt_can_search(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=6, tests=2, own_ids=False)
    status, output = outcome("pretrain", tiny(data, tmp_path / "run", max_steps=2))
    assert status == 0, output
    refused("search", [f"load_checkpoint={tmp_path / 'run'}", "device=cpu"], "search needs an LDT", "evaluate.py")


@pytest.mark.parametrize(
    "setting", ["chains=0", "rounds=0", "dropout=1", "conflict_threshold=0", "seconds=0", "loops=0", "call_depth=-1"]
)
def test_settings_out_of_bounds_are_refused(setting: str):
    refused("search", ["load_checkpoint=x", setting], setting.split("=")[0])
