"""What the rollouts of one puzzle have answered, step by step; selectors choose among it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

WINDOW = 3  # changes of the logits that `residual` is the mean of, as published for EqR


@dataclass(frozen=True, eq=False)
class Trajectories:
    """R rollouts of one puzzle over T steps. A rollout that has ended keeps its last values in all later steps.

    Attributes:
        answers: tokens [R, T, seq], as answers to the puzzle itself: symmetric views are undone.
        halt: fp32 [R, T], halting logit; above 0 where the halting head takes the answer for right. With a continue
            head, the difference of the two.
        confidence: fp32 [R, T], mean over the positions of the probability of the answer's token.
        change: fp32 [R, T], how much the logits changed in this step: the norm over the vocabulary, as the mean over
            the positions; NaN in the first step.
        halted_at: int [R], the first step, counted from 1, at which the halting rule stops the rollout; 0: none.
        taken: int [R], steps that were computed.
    """

    answers: np.ndarray
    halt: np.ndarray
    confidence: np.ndarray
    change: np.ndarray
    halted_at: np.ndarray
    taken: np.ndarray

    @property
    def restarts(self) -> int:
        """R."""
        return self.answers.shape[0]

    @property
    def steps(self) -> int:
        """T."""
        return self.answers.shape[1]

    def cut(self, restarts: int, steps: int) -> "Trajectories":
        """The first rollouts, as they are after so many steps."""
        part = slice(restarts), slice(steps)
        halted_at = np.where(self.halted_at[:restarts] <= steps, self.halted_at[:restarts], 0)
        found = Trajectories(
            self.answers[part],
            self.halt[part],
            self.confidence[part],
            self.change[part],
            halted_at,
            self.taken[:restarts].clip(max=steps),
        )
        found.__dict__["ids"] = self.ids[part]  # found once for all cuts
        return found

    @cached_property
    def ids(self) -> np.ndarray:
        """A number for each answer, int [R, T]; equal answers have the same."""
        numbers: dict[bytes, int] = {}
        flat = np.ascontiguousarray(self.answers).reshape(-1, self.answers.shape[2])
        found = [numbers.setdefault(row.tobytes(), len(numbers)) for row in flat]
        return np.array(found).reshape(self.answers.shape[:2])

    def residual(self, window: int = WINDOW) -> np.ndarray:
        """How much the logits still move at the end, fp32 [R]: the mean of the last changes. 0 after a single step."""
        if self.steps < 2:
            return np.zeros(self.restarts, np.float32)
        return self.change[:, max(1, self.steps - window) :].mean(1)

    def passes(self, steps: int) -> int:
        """Passes of the inner model up to a step, over all rollouts."""
        return int(self.taken.clip(max=steps).sum())
