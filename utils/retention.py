"""Which checkpoints of a run are kept.

Every train state needs the weights of its step, so both stay until enough newer ones are whole. After that the weights
of an evaluation stay, and those which were saved only so that a run can go on are deleted with their train state.
"""

import json
from collections.abc import Callable
from pathlib import Path

from utils.checkpoint import train_state_path, train_state_steps, weights_path, weights_steps
from utils.settings import TrainingConfig

METRICS = "metrics.jsonl"
_LOWER_IS_BETTER = ("loss", "perplexity")


class Retention:
    """Deletes checkpoints of a run folder that are no longer wanted.

    Args:
        config: the configuration of the run.
        folder: the run folder.
        keeps: whether the weights of a step are to stay because the run evaluates after it.
    """

    def __init__(self, config: TrainingConfig, folder: Path, keeps: Callable[[int], bool]):
        self._folder, self._keeps = folder, keeps
        self._states, self._last, self._best = config.keep_train_states, config.keep_last, config.keep_best
        self._scores = Scores(folder / METRICS, config.keep_best_by)

    def apply(self) -> None:
        """Delete what is not wanted, once the newest checkpoint is whole."""
        states = train_state_steps(self._folder)
        for step in states[: -self._states]:
            if not self._keeps(step):
                weights_path(self._folder, step).unlink(missing_ok=True)
            train_state_path(self._folder, step).unlink(missing_ok=True)
        if self._last is not None or self._best is not None:
            wanted = self._wanted() | set(states[-self._states :])
            for step in weights_steps(self._folder):
                if self._keeps(step) and step not in wanted:
                    weights_path(self._folder, step).unlink(missing_ok=True)

    def _wanted(self) -> set[int]:
        """The steps of evaluations whose weights stay: the newest and the best."""
        steps = [step for step in weights_steps(self._folder) if self._keeps(step)]
        wanted = set(steps[-(self._last or 0) :] if self._last else ())
        if self._best:
            scores = self._scores.read()
            # at a tie the earlier one, which has been trained for a shorter time
            wanted |= set(sorted((s for s in steps if s in scores), key=lambda s: (-scores[s], s))[: self._best])
        return wanted


class Scores:
    """The values of one metric in a metrics.jsonl that is still being written; the higher, the better.

    Args:
        path: the file.
        metric: the name of the metric; a loss or a perplexity counts as its negative.
    """

    def __init__(self, path: Path, metric: str):
        self._path, self._metric, self._position = path, metric, 0
        self._sign = -1.0 if any(word in metric for word in _LOWER_IS_BETTER) else 1.0
        self._values: dict[int, float] = {}

    def read(self) -> dict[int, float]:
        """Step -> value. Reads only the lines that are new since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                if self._metric.encode() in line:
                    values = json.loads(line)
                    if self._metric in values:
                        self._values[values["step"]] = self._sign * values[self._metric]
        return self._values
