"""Study files: what they mean, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from studies.study_file import read_study
from tests.runs import ROOT
from tests.studies.small import ARMS, write_study
from utils.errors import UserError


def test_what_a_file_means(tmp_path: Path):
    arms = {**ARMS, "deep": {"overrides": "arch.L_layers=3", "passes": 4}}
    claims = {"paper": "trm > no_ema"}
    study = read_study(write_study(tmp_path / "s.yaml", arms=arms, claims=claims, equal="flops", examples=50))
    assert (study.seeds, study.equal, study.baseline_arm) == ([0, 1, 2], ["flops"], "trm")
    assert [study.passes_of(arm) for arm in study.arms] == [16, 16, 16, 4]
    assert study.arms["deep"].overrides == ["arch.L_layers=3"]


def test_a_scale_replaces_what_it_names(tmp_path: Path):
    scales = {"gpu": {"base": ["arch.hidden_size=512"], "steps": 9000, "seeds": [7, 8]}, "cpu": {"passes": 2}}
    path = write_study(tmp_path / "s.yaml", scales=scales, scale="cpu")
    small, large = read_study(path), read_study(path, "gpu")
    assert (small.steps, small.passes, small.seeds, small.scale) == (100, 2, [0, 1, 2], "cpu")
    assert (large.steps, large.passes, large.seeds, large.scale) == (9000, 16, [7, 8], "gpu")
    assert large.base == ["experiment=quickstart", "arch.hidden_size=512"]
    with pytest.raises(UserError, match="no scale 'gqu'.*Did you mean 'gpu'"):
        read_study(path, "gqu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 3}, "stepz: no such key. Did you mean 'steps'"),
        ({"steps": None}, "steps: missing"),
        ({"steps": 0}, "steps=0"),
        ({"arms": {"only": []}}, "arms=.*at least 2"),
        ({"arms": {"a": [], "b": {"override": ["lr=1"]}}}, r"arms.b.override: no such key"),
        ({"arms": {"../a": [], "b": []}}, "arms: '../a' becomes the name of a file"),
        ({"arms": {"a": [], "b": ["seed=3"]}}, "arms.b: seed=3: the study itself sets seed. Give seeds"),
        ({"base": ["max_steps=3"]}, "base: max_steps=3: the study itself sets max_steps. Give steps"),
        ({"base": ["-m"]}, "base: -m: only settings"),
        ({"scales": {"x": {"base": ["epochs=3"]}}}, "scales.x.base: epochs=3"),
        ({"seeds": [1, 1]}, r"seeds: \[1, 1\] names one of them twice"),
        ({"seeds": 0}, "seeds=.*at least 1"),
        ({"seeds": [-1]}, "seeds: .*must lie between"),
        ({"seeds": True}, "seeds=True"),
        ({"equal": ["steps", "hours"]}, "equal.1='hours'"),
        ({"baseline": "tmr"}, "there is no arm 'tmr'. Did you mean 'trm'"),
        ({"claims": {"paper": "trm > no_emma"}}, "claims: paper: 'trm > no_emma': .*Did you mean 'no_ema'"),
        ({"claims": {"paper": "trm < no_ema"}}, "claims: paper: .*write 'ARM > OTHER'"),
        ({"claims": {"paper": "trm > trm"}}, "claims: paper: .*two arms"),
        ({"passes": 1.5}, "passes=1.5"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    path = write_study(tmp_path / "s.yaml", **changes)
    with pytest.raises(UserError, match=message) as refusal:
        read_study(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms: {a: [], b: [], a: [lr=1]}\nseeds: 2\nsteps: 3\n", "arms.a is there twice"),
        ("steps: 3\nsteps: 4\narms: {a: [], b: []}\n", "steps is there twice"),
        ("arms: [a, b]\nseeds: 2\nsteps: 3\n", "arms="),
        ("- 1\n", "expected keys and values"),
        ("a: [", "is not YAML"),
        ("", "expected keys and values"),
    ],
)
def test_files_that_are_no_studies(tmp_path: Path, text: str, message: str):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_study(path)


def test_a_study_that_does_not_exist():
    with pytest.raises(UserError, match=r"config/study/.*Did you mean 'cpu'"):
        read_study(Path("cpuu"))
    with pytest.raises(UserError, match="cannot be read|does not exist|no such file|No such file"):
        read_study(Path("config/study/nothing.yaml"))


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_of_this_repository_are_read_at_all_their_scales(path: Path):
    study = read_study(path)
    assert len(study.seeds) >= 3
    for scale in study.scales:
        assert read_study(path, scale).scale == scale
