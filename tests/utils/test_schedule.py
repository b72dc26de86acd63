"""When a run evaluates and saves, and that a step is read no sooner than it should be."""

from typing import Any

import pytest
import torch

from utils.errors import UserError
from utils.hydra import compose
from utils.schedule import ComputedSteps, Schedule, StepReader, say_if_short

SCHEDULE = Schedule(
    total_steps=20, eval_steps=frozenset({5, 10}), last_step=12, save_every_eval=True, save_every_steps=4
)


@pytest.mark.parametrize("numbers", [range(1, 41), range(7, 41), range(3, 3), range(41, 7)])
@pytest.mark.parametrize("per_number", [0.03, 0.2, 1 / 3, 1.0, 7.3, 400 / 3])
def test_computed_steps_are_those_of_the_set(numbers: range, per_number: float):
    expected = {int(number * 2 * per_number) for number in numbers} - {0}
    steps = ComputedSteps(numbers, lambda number: int(number * 2 * per_number))
    assert list(steps) == sorted(expected)
    assert [step for step in range(-2, 12_000) if step in steps] == sorted(expected)
    assert steps == expected
    assert "1" not in steps


def test_very_many_steps_take_no_memory():
    steps = ComputedSteps(range(1, 10**15), lambda number: number * 3)
    assert 3 * 10**14 in steps
    assert 3 * 10**14 + 1 not in steps
    assert next(iter(steps)) == 3


class Step:
    """A step that has been launched; notes when it is read."""

    def __init__(self, number: int, read: list[int], loss: float = 1.0):
        self.number, self.order, self.loss = number, read, loss

    def read(self) -> dict[str, float]:
        self.order.append(self.number)
        return {"train/lm_loss": self.loss, "step": float(self.number)}


def test_steps_go_on_behind_the_last_one_made_and_end_with_the_run():
    assert list(SCHEDULE.after(0)) == list(range(1, 13))
    assert list(SCHEDULE.after(9)) == [10, 11, 12]
    assert list(SCHEDULE.after(12)) == []


def test_evaluations_and_saves_are_those_asked_for_and_the_last_step():
    assert [step for step in SCHEDULE.after(0) if SCHEDULE.evaluates(step)] == [5, 10, 12]
    assert [step for step in SCHEDULE.after(0) if SCHEDULE.saves(step)] == [4, 5, 8, 10, 12]


def test_without_other_wishes_only_the_last_step_is_saved():
    schedule = Schedule(20, frozenset({5, 10}), 12, save_every_eval=False, save_every_steps=None)
    assert [step for step in schedule.after(0) if schedule.saves(step)] == [12]


@pytest.mark.parametrize(("device", "lag"), [("cpu", 0), ("cuda", 1)])
def test_a_step_is_read_when_the_next_one_is_under_way_where_the_device_works_by_itself(device: str, lag: int):
    order: list[int] = []
    reader = StepReader({"examples": 4.0}, 0, torch.device(device) if device == "cpu" else torch.device("meta"))
    for number in (1, 2, 3):
        reader.data_ready()
        reader.add(number, Step(number, order))
        assert [step for step, _, _ in reader.ready(all_steps=False)] == ([number - lag] if number > lag else [])
    assert [step for step, _, _ in reader.ready(all_steps=True)] == ([3] if lag else [])
    assert order == [1, 2, 3]


def test_rates_come_with_the_metrics_of_their_step():
    reader = StepReader({"examples": 4.0}, 8.0, torch.device("cpu"))
    reader.add(1, Step(1, []))
    ((step, metrics, perf),) = reader.ready(all_steps=True)
    assert (step, metrics["step"]) == (1, 1.0)
    assert perf["perf/examples_per_second"] == pytest.approx(4000 / perf["perf/step_ms"])
    assert perf["perf/tflops"] == pytest.approx(8e-9 / perf["perf/step_ms"])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_diverged_step_ends_the_run_and_is_named(loss: float):
    reader = StepReader({"examples": 4.0}, 0, torch.device("cpu"))
    reader.add(7, Step(7, [], loss))
    with pytest.raises(UserError, match=f"the loss is {loss} at step 7: training has diverged"):
        list(reader.ready(all_steps=True))


def short(last_step: int, warmup_steps: int, **settings: Any) -> list[str]:
    said: list[str] = []
    config = compose("cfg_pretrain", [f"{key}={value}" for key, value in settings.items()])
    say_if_short(config, last_step, warmup_steps, said.append)
    return said


def test_a_warm_up_longer_than_the_run_is_told_with_the_highest_rate():
    (note,) = short(250, 2000, lr=4e-3)
    assert (
        "takes 2,000 steps, but the run ends after 250: its highest learning rate is 0.0005 instead of lr=0.004" in note
    )
    assert short(1999, 2000, lr=1e-4)[0].count("0.0001 instead of lr=0.0001") == 1
    assert short(2000, 2000, lr=1e-4) == short(1, 0) == short(1, 1) == []


def test_an_average_that_holds_much_of_the_initial_weights_is_told_with_the_share():
    (note,) = short(1000, 0, ema=True, ema_rate=0.999)
    assert "ema_rate=0.999, the averaged weights still hold 36.8% of the initial weights after 1,000 steps" in note
    # 0.5**4 = 6.25 %, 0.5**5 = 3.125 %
    assert "6.2% of the initial" in short(4, 0, ema=True, ema_rate=0.5)[0]
    assert short(5, 0, ema=True, ema_rate=0.5) == short(4, 0, ema=False, ema_rate=0.5) == []
