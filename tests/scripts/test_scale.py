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
    machine_of,
    measured,
    scale,
    scale_table,
    start_seconds,
    steps_of,
)
from scripts.scale_model import DataSize, Fitted, Measured, Needs, fit, pass_seconds, predict
from tests.runs import ROOT
from utils.hydra import compose
from utils.settings import PretrainConfig

SMALL = ["arch.hidden_size=32", "arch.num_heads=2", "arch.H_cycles=1", "arch.L_cycles=1", "global_batch_size=2"]
MACHINE = Fitted(forward=2e9, backward=3e9, step=0.25, memory=1e8, activations=1.5, row=2e6)


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
    expected = predict(config, scale_check.size_of(3_000), 1, MACHINE)
    assert expected.checkpoint == pytest.approx(found["checkpoint"], rel=0.05)
    assert found["step"] > 0
    assert 0 <= found["waits"] <= found["written"]


def needs(rows: int, cycles: int, kept: int = 1, machine: Fitted = MACHINE) -> tuple[PretrainConfig, DataSize, Needs]:
    """A run with so many rows and cycles, and so many passes that are kept."""
    overrides = [*scale_check.BASE, *SMALL, f"global_batch_size={rows}", f"arch.H_cycles={cycles}"]
    config, data = compose("cfg_pretrain", [*overrides, f"arch.L_cycles={kept}"]), scale_check.size_of(1)
    return config, data, predict(config, data, 1, machine)


def test_a_fit_finds_the_machine_that_made_the_measurements():
    runs = [needs(rows, cycles, kept) for rows, cycles, kept in ((2, 1, 1), (6, 1, 1), (4, 3, 2))]
    known = [Measured(config, data, found.step, found.memory) for config, data, found in runs]
    assert vars(fit(known)) == pytest.approx(vars(MACHINE), rel=1e-6)

    simple = replace(MACHINE, row=0.0)  # as much is kept for a row in all of these runs
    runs = [needs(rows, cycles, machine=simple) for rows, cycles in ((2, 1), (6, 1), (4, 3))]
    known = [Measured(config, data, found.step, found.memory) for config, data, found in runs]
    assert vars(fit(known)) == pytest.approx(vars(simple), rel=1e-6)

    config, data, found = needs(4, 1)  # other rows alone do not tell the two passes apart
    with pytest.raises(ValueError, match="apart"):
        fit([*known[:2], Measured(config, data, found.step, found.memory)])


def test_one_run_is_enough_if_its_parts_were_measured():
    config, data, found = needs(4, 2)
    forward = pass_seconds(config, data, 4, MACHINE)
    memory = found.memory - MACHINE.memory - 4 * MACHINE.row
    run = Measured(config, data, found.step, memory, forward, MACHINE.step)
    assert vars(fit([run])) == pytest.approx({**vars(MACHINE), "memory": 0.0, "row": 0.0}, rel=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("experiment", ["arc1", "sudoku_extreme_mlp"])
def test_the_tables_take_the_model_that_the_check_takes(experiment: str):
    machine, source = machine_of(experiment)
    assert source == "measured"
    bench = measured()[experiment]
    found = predict(bench.config, bench.data, 1, machine)
    assert (found.step, found.memory) == pytest.approx((bench.step, bench.memory))
    one = scale(bench.config, data_of(experiment), 1, machine, CLUSTER)
    assert one.step == pytest.approx(bench.step)
    assert one.needs.memory - one.needs.puzzle_table == pytest.approx(bench.memory)


def test_time_of_exchanges():
    assert exchange_seconds(10**9, 10**6, 1, CLUSTER) == 0
    rates = replace(CLUSTER, links=1e9, network=1e8, latency=0.5)
    assert exchange_seconds(10**9, 0, 2, rates) == pytest.approx(1 + 1)
    assert exchange_seconds(0, 10**9, 4, rates) == pytest.approx(0.75 + 1)
    assert exchange_seconds(10**9, 0, 16, rates) == pytest.approx(2 * 15 / 16 * 10 + 1)


def test_only_the_start_depends_on_the_size_of_the_data():
    config = compose("cfg_pretrain", ["experiment=arc1", *SMALL])
    one, two = (scale(config, data, 2, MACHINE, CLUSTER) for data in (DATA["arc1"], replace(DATA["arc1"], puzzles=9)))
    assert (one.step, one.table, one.batch) == (two.step, two.table, two.batch)
    assert one.table == 2 * 4 * (1 + int(config.arch.own_keys["puzzle_emb_ndim"]))
    assert one.needs.checkpoint - two.needs.checkpoint == one.needs.puzzle_table - two.needs.puzzle_table
    assert one.needs.memory - two.needs.memory == one.needs.puzzle_table - two.needs.puzzle_table
    more = replace(DATA["arc1"], examples=DATA["arc1"].examples + 10**6)
    added = start_seconds(more, 0, 1, CLUSTER) - start_seconds(DATA["arc1"], 0, 1, CLUSTER)
    assert added == pytest.approx(1e6 * 1800 / CLUSTER.read)


@pytest.mark.thorough
def test_the_page_shows_what_is_computed():
    page = (ROOT / "docs" / "scale.md").read_text()
    assert scale_table("arc1", [1, 8, 64]) in page
    assert cost_table() in page
