"""Each selector on rollouts that are written out."""

import numpy as np
import pytest

from evaluators.rollouts.selectors import SELECTORS, Choice, selectors_named
from evaluators.rollouts.trajectories import Trajectories
from tests.evaluators.rollouts.made import trajectories
from utils.errors import UserError

# three rollouts of four steps
FOUND = trajectories(
    [[1, 2, 2, 2], [1, 3, 3, 4], [5, 4, 4, 4]],
    halt=[[-3, -2, 1, 1], [-3, 2, 2, 0], [-3, -1, 0.5, 1.5]],
    confidence=[[0.9, 0.9, 0.9, 0.5], [0.1, 0.1, 0.1, 0.7], [0.1, 0.1, 0.1, 0.6]],
    change=[[np.nan, 1, 1, 1], [np.nan, 9, 0, 0.1], [np.nan, 0.5, 0.5, 0.5]],
    halted_at=[3, 0, 3],
)


def chosen(name: str, found: Trajectories = FOUND, right: tuple[int, ...] = ()) -> Choice | None:
    return SELECTORS[name].choose(found, lambda answers: np.isin(answers[:, 0], right))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("last", Choice(0, 3)),
        ("halting_head", Choice(1, 1)),  # 2 at steps 2 and 3: the earlier one
        ("first_to_halt", Choice(0, 2, 3)),  # two halt at step 3; the first is surer
        ("smallest_residual", Choice(2, 3)),  # means of the last three changes: 1, 3.03 and 0.5
        ("most_confident", Choice(1, 3)),  # at the last step
        ("majority", Choice(1, 3)),  # 4 twice, 2 once
        ("particle_filter", Choice(1, 1)),
    ],
)
def test_what_is_chosen(name: str, expected: Choice):
    assert chosen(name) == expected


def test_of_equals_the_first_is_taken():
    found = trajectories([[1, 2], [3, 4], [4, 2]], halt=[[0, 1], [1, 0], [1, 1]], halted_at=[2, 2, 2])
    assert chosen("halting_head", found) == Choice(1, 0)
    assert chosen("first_to_halt", found) == Choice(0, 1, 2)
    assert chosen("majority", found) == Choice(0, 1)
    assert chosen("smallest_residual", found) == chosen("most_confident", found) == Choice(0, 1)


def test_nothing_is_chosen_where_nothing_will_do():
    never = trajectories([[1, 2], [3, 4]])
    assert chosen("first_to_halt", never) is None
    assert chosen("verifier", never, right=(5,)) is None


def test_the_verifier_takes_the_first_right_answer_by_step_and_then_by_rollout():
    assert chosen("verifier", right=(3, 4)) == Choice(1, 1, 2)
    assert chosen("verifier", right=(4,)) == Choice(2, 1, 2)
    assert chosen("verifier", right=(2, 5)) == Choice(2, 0, 1)


def test_a_smaller_budget_is_a_part():
    part = FOUND.cut(2, 2)
    assert part.halted_at.tolist() == [0, 0]
    assert part.taken.tolist() == [2, 2]
    assert chosen("first_to_halt", part) is None
    assert chosen("halting_head", part) == Choice(1, 1)
    assert chosen("majority", part) == Choice(0, 1)
    assert chosen("smallest_residual", part) == Choice(0, 1)  # of a single change each
    assert FOUND.cut(3, 1).residual().tolist() == [0, 0, 0]
    assert FOUND.cut(3, 4).passes(2) == 6


def test_unknown_selectors_are_refused():
    with pytest.raises(UserError, match="'majorty' is none.*Did you mean 'majority'"):
        selectors_named(["last", "majorty"])
    assert [one.name for one in selectors_named(["majority", "last", "majority"])] == ["majority", "last"]
