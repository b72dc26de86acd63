from typing import Any

import numpy as np
import pytest

from dataset.tasks.look import Look
from evaluators.solving import Solving, boards_of
from tests.evaluators.solvings import boards, plain, steps_shown, sudoku_look


def test_answers_that_stand_are_shown_once() -> None:
    assert steps_shown(boards(0, 0, 3, 16, 16, 16), max_frames=8) == ["1-2", "3", "4-6"]
    assert steps_shown(boards(5, 5, 5), max_frames=8) == ["1-3"]
    assert steps_shown(boards(5), max_frames=8) == ["1"]


def test_an_answer_that_comes_back_is_shown_again() -> None:
    assert steps_shown(boards(5, 6, 5), max_frames=8) == ["1", "2", "3"]


def test_halting_probability_is_that_of_the_last_step_shown() -> None:
    assert "halt 0.75" in plain(boards(3, 5, 5))[1]


def test_steps_between_split_the_changes_evenly() -> None:
    # 1 change per step, then 9 at once: half of all 16 lies within the jump, nearer to its beginning.
    assert steps_shown(boards(0, 1, 2, 3, 4, 5, 6, 15, 16), max_frames=3) == ["1", "7", "9"]
    assert steps_shown(boards(*range(17)), max_frames=5) == ["1", "5", "9", "13", "17"]


@pytest.mark.parametrize("max_frames", range(1, 12))
def test_first_and_last_answer_are_among_those_shown(max_frames: int) -> None:
    jumps = boards(0, 16, 0, 1, 2, 3, 4, 5, 6, 0, 16)
    steps = steps_shown(jumps, max_frames)
    assert len(set(steps)) == max_frames
    assert steps == sorted(steps, key=int)
    assert steps[-1] == "11"
    assert max_frames == 1 or steps[0] == "1"


def test_shapes_that_do_not_fit_are_refused() -> None:
    good: dict[str, Any] = {
        "inputs": np.ones(16),
        "labels": np.ones(16),
        "answers": np.ones((2, 16)),
        "q_halt": np.zeros(2),
    }
    look = sudoku_look(16)
    Solving(look, **good)
    for name, bad in {
        "inputs": np.ones((4, 4)),
        "labels": np.ones(15),
        "answers": np.ones((3, 16)),
        "q_halt": np.zeros(3),
    }.items():
        changed: dict[str, Any] = {**good, name: bad}
        with pytest.raises(ValueError, match=r"must be \[seq\], \[seq\], \[steps, seq\] and \[steps\]"):
            Solving(look, **changed)
    with pytest.raises(ValueError, match="16 tokens: boards have 6 x 6 cells"):
        Solving(sudoku_look(36), **good)
    improbable: dict[str, Any] = {**good, "q_halt": np.array([0.5, 3.0])}
    with pytest.raises(ValueError, match="apply the sigmoid"):
        Solving(look, **improbable)


def test_a_cell_that_is_open_is_not_wrong() -> None:
    inputs, labels = np.array([2, 1, 1, 1]), np.array([2, 3, 4, 5])
    answers = np.array([[2, 3, 1, 1], [2, 3, 5, 1], [2, 3, 4, 5]])
    frames = boards_of(Solving(Look(2, 2, " .1234"), inputs, labels, answers, np.zeros(3), open_token=1), 3).frames
    assert [frame.verdict for frame in frames] == ["2 open", "1 wrong", "solved"]
    frames = boards_of(Solving(Look(2, 2, " .1234"), inputs, labels, answers, np.zeros(3)), 3).frames
    assert [frame.verdict for frame in frames] == ["2 wrong", "2 wrong", "solved"]
