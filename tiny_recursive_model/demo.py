"""A trained model at work in the terminal, step by step and cell by cell."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import tyro

from dataset.task_choice import choose_task
from dataset.tasks.puzzle import Question
from dataset.tasks.task import Task
from evaluators.answer import Answer
from evaluators.reasoner import Reasoner
from evaluators.rollouts.attempts import ATTEMPTS
from evaluators.solving import Board, boards_of
from evaluators.terminal import board_in_terminal
from tiny_recursive_model.choice import choose_model, require_task
from tiny_recursive_model.puzzles import questions_of, read_puzzles
from utils.errors import UserError, error_message
from utils.machine import DeviceName

_MOST_FRAMES = 64


@dataclass
class Flags:
    """Show a trained model at work: a random puzzle, or one of your own."""

    puzzle: Annotated[str | None, tyro.conf.Positional] = None
    """A puzzle, a file, or - for standard input. By default a random one."""
    task: str = "sudoku"
    """The kind of the random puzzle: sudoku, maze or arithmetic, or the file of a task of your own."""
    model: str | None = None
    """A run folder, a checkpoint, a saved model, or a name in weights/. By default the one of weights/ that fits."""
    steps: int | None = None
    """The most steps: ACT steps, or rounds of a search."""
    delay: float = 0.03
    """Seconds between two cells that change, on a terminal."""
    seed: int | None = None
    """Seed of the random puzzle. By default another one each time."""
    device: DeviceName = "auto"
    """Where to compute."""


def main(arguments: list[str]) -> int:
    """Run the command: its exit status, which is that of `predict`."""
    flags = tyro.cli(Flags, prog="python -m tiny_recursive_model demo", args=arguments)
    if not 0 <= flags.delay <= 10:
        raise UserError(f"--delay {flags.delay}: 0 to 10 seconds.")
    task = choose_task(flags.task, "--task")
    given = [] if flags.puzzle is None else read_puzzles([flags.puzzle])

    def fits(model: Reasoner) -> None:
        if given:
            questions_of(given, model.task)
        else:
            require_task(model, task)

    what = given[0].where if given else f"--task {flags.task}"
    reasoner = choose_model(flags.model, flags.device, fits, what)
    print(f"model: {reasoner.origin.path.parent.name}, {reasoner!r}")
    rng = np.random.default_rng(flags.seed)
    questions = questions_of(given, reasoner.task) if given else [Question(reasoner.task.random_question(rng))]
    answers = [_show(reasoner, question, flags) for question in questions]
    if not given and sys.stdin.isatty() and sys.stdout.isatty():
        _talk(reasoner, rng, flags)
    return int(any(not answer.solved and answer.verdict.checked for answer in answers))


def _talk(reasoner: Reasoner, rng: np.random.Generator, flags: Flags) -> None:
    """Let the user type puzzles until there is enough of it."""
    while True:
        print("\nYour own puzzle (Enter: another random one; q: quit)")
        try:
            text = _typed(reasoner.task)
            if text is None:
                return
            question = Question(reasoner.task.encode(text) if text else reasoner.task.random_question(rng))
        except UserError as error:
            print(error_message(error))
            continue
        _show(reasoner, question, flags)


def _typed(task: Task) -> str | None:
    """A puzzle from the keyboard, in one line or in as many as a board has rows; None: the user has had enough."""
    lines: list[str] = []
    rows = task.look().height
    while len(lines) < rows:
        try:
            line = input("> ")
        except EOFError:
            return None
        if not lines and line.strip().lower() in ("q", "quit", "exit"):
            return None
        if not lines and not line:
            return ""
        lines.append(line)
        if len(lines) == 1 and len(line.strip()) > 2 * task.look().width:
            break  # a whole board in one line
    return "\n".join(lines)


def _show(reasoner: Reasoner, question: Question, flags: Flags) -> Answer:
    (answer,) = reasoner.answer([question], flags.steps, attempts=ATTEMPTS)
    if sys.stdout.isatty():
        _play(answer, flags.delay)
    else:
        print(f"\n{answer.picture(max_frames=6)}")
    print(f"\n{answer.summary()}")
    return answer


def _play(answer: Answer, delay: float) -> None:
    """Draw the boards over one another."""
    look, height = answer.task.look(), 0
    for board in _frames(answer):
        text = board_in_terminal(look, board, color=True)
        up = f"\x1b[{height}A\x1b[J" if height else ""
        print(f"{up}{text}", flush=True)
        height = text.count("\n") + 1
        time.sleep(delay)


def _frames(answer: Answer) -> Iterator[Board]:
    """The question, and then each step with one cell more changed."""
    boards = boards_of(answer.solving(), _MOST_FRAMES)
    shown = boards.question
    yield shown
    for board in boards.frames:
        if shown.tokens.shape != board.tokens.shape:  # the question is shown in another frame than the answer
            shown = board
            yield board
            continue
        changed = np.argwhere((shown.tokens != board.tokens) | (shown.status != board.status))
        for count in range(1, len(changed)):
            done = tuple(changed[:count].T)
            tokens, status = shown.tokens.copy(), shown.status.copy()
            tokens[done], status[done] = board.tokens[done], board.status[done]
            yield replace(board, tokens=tokens, status=status, verdict="")
        shown = board
        yield board
