"""Selectors: which of the answers of a puzzle's rollouts is given.

A selector is a small class with `choose`, and `name`d in `SELECTORS`. It sees the rollouts of one puzzle and never the
label; `verifier` alone looks at the rules of the task, which is why its results are reported apart.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from evaluators.rollouts.trajectories import Trajectories
from utils.errors import UserError, did_you_mean

# the answers [n, seq] to a puzzle -> which of them obey the rules of its task, bool [n]
Verify = Callable[[np.ndarray], np.ndarray]


class Choice(NamedTuple):
    """The answer that is given."""

    rollout: int
    step: int  # counted from 0
    needed: int | None = None  # steps of all rollouts after which the choice was certain; None: all of them


class Selector:
    """Chooses an answer.

    Class attributes:
        name: its name in configurations.
        rollouts: how many rollouts it looks at; None: all.
        verifies: whether it looks at the rules of the task.
        resamples: whether its rollouts are particles, which are drawn again after each step.
    """

    name: ClassVar[str]
    rollouts: ClassVar[int | None] = None
    verifies: ClassVar[bool] = False
    resamples: ClassVar[bool] = False

    def choose(self, found: Trajectories, verify: Verify) -> Choice | None:
        """The choice; None: none of the answers will do, and the puzzle is undecided."""
        raise NotImplementedError


class Last(Selector):
    """The last answer of the first rollout: an ordinary evaluation."""

    name = "last"
    rollouts = 1

    def choose(self, found: Trajectories, verify: Verify) -> Choice | None:
        return Choice(0, found.steps - 1)


class HaltingHead(Selector):
    """The answer of which the halting head is most certain, over all rollouts and steps; the first one wins ties.

    (PTRM: "rollouts", selected by the halting head.)
    """

    name = "halting_head"

    def choose(self, found: Trajectories, verify: Verify) -> Choice | None:
        # by step first, so that of equals the earliest step wins
        step, rollout = divmod(int(found.halt.T.argmax()), found.restarts)
        return Choice(rollout, step)


class FirstToHalt(Selector):
    """The answer of the rollout that halts first; of several in one step, that with the highest halting logit.

    Undecided if none halts.
    """

    name = "first_to_halt"

    def choose(self, found: Trajectories, verify: Verify) -> Choice | None:
        halted = found.halted_at > 0
        if not halted.any():
            return None
        step = int(found.halted_at[halted].min())
        rows = np.flatnonzero(found.halted_at == step)
        return Choice(int(rows[found.halt[rows, step - 1].argmax()]), step - 1, step)


class SmallestResidual(Selector):
    """The last answer of the rollout whose logits have changed least in the last steps. (EqR, "convergence".)"""

    name = "smallest_residual"

    def choose(self, found: Trajectories, verify: Verify) -> Choice | None:
        return Choice(int(found.residual().argmin()), found.steps - 1)


class MostConfident(Selector):
    """The last answer of the rollout whose answer has the highest mean probability. (C-voting, arXiv 2604.13521.)"""

    name = "most_confident"

    def choose(self, found: Trajectories, verify: Verify) -> Choice | None:
        return Choice(int(found.confidence[:, -1].argmax()), found.steps - 1)


class Majority(Selector):
    """The most frequent of the last answers; the one that came first wins ties."""

    name = "majority"

    def choose(self, found: Trajectories, verify: Verify) -> Choice | None:
        last = found.ids[:, -1]
        votes = (last[:, None] == last[None]).sum(1)
        return Choice(int(votes.argmax()), found.steps - 1)


class ParticleFilter(HaltingHead):
    """The answer of which the halting head is most certain, of particles that it guides.

    After each step, as many particles as there are rollouts are drawn from them, a particle with the probability
    `exp(beta q) / sum exp(beta q)`, q its halting logit; see `evaluators.rollouts.particles`.
    """

    name = "particle_filter"
    resamples = True


class Verifier(Selector):
    """The first answer, by step and then by rollout, that obeys the rules of the task; undecided if none does."""

    name = "verifier"
    verifies = True

    def choose(self, found: Trajectories, verify: Verify) -> Choice | None:
        _, first = np.unique(found.ids.T, return_index=True)  # by step, then by rollout
        steps, rollouts = np.divmod(first, found.restarts)
        right = verify(found.answers[rollouts, steps])
        if not right.any():
            return None
        place = int(first[right].min())
        step, rollout = divmod(place, found.restarts)
        return Choice(rollout, step, step + 1)


SELECTORS: dict[str, Selector] = {
    selector.name: selector
    for selector in (
        Last(),
        HaltingHead(),
        FirstToHalt(),
        SmallestResidual(),
        MostConfident(),
        Majority(),
        ParticleFilter(),
        Verifier(),
    )
}


def selectors_named(names: Sequence[str]) -> list[Selector]:
    """The selectors with these names.

    Raises:
        UserError: there is no such selector.
    """
    for name in names:
        if name not in SELECTORS:
            raise UserError(
                f"selectors: {name!r} is none. Allowed are {', '.join(SELECTORS)}.{did_you_mean(name, list(SELECTORS))}"
            )
    return [SELECTORS[name] for name in dict.fromkeys(names)]
