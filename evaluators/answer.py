"""The answer of a model to one puzzle, and how it is shown."""

import base64
import html
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.tasks.own_code import solution_of
from dataset.tasks.puzzle import Question, Verdict, Written
from dataset.tasks.task import Task
from evaluators.picture import save_png
from evaluators.solving import Solving
from evaluators.terminal import in_terminal
from utils.constants import IGNORE_LABEL_ID

_NOT_ASKED = 0  # the token of a label where nothing is asked for


def _solution(task: Task, question: Question) -> np.ndarray | None:
    """The label that came with a question, or what the task finds; None: it is not known."""
    return question.label if question.label is not None else solution_of(task, question.tokens)


def known_label(task: Task, question: Question) -> np.ndarray:
    """The solution as a label, int64 [seq_len]: -100 where nothing is asked for, everywhere if it is not known."""
    solution = _solution(task, question)
    if solution is None:
        return np.full(len(question.tokens), IGNORE_LABEL_ID, np.int64)
    return np.where(solution == _NOT_ASKED, IGNORE_LABEL_ID, solution.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer, with the way to it. Printing it shows the puzzle and the answer after some of the steps.

    Attributes:
        task: the task, which knows how its tokens are written.
        question: the puzzle.
        tokens: the answer, [seq_len].
        steps: steps taken: ACT steps, or rounds of a search.
        halt_probability: how sure the halting head was of the answer, 0 to 1; None after a search.
        step_tokens: the answer after each step, [steps, seq_len].
        step_halt: the halting probability after each step, [steps]; after a search 1 where the puzzle was solved.
        verdict: what the rules of the task say.
        seconds: time that it took; of a batch, the time of the batch shared equally.
        open_token: the token of a cell that a search has not decided; None for other models.
        rollouts: how often the puzzle was tried.
    """

    task: Task
    question: Question
    tokens: np.ndarray
    steps: int
    halt_probability: float | None
    step_tokens: np.ndarray
    step_halt: np.ndarray
    verdict: Verdict
    seconds: float
    open_token: int | None = None
    rollouts: int = 1

    @property
    def solved(self) -> bool:
        """Whether the answer is right by the rules of the task."""
        return self.verdict.status == "solved"

    @property
    def grid(self) -> np.ndarray:
        """The answer as an array: of digits, colours or characters, as the task writes them."""
        return self.task.grid(self.tokens, self.question.tokens)

    @property
    def text(self) -> str:
        """The answer as lines of text."""
        return "\n".join(self.task.rows(self.tokens, self.question.tokens))

    @property
    def written(self) -> Written:
        """The answer in the form in which data sets write it: a text in one line, or rows of numbers."""
        return self.task.decode(self.tokens, self.question.tokens)

    @property
    def step_answers(self) -> list[Written]:
        """The answer after each step; see `written`."""
        return [self.task.decode(tokens, self.question.tokens) for tokens in self.step_tokens]

    def best(self, count: int) -> list[tuple[Written, float]]:
        """At most `count` different answers, each with its highest halting probability.

        The answer itself comes first, the others follow in the order of their probability.
        """
        found: dict[bytes, tuple[np.ndarray, float]] = {}
        for tokens, halt in zip(self.step_tokens, self.step_halt.tolist(), strict=True):
            key = tokens.tobytes()
            found[key] = (tokens, max(halt, found[key][1] if key in found else 0.0))
        own = self.tokens.astype(self.step_tokens.dtype).tobytes()
        order = sorted(found.items(), key=lambda item: (item[0] != own, -item[1][1]))
        written = [(self.task.decode(tokens, self.question.tokens), halt) for _, (tokens, halt) in order]
        unique = [pair for index, pair in enumerate(written) if pair[0] not in [other for other, _ in written[:index]]]
        return unique[:count]

    def solving(self) -> Solving:
        """The steps, for pictures, with wrong cells marked where the solution is known."""
        solution = _solution(self.task, self.question)
        if solution is None:
            label = self._accepted() if self.solved else np.full_like(self.tokens, _NOT_ASKED)
        else:  # another right answer than the known one is not wrong
            label = np.where(solution == _NOT_ASKED, _NOT_ASKED, self.tokens) if self.solved else solution
        label = np.where(label == _NOT_ASKED, IGNORE_LABEL_ID, label.astype(np.int64))
        inputs, look = self.question.tokens, self.task.look()
        return Solving(look, inputs, label, self.step_tokens, self.step_halt, self.open_token)

    def _accepted(self) -> np.ndarray:
        """The answer, which is right, as a label: if it changes given cells, nothing is asked of any of them."""
        inputs, look = self.question.tokens, self.task.look()
        given = look.given(inputs.astype(np.int64).reshape(look.height, look.width)).reshape(-1)
        changed = bool((self.tokens != inputs)[given].any())
        return np.where(given & changed, _NOT_ASKED, self.tokens)

    def picture(self, color: bool = False, max_frames: int = 4, width: int | None = None) -> str:
        """The puzzle and the answer after some of the steps, side by side; see `evaluators.terminal.in_terminal`."""
        return in_terminal(self.solving(), color, max_frames, width)

    def summary(self) -> str:
        """The verdict, the steps and the time in one line."""
        sure = "" if self.halt_probability is None else f", halting probability {self.halt_probability:.2f}"
        steps = "step" if self.steps == 1 else "steps"
        tried = "" if self.rollouts == 1 else f", tried {self.rollouts} times"
        return f"{self.verdict} ({self.steps} {steps}{sure}{tried}, {self.seconds:.2f} s)"

    def __repr__(self) -> str:
        return f"<Answer {self.summary()}>"

    def __str__(self) -> str:
        return f"{self.picture()}\n\n{self.summary()}"

    def _repr_html_(self) -> str:
        """The picture and the summary, for notebooks."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answer.png"
            save_png(self.solving(), path, max_frames=4)
            data = base64.b64encode(path.read_bytes()).decode()
        alt, summary = html.escape(self.text, quote=True), html.escape(self.summary())
        image = f'<img src="data:image/png;base64,{data}" alt="{alt}" style="max-width:100%">'
        return f"<figure>{image}<figcaption>{summary}</figcaption></figure>"
