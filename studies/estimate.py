"""How long the runs of a study will take, from those that have ended or, before there is one, from the machine."""

import statistics
import time
from collections.abc import Sequence

import torch

from studies.plan import PlannedRun
from studies.records import Row

_START = 15.0  # seconds until the first step of a run
_SHARE = 0.25  # of the speed of a large product that a training reaches; small models reach less
_PROBE = 512  # rows and columns of the product
_EVALUATION = 2.0  # evaluations reach less of the speed of training, relative to their operations


def estimate_seconds(runs: Sequence[PlannedRun], rows: Sequence[Row]) -> list[float | None]:
    """Seconds that each run takes on one process; None where its length is not known.

    Args:
        runs: the runs to estimate.
        rows: runs of the study that have ended: those of the same arm tell best, then the others.
    """
    timed = [row for row in rows if row.seconds]
    by_arm: dict[str, list[float]] = {}
    for row in timed:
        by_arm.setdefault(row.arm, []).append((row.seconds or 0.0) / row.training_flops)
    rate = statistics.median(one for of_arm in by_arm.values() for one in of_arm) if by_arm else None
    found: list[float | None] = []
    for run in runs:
        flops = run.training_flops
        if flops is None or run.costs is None:
            found.append(None)
            continue
        if rate is None:
            rate = 1 / (_SHARE * _product_speed())
        seconds = statistics.median(by_arm[run.arm]) if run.arm in by_arm else rate
        puzzles = rows[0].puzzles if rows else run.config.get("eval_max_examples") or 0
        evaluation = puzzles * run.passes * run.costs.evaluation * _EVALUATION
        found.append(_START + (flops + evaluation) * seconds)
    return found


def _product_speed() -> float:
    """Floating-point operations a second of a matrix product here."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = _PROBE if device.type == "cpu" else 16 * _PROBE
    a = torch.ones(size, size, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, device=device)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        a.mm(a).sum().item()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times[1:])
