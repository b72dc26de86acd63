"""A short form of tests/chaos.py; the long one is a program of its own."""

from pathlib import Path

import pytest

from tests.chaos import chaos


@pytest.mark.thorough
def test_runs_that_were_killed_equal_one_that_was_left_alone(tmp_path: Path):
    tally = chaos(tmp_path, kills=2, steps=60, seed=3, kinds=["rank TERM", "agent -9"], moments=["step"])
    assert tally.passed, tally
    assert tally.survived == {"rank TERM": 1, "agent -9": 1}
    outputs = "".join(path.read_text() for path in sorted(tmp_path.glob("output-?.txt")))
    assert "exitcode  : 75" in outputs
    assert "(SIGTERM" in outputs or "(a signal to another rank)" in outputs
    assert outputs.count("(going on from step") == 2
