"""How a model solves one puzzle, step by step, as boards for a picture in any format."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataset.tasks.look import Look, Status
from utils.constants import IGNORE_LABEL_ID
from utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Solving:
    """One puzzle and the model's answers to it.

    Args:
        look: how boards of the task are shown.
        inputs: tokens of the question, [seq].
        labels: tokens of the solution, [seq]; -100 where it is unknown or not asked for.
        answers: the model's tokens after each step, [steps, seq].
        q_halt: probability of halting after each step, [steps], in 0..1.
        open_token: the token of a cell that is not answered yet, and so not wrong; None: there is none.

    Raises:
        ValueError: shapes do not fit each other or the look, or `q_halt` are not probabilities.
    """

    look: Look
    inputs: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    q_halt: np.ndarray
    open_token: int | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "labels", "answers", "q_halt"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        seq, steps = self.inputs.size, self.q_halt.size
        shapes = self.inputs.shape, self.labels.shape, self.answers.shape, self.q_halt.shape
        if shapes != ((seq,), (seq,), (steps, seq), (steps,)) or not seq or not steps:
            raise ValueError(
                "inputs, labels, answers and q_halt must be [seq], [seq], [steps, seq] and [steps], "
                f"got {', '.join(str(list(shape)) for shape in shapes)}"
            )
        if seq != self.look.height * self.look.width:
            raise ValueError(f"{seq} tokens: boards have {self.look.height} x {self.look.width} cells")
        if not ((self.q_halt >= 0) & (self.q_halt <= 1)).all():
            raise ValueError(f"q_halt {self.q_halt}: expected probabilities; apply the sigmoid to logits first")


@dataclass(frozen=True)
class Board:
    """One panel; the arrays are [height, width]."""

    name: str  # "question", "step 3", "steps 5-16", "target"
    halt: str  # "halt 0.87", or empty
    verdict: str  # "2 wrong", "solved", or empty
    tokens: np.ndarray
    expected: np.ndarray  # tokens, -100 where nothing is expected
    status: np.ndarray  # a `Status` per cell

    @property
    def title(self) -> str:
        """Name and halting probability."""
        return f"{self.name}, {self.halt}" if self.halt else self.name

    @property
    def has_wrong(self) -> bool:
        """Whether any cell is wrong."""
        return bool((self.status == Status.WRONG).any())


@dataclass(frozen=True)
class Boards:
    """All panels of a picture."""

    question: Board
    frames: list[Board]
    target: Board | None  # None if no label is known


def boards_of(solving: Solving, max_frames: int) -> Boards:
    """The panels of a puzzle: the question, at most `max_frames` of the answers, and the solution where it is known.

    Answers that did not change are shown once.

    Raises:
        UserError: `max_frames` is below 1.
    """
    if max_frames < 1:
        raise UserError(f"max_frames {max_frames}: at least one answer must be shown.")
    return _boards(solving, lambda answers: _chosen_steps(answers, max_frames))


def boards_by_step(solving: Solving) -> Boards:
    """The panels of a puzzle with the answer after every step, one frame each."""
    return _boards(solving, lambda answers: [(step, step) for step in range(len(answers))])


def _boards(solving: Solving, choose: Callable[[np.ndarray], list[tuple[int, int]]]) -> Boards:
    """The panels of a puzzle, with the runs of steps that `choose` takes from the answers [steps, height, width]."""
    look, shape = solving.look, (solving.look.height, solving.look.width)
    inputs = solving.inputs.astype(np.int64).reshape(shape)
    labels = solving.labels.astype(np.int64).reshape(shape)
    answers = solving.answers.astype(np.int64).reshape(-1, *shape)
    has_label = bool((labels != IGNORE_LABEL_ID).any())
    given = look.given(inputs)
    view = look.view(inputs, labels, answers)
    window = view.window

    cut_given, cut_expected = given[window], view.expected[window]
    shown = view.answers[(slice(None), *window)]
    frames = []
    for first, last in choose(shown):
        tokens = shown[last]
        judged = cut_expected != IGNORE_LABEL_ID
        status = np.where(cut_given, Status.GIVEN, np.where(judged, Status.RIGHT, Status.PLAIN))
        is_open = judged & (tokens == solving.open_token) & (tokens != cut_expected)
        status = np.where(is_open, Status.PLAIN, status)
        status = np.where(judged & (tokens != cut_expected) & ~is_open, Status.WRONG, status)
        wrong, left = np.count_nonzero(status == Status.WRONG), np.count_nonzero(is_open)
        frames.append(
            Board(
                name=f"step {last + 1}" if first == last else f"steps {first + 1}-{last + 1}",
                halt=f"halt {solving.q_halt[last]:.2f}",
                verdict=f"{wrong} wrong" if wrong else f"{left} open" if left else "solved" if has_label else "",
                tokens=tokens,
                expected=cut_expected,
                status=status,
            )
        )

    def still(name: str, tokens: np.ndarray, given: np.ndarray) -> Board:
        nothing = np.full_like(tokens, IGNORE_LABEL_ID)
        return Board(name, "", "", tokens, nothing, np.where(given, Status.GIVEN, Status.PLAIN))

    question = still("question", inputs[view.question_window], given[view.question_window])
    return Boards(question, frames, still("target", view.target[window], cut_given) if has_label else None)


def _chosen_steps(answers: np.ndarray, max_frames: int) -> list[tuple[int, int]]:
    """The first and last step, from 0, of each run of equal answers to show; `answers` is [steps, height, width].

    If there are more than `max_frames` runs, these are the first, the last, and those between them that split the
    number of changed cells most evenly.
    """
    changes = np.count_nonzero(answers[1:] != answers[:-1], axis=(1, 2))
    firsts = [0, *(np.flatnonzero(changes) + 1).tolist()]
    runs = list(zip(firsts, [*(first - 1 for first in firsts[1:]), len(answers) - 1], strict=True))
    if len(runs) <= max_frames:
        return runs
    if max_frames == 1:
        return runs[-1:]
    changed = np.concatenate([[0], np.cumsum(changes[changes > 0])])
    chosen = [0]
    for frame in range(1, max_frames - 1):
        open_runs = np.arange(chosen[-1] + 1, len(runs) - (max_frames - 1 - frame))
        distance = np.abs(changed[open_runs] - changed[-1] * frame / (max_frames - 1))
        chosen.append(int(open_runs[distance.argmin()]))
    return [runs[run] for run in [*chosen, len(runs) - 1]]
