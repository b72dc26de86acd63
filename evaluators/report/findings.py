"""What the figures of a run say, in sentences: signs that it is too short, halts badly or loses its answers."""

from typing import Any

import numpy as np

from evaluators.report.runs import Run

_RISING = 0.01  # of the exact accuracy, over the last quarter of the steps
_BAD_STOPS = 0.1  # share of the examples that the halting head would stop at a wrong answer
_NEVER = 0.5  # share of the examples that it would never stop
_LOST = 0.02  # share of the examples
_OFF = 0.1  # mean distance of the halting probability from the share of right answers
_GAP = 0.2  # between the exact accuracy in training and on held-out examples


def findings(run: Run) -> list[str]:
    """Sentences about a run; empty if nothing stands out."""
    found: list[str] = []
    for name, result in (run.evaluations[-1].sets if run.evaluations else {}).items():
        found += [f"{name}: {text}" for text in _of_set(result)]
    found += _of_logs(run)
    return found


def _of_set(result: dict[str, Any]) -> list[str]:
    found: list[str] = []
    after = _numbers(result.get("exact_accuracy_after_step"))
    if len(after) > 1:
        earlier = after[max(0, len(after) - 1 - max(1, len(after) // 4))]
        if after[-1] - earlier > _RISING:
            found.append(
                f"the share of solved examples still rises at the last step: from {earlier:.1%} to {after[-1]:.1%} in "
                "the last quarter. More steps may solve more: halt_max_steps, eval_halt_max_steps."
            )
    count = result.get("count")
    if not isinstance(count, int) or count < 1:
        return found
    halts, right = _numbers(result.get("head_stops")), _numbers(result.get("head_stops_right"))
    if len(halts) > 1 and len(halts) == len(right):
        wrong, never = (halts[1:] - right[1:]).sum() / count, halts[0] / count
        if wrong > _BAD_STOPS:
            found.append(
                f"the halting head alone would stop {wrong:.1%} of the examples at a wrong answer. It is not trained "
                "enough, or its threshold is too low; halting only at answers that stay the same helps."
            )
        solved = after[-1] if len(after) else 0.0
        if never > _NEVER and solved > never:
            found.append(
                f"the halting head would never stop {never:.1%} of the examples, although {solved:.1%} are solved, so "
                "early halting saves little."
            )
    lost = result.get("lost")
    if isinstance(lost, int) and lost / count > _LOST:
        found.append(f"{lost / count:.1%} of the examples were right at some step and wrong at the end.")
    off = calibration_error(result)
    if off is not None and abs(off[0]) > _OFF:
        kind = "more" if off[1] > 0 else "less"
        found.append(
            f"the halting head is {kind} sure than it should be: on average its probability is {off[0]:.2f} away from "
            "the share of right answers."
        )
    return found


def calibration_error(result: dict[str, Any]) -> tuple[float, float] | None:
    """(mean distance between probability and share of right answers, mean excess of the probability), or None."""
    names = ("calibration_count", "calibration_probability", "calibration_right")
    count, probability, right = (_numbers(result.get(name)) for name in names)
    if not len(count) or len(count) != len(probability) or len(count) != len(right) or count.sum() <= 0:
        return None
    excess = probability - right
    return float(np.abs(excess).sum() / count.sum()), float(excess.sum() / count.sum())


def _of_logs(run: Run) -> list[str]:
    found: list[str] = []
    skipped = run.metrics.get("train/skipped")
    if skipped is not None:
        found.append(f"{len(skipped.steps)} steps were skipped because the run diverged.")
    for name, series in run.metrics.items():
        broken = int((~np.isfinite(series.values)).sum())
        if broken:
            found.append(f"{name} is not finite at {broken} steps.")
    training = run.metrics.get("train/exact_accuracy")
    held_out = next((run.metrics[name] for name in run.metrics if name == "all/exact_accuracy"), None)
    if training is not None and held_out is not None:
        late = training.values[-max(1, len(training.values) // 20) :]
        gap = float(np.nanmean(late)) - float(held_out.values[-1]) if np.isfinite(late).any() else 0.0
        if gap > _GAP:
            found.append(
                f"in training {np.nanmean(late):.1%} are solved at the end, of the held-out examples "
                f"{held_out.values[-1]:.1%}: it has learned its examples by heart. More data or augmentation may help."
            )
    waits, steps = run.perf.get("perf/data_wait_ms"), run.perf.get("perf/step_ms")
    if waits is not None and steps is not None and steps.values.sum() > 0:
        share = waits.values.sum() / steps.values.sum()
        if share > _OFF:
            found.append(f"{share:.0%} of the time is spent waiting for data: num_workers, data_on_device.")
    return found


def _numbers(values: Any) -> np.ndarray:
    """A list of finite numbers as an array; empty if it is none."""
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        return np.zeros(0)
    numbers = np.array(values, np.float64)
    return numbers if np.isfinite(numbers).all() else np.zeros(0)
