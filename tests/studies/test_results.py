"""The table of a study, from rows of runs that were never made."""

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studies.plot import draw
from studies.results import results_of
from studies.study_file import Study, read_study
from studies.table import as_csv, markdown
from tests.studies.small import make_rows, write_study
from utils.errors import UserError

ABILITIES = {"trm": 0.7, "no_ema": 0.4, "wide": 0.703}


def study_of(tmp_path: Path, **changes: Any) -> Study:
    claims = {"A": "trm > no_ema", "B": "no_ema > trm", "C": "wide > trm", "D": "wide > no_ema"}
    return read_study(write_study(tmp_path / "s.yaml", **{"claims": claims, **changes}))


def test_verdicts_claims_and_what_is_missing(tmp_path: Path):
    study = study_of(tmp_path)
    rows = make_rows(study, ABILITIES)
    (result,) = results_of(study, rows[:-1])
    verdicts = {arm.arm: arm.comparison.verdict for arm in result.arms if arm.comparison is not None}
    assert verdicts == {"no_ema": "worse", "wide": "no difference shown"}
    assert [claim.verdict for claim in result.claims] == [
        "confirmed", "denied: it is the other way round", "not shown", "confirmed",
    ]  # fmt: skip
    assert result.comparisons == 3  # two with the baseline, and one more of the claims
    assert result.missing == ["wide, seed 2"]
    text = markdown(study, "name", [result])
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    lines = {cells[0]: cells for cells in table[::-1]}
    assert lines["trm"][1:8] == ["3", lines["trm"][2], "", "", "", "", "baseline"]
    assert lines["no_ema"][7] == "worse"
    assert float(lines["no_ema"][3]) == pytest.approx(-30, abs=4)
    assert float(lines["no_ema"][5]) > 0
    assert "Runs that are missing: 1** (wide, seed 2)" in text
    assert lines["C"][4] == "not shown"
    assert len({len(cells) for cells in table if cells[0] in ABILITIES and len(cells) > 6}) == 1


def test_one_seed_is_never_called_a_result(tmp_path: Path):
    study = study_of(tmp_path, seeds=[4])
    (result,) = results_of(study, make_rows(study, {"trm": 0.9, "no_ema": 0.1, "wide": 0.5}))
    text = markdown(study, "name", [result])
    assert "One seed is no result" in text
    assert text.count("one seed: no result") == 2 + 4
    for word in ("better", "worse", "confirmed", "denied"):
        assert word not in text


def test_the_csv(tmp_path: Path):
    study = study_of(tmp_path, equal=["steps", "flops"])
    results = results_of(study, make_rows(study, ABILITIES, budgets=("steps", "flops")))
    lines = list(csv.DictReader(as_csv(results).splitlines()))
    assert [(line["budget"], line["arm"]) for line in lines][2:4] == [("steps", "wide"), ("flops", "trm")]
    assert float(lines[1]["mean"]) - float(lines[0]["mean"]) == pytest.approx(float(lines[1]["gap"]))
    assert lines[1]["verdict"] == "worse"


@pytest.mark.thorough
def test_the_picture(tmp_path: Path):
    study = study_of(tmp_path)
    results = results_of(study, make_rows(study, ABILITIES))
    assert draw(results, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size[0] > 1000
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert {(31, 119, 180), (174, 199, 232), (255, 127, 14)} <= {colour for _, colour in colours}  # of the three arms
    assert not draw([], tmp_path / "none.png")


def test_runs_on_other_puzzles_are_not_compared(tmp_path: Path):
    study = study_of(tmp_path)
    rows = make_rows(study, ABILITIES)
    rows[4] = rows[4].model_copy(update={"puzzles_digest": "12345678"})
    with pytest.raises(UserError, match="no_ema, seed 1, was evaluated on other puzzles"):
        results_of(study, rows)


def test_rows_of_arms_and_seeds_that_left_the_study_do_not_count(tmp_path: Path):
    study = study_of(tmp_path)
    rows = make_rows(study, {**ABILITIES, "gone": 0.9})
    smaller = study_of(tmp_path, seeds=[0, 1], claims={})
    (result,) = results_of(smaller, rows)
    assert [(arm.arm, len(arm.rows)) for arm in result.arms] == [("trm", 2), ("no_ema", 2), ("wide", 2)]
