"""The formulas of docs/scale.md: against a real checkpoint, published runs, and simple cases; the page is current."""

from dataclasses import replace

import pytest

from scripts import scale_check
from scripts.scale import (
    CLUSTER,
    DATA,
    cost_table,
    data_of,
    exchange_seconds,
    rate_of,
    scale,
    scale_table,
    start_seconds,
    step_seconds,
    steps_of,
)
from tests.runs import ROOT
from utils.hydra import compose

SMALL = ["arch.hidden_size=32", "arch.num_heads=2", "arch.H_cycles=1", "arch.L_cycles=1", "global_batch_size=2"]
MACHINE = scale_check.Fitted(forward=2e9, backward=3e9, step=0.25, memory=1e8, activations=1.5)


@pytest.mark.parametrize(
    ("experiment", "steps"), [("arc1", 518_071), ("arc2", 723_914), ("sudoku_extreme_mlp", 65_104)]
)
def test_published_runs_have_as_many_steps(experiment: str, steps: int):
    config = compose("cfg_pretrain", [f"experiment={experiment}"])
    assert steps_of(config, data_of(experiment)) == steps


@pytest.mark.thorough
def test_a_checkpoint_is_as_large_as_predicted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    found = scale_check.run(SMALL, 3_000)
    config = compose("cfg_pretrain", [*scale_check.BASE, *SMALL])
    expected = scale_check.predict(config, 3_000, MACHINE)
    assert expected["checkpoint"] == pytest.approx(found["checkpoint"], rel=0.05)
    assert found["step"] > 0
    assert 0 <= found["waits"] <= found["written"]


def test_a_fit_finds_the_machine_that_made_the_measurements():
    known = []
    for rows, cycles in ((2, 1), (6, 1), (4, 3)):
        overrides = [*scale_check.BASE, *SMALL, f"global_batch_size={rows}", f"arch.H_cycles={cycles}"]
        config = compose("cfg_pretrain", overrides)
        known.append((config, 1, scale_check.predict(config, 1, MACHINE)))
    found = scale_check.fit(known)
    assert vars(found) == pytest.approx(vars(MACHINE), rel=1e-6)


def test_time_of_exchanges():
    assert exchange_seconds(10**9, 10**6, 1, CLUSTER) == 0
    rates = replace(CLUSTER, links=1e9, network=1e8, latency=0.5)
    assert exchange_seconds(10**9, 0, 2, rates) == pytest.approx(1 + 1)
    assert exchange_seconds(0, 10**9, 4, rates) == pytest.approx(0.75 + 1)
    assert exchange_seconds(10**9, 0, 16, rates) == pytest.approx(2 * 15 / 16 * 10 + 1)
    assert step_seconds(8, 1e9, 4e9, 0.5) == 2.5


def test_only_the_start_depends_on_the_size_of_the_data():
    config = compose("cfg_pretrain", ["experiment=arc1", *SMALL])
    rate, source = rate_of("arc1")
    assert source == "measured"
    one, two = (scale(config, data, 2, rate, 0.0, CLUSTER) for data in (DATA["arc1"], replace(DATA["arc1"], puzzles=9)))
    assert (one.step, one.table, one.batch) == (two.step, two.table, two.batch)
    assert one.table == 2 * 4 * (1 + int(config.arch.own_keys["puzzle_emb_ndim"]))
    assert one.checkpoint - two.checkpoint == one.memory.puzzle_table - two.memory.puzzle_table
    more = replace(DATA["arc1"], examples=DATA["arc1"].examples + 10**6)
    added = start_seconds(more, 0, 1, CLUSTER) - start_seconds(DATA["arc1"], 0, 1, CLUSTER)
    assert added == pytest.approx(1e6 * 1800 / CLUSTER.read)


@pytest.mark.thorough
def test_the_page_shows_what_is_computed():
    page = (ROOT / "docs" / "scale.md").read_text()
    assert scale_table("arc1", [1, 8, 64]) in page
    assert cost_table() in page
