"""The answer to a single puzzle from several rollouts: how often to try, and which answer to take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dataset.tasks.own_code import symmetries_of
from dataset.tasks.puzzle import Question, Verdict
from dataset.tasks.task import Task
from evaluators.answers import HaltRule
from evaluators.rollouts.curve import Judge
from evaluators.rollouts.run import RolloutRule, roll_out
from evaluators.rollouts.selectors import Choice, Selector, selectors_named
from evaluators.rollouts.trajectories import Trajectories
from models.losses import ACTLossHead
from utils.errors import UserError
from utils.settings import Variation

MOST_RESTARTS = 4096


@dataclass(frozen=True)
class Attempts:
    """How often a puzzle is tried, and which answer is taken.

    Attributes:
        restarts: rollouts of a puzzle.
        selector: which answer is taken (`evaluators.rollouts.selectors`). None: that of an ordinary pass; only if the
            rules of the task reject it, it is tried again, until an answer obeys them.
        vary: how the rollouts differ (`evaluators.rollouts.variation`). None: symmetric views if the task has
            symmetries, otherwise noise.
        noise: standard deviation of the noise.
        beta: of a particle filter, how strongly the halting head guides it.

    Raises:
        UserError: there are no such attempts.
    """

    restarts: int = 16
    selector: str | None = None
    vary: Variation | None = None
    noise: float = 0.3
    beta: float = 0.25

    def __post_init__(self) -> None:
        if not 1 <= self.restarts <= MOST_RESTARTS:
            raise UserError(f"restarts: {self.restarts}. Allowed are 1 to {MOST_RESTARTS}.")
        if not 0 <= self.noise <= 100:
            raise UserError(f"noise: {self.noise}. Allowed are standard deviations of 0 to 100, such as 0.3.")
        if self.selector is not None:
            selectors_named([self.selector])

    @property
    def chosen(self) -> Selector:
        """The selector."""
        return selectors_named([self.selector or "verifier"])[0]

    def rule(self, task: Task, steps: int | None, halting: HaltRule | None, seed: int) -> RolloutRule:
        """The rollouts of a task.

        Args:
            task: the task.
            steps: ACT steps of a rollout; None: halt_max_steps of the model.
            halting: when a rollout ends before its last step; None: it does not.
            seed: of what is random.
        """
        resamples = self.chosen.resamples
        vary = self.vary or ("noise" if resamples or not symmetries_of(task) else "views")
        return RolloutRule(
            self.restarts, vary, self.noise, steps, halting or HaltRule(), halting is not None, self.beta, seed
        )


ATTEMPTS = Attempts()


def attempt(
    head: ACTLossHead,
    task: Task,
    questions: Sequence[Question],
    identifiers: Sequence[int],
    selector: Selector,
    rule: RolloutRule,
    rows: int,
) -> Iterator[tuple[int, Trajectories, Choice | None]]:
    """For each question its number, its rollouts, and the answer that is chosen, in the order in which they are done.

    A question whose answer the selector knows is left early.
    """
    judges = [Judge(task, question.tokens, None) for question in questions]

    def known(number: int, found: Trajectories) -> bool:
        choice = selector.choose(found, judges[number].verify)
        return choice is not None and choice.needed is not None

    puzzles = [(question.tokens, own) for question, own in zip(questions, identifiers, strict=True)]
    resample = selector.resamples and rule.restarts > 1
    for number, found in roll_out(head, task, puzzles, rule, rows, resample=resample, known=known):
        yield number, found, selector.choose(found, judges[number].verify)


def undecided(selector: Selector, restarts: int) -> Verdict:
    """The verdict on a puzzle of which the selector takes no answer."""
    of = "the one rollout" if restarts == 1 else f"none of the {restarts} rollouts"
    if restarts == 1:
        what = "gave no answer that obeys the rules" if selector.verifies else "did not halt"
    else:
        what = "gave an answer that obeys the rules" if selector.verifies else "halted"
    return Verdict("undecided", f"{of} {what}")
