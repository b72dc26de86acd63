"""Records of runs: what is kept, what is damaged, and what has changed."""

import json
from pathlib import Path

import numpy as np
import pytest

from studies.flops import ModelCosts
from studies.plan import PlannedRun
from studies.records import Records, check_unchanged, differences, pack, unpack
from studies.study_file import read_study
from tests.studies.small import make_rows, write_study
from utils.errors import DamagedFileError, UserError


def planned(arm: str = "trm", seed: int = 0, lr: float = 1e-3) -> PlannedRun:
    config = {"lr": lr, "arch": {"hidden_size": 8, "L_cycles": 2}, "max_steps": 100}
    return PlannedRun(arm, seed, ("steps",), (), config, 4, 100, 8, None)


def test_packed_answers_come_back():
    for count in (1, 7, 8, 200):
        right = np.random.default_rng(count).random(count) < 0.5
        assert (unpack(pack(right), count) == right).all()


def test_a_record_is_written_and_read(tmp_path: Path):
    study = read_study(write_study(tmp_path / "s.yaml"))
    records, run = Records(tmp_path / "study"), planned()
    row = make_rows(study, {"trm": 0.5})[0]
    assert (records.config(run), records.row(run)) == (None, None)
    records.begin(run)
    assert (records.config(run), records.row(run)) == (run.config, None)
    records.finish(run, row)
    assert (records.config(run), records.row(run)) == (run.config, row)
    records.write_rows([row, row])
    assert records.rows_file() == [row, row]


def test_a_damaged_record_is_noticed(tmp_path: Path):
    study = read_study(write_study(tmp_path / "s.yaml"))
    records, run = Records(tmp_path), planned()
    row = make_rows(study, {"trm": 0.5})[0]
    records.finish(run, row)
    path = tmp_path / "runs" / "trm" / "steps-seed_0.json"
    whole = path.read_text()
    for damaged in ("", whole[: len(whole) // 2], whole.replace('"steps": 100', '"steps": 101'), "[1]", "{}"):
        path.write_text(damaged)
        with pytest.raises(DamagedFileError, match="steps-seed_0.json"):
            records.row(run)
    lines = {
        "not json": "line 2 is damaged",
        json.dumps({**row.model_dump(), "right": "00"}): "line 2 is damaged",
        json.dumps({**row.model_dump(), "exact_accuracy": 0.9}): "do not have the accuracy",
        json.dumps({**row.model_dump(), "more": 1}): "more: no such key",
        "[]": "line 2 is damaged",
    }
    for line, message in lines.items():
        (tmp_path / "runs.jsonl").write_text(f"{json.dumps(row.model_dump())}\n{line}\n")
        with pytest.raises(DamagedFileError, match=message):
            records.rows_file()


def test_rows_come_from_records_and_else_from_the_file(tmp_path: Path):
    """A run that counts for another budget since counts for both; a damaged record is said, and its row is kept."""
    study = read_study(write_study(tmp_path / "s.yaml"))
    rows, said = make_rows(study, {"trm": 0.5, "wide": 0.6}), list[str]()
    records = Records(tmp_path)
    records.write_rows(rows[1:])
    records.finish(planned(), rows[0])
    costs = ModelCosts(3, 1, 10)
    both = PlannedRun("trm", 0, ("steps", "flops"), (), planned().config, 4, 100, 8, costs)
    wanted = [both, planned(seed=1), planned("wide"), planned("wide", seed=7), planned("other")]
    found = records.rows_of(wanted, said.append)
    assert [(row.arm, row.seed, row.budgets) for row in found] == [
        ("trm", 0, ["steps", "flops"]), ("trm", 1, ["steps"]), ("wide", 0, ["steps"]),
    ]  # fmt: skip
    assert not said
    (tmp_path / "runs" / "trm" / "steps-seed_0.json").write_text("{")
    assert [(row.arm, row.seed) for row in records.rows_of(wanted, said.append)] == [("trm", 1), ("wide", 0)]
    assert "trm/steps-seed_0" in said[0]
    assert "Start the study again" in said[0]


def test_a_study_that_has_changed_is_refused_with_what_differs(tmp_path: Path):
    records = Records(tmp_path)
    for seed in (0, 1):
        records.begin(planned(seed=seed))
    check_unchanged(records, [planned(), planned(seed=2), planned("other", lr=1.0)])  # new arms and seeds are welcome
    with pytest.raises(UserError, match=r"lr: 0.001 before, 0.002 now \(trm/steps-seed_0 and 1 more\)"):
        check_unchanged(records, [planned(seed=seed, lr=2e-3) for seed in (0, 1, 2)])


def test_differences_of_nested_settings():
    before = {"arch": {"a": 1, "b": [1, 2]}, "lr": 1.0, "old": 3}
    now = {"arch": {"a": 2, "b": [1, 2], "c": 4}, "lr": 1.0, "new": None}
    assert differences(before, now) == ["arch.a: 1 before, 2 now"]
