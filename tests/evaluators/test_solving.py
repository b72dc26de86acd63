from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.tasks.look import Look, SymbolLook
from evaluators.picture import save_png
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


@pytest.mark.parametrize("asked", [False, True])
def test_a_given_cell_for_which_nothing_is_asked_is_not_wrong(asked: bool, tmp_path: Path) -> None:
    look = SymbolLook(2, 2, "#.ab", ".")
    inputs, labels = np.array([1, 2, 2, 1]), np.array([1 if asked else -100, 3, 4, -100])
    answers = np.array([[0 if asked else 4, 4, 4, 3], [0 if asked else 3, 3, 4, 0]])
    shown = Solving(look, inputs, labels, answers, np.zeros(2))
    frames = boards_of(shown, 2).frames
    assert [frame.verdict for frame in frames] == ["1 wrong", "solved"]
    assert frames[1].tokens.tolist() == [[1, 3], [4, 1]]
    assert [frame.status.ravel().tolist() for frame in frames] == [[1, 3, 2, 1], [1, 2, 2, 1]]
    rows = [" ".join(line.split()) for line in plain(shown)[4:6]]
    assert rows == ["| # . | | #!b | | # a |", "| . # | | b # | | b # |"]
    save_png(shown, tmp_path / "new.png")
    save_png(replace(shown, answers=np.where(inputs == 1, 1, answers)), tmp_path / "kept.png")
    assert (tmp_path / "new.png").read_bytes() == (tmp_path / "kept.png").read_bytes()


def test_without_a_solution_given_cells_of_an_own_task_keep_their_tokens() -> None:
    nothing = np.full(4, -100)
    inputs, answers = np.array([1, 2, 2, 1]), np.array([[3, 4, 4, 0]])
    (frame,) = boards_of(Solving(SymbolLook(2, 2, "#.ab", "."), inputs, nothing, answers, np.zeros(1)), 1).frames
    assert (frame.tokens.ravel().tolist(), frame.verdict) == ([1, 4, 4, 1], "")
    clues, changed = np.array([2] + [1] * 15), np.full((1, 16), 3)
    (frame,) = boards_of(Solving(sudoku_look(16), clues, np.full(16, -100), changed, np.zeros(1)), 1).frames
    assert frame.verdict == "1 wrong"
