"""Answer puzzles from arguments, files or standard input.

Exit status: 0: every answer is solved, or there is nothing to check it by. 1: an answer is wrong or undecided. 2: the
input is bad.
"""

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from dataset.task_choice import choose_task
from dataset.tasks.puzzle import Question
from evaluators.answer import Answer
from evaluators.answers import HaltRule
from evaluators.batch_size import choose_batch_size
from evaluators.reasoner import Reasoner
from evaluators.rollouts.attempts import ATTEMPTS, Attempts
from tiny_recursive_model.adapting import adapt
from tiny_recursive_model.choice import choose_model, require_task
from tiny_recursive_model.puzzles import STDIN, Given, Piece, questions_of, read_puzzles
from utils.errors import UserError
from utils.files import writing_to
from utils.machine import DeviceName
from utils.settings import Variation

Format = Literal["text", "csv", "json", "arc"]
_ALL_FRAMES = 10_000
_COLUMNS = ("question", "answer", "verdict", "steps", "seconds")


@dataclass
class Flags:
    """Answer puzzles from arguments, files or standard input.

    Exit status: 0 if every answer is solved or there is nothing to check it by, 1 if one is wrong or undecided, 2 for
    bad input.
    """

    puzzles: Annotated[list[str], tyro.conf.Positional] = field(default_factory=list)
    """Puzzles, files (.csv with a column question, .json, .jsonl, or text) or - for standard input."""
    model: str | None = None
    """A run folder, a checkpoint, a saved model, or a name in weights/. By default the one of weights/ that fits."""
    task: str | None = None
    """The task of the puzzles. For a model that was trained on a task of your own, the file of that task."""
    name: str | None = None
    """The name of the puzzle, for a model that knows its puzzles by name."""
    adapt: int | None = None
    """For tasks of ARC that the model was not trained on: first fine-tune it on their demonstration pairs, for so many
    epochs (200 is usual)."""
    steps: int | None = None
    """The most steps for a puzzle: ACT steps, or rounds of a search. By default as the model was evaluated."""
    all_steps: bool = False
    """Show the answers after all steps."""
    top: int = 1
    """Show this many different answers, the best first."""
    early_halting: bool = True
    """Stop when the halting head is sure and the answer stays the same."""
    restarts: int = ATTEMPTS.restarts
    """How often a puzzle is tried; 1: once."""
    selector: str | None = None
    """Which answer is taken: last, halting_head, first_to_halt, smallest_residual, most_confident, majority,
    particle_filter or verifier. By default that of an ordinary pass; only if the rules reject it, it is tried again."""
    vary: Variation | None = None
    """How the tries differ. By default by symmetric views if the task has symmetries, otherwise by noise."""
    noise: float = ATTEMPTS.noise
    """Standard deviation of the noise."""
    format: Format | None = None
    """How to write the answers; arc is the format of submissions. By default as the name of --output says, or text."""
    json: bool = False
    """The same as --format json: one line for each puzzle."""
    output: Path | None = None
    """The file to write. By default standard output."""
    device: DeviceName = "auto"
    """Where to compute."""
    seed: int = 0
    """Seed of a search, and of the tries."""


def main(arguments: list[str]) -> int:
    """Run the command: its exit status."""
    flags = tyro.cli(Flags, prog="python -m tiny_recursive_model predict", args=arguments, description=__doc__)
    if flags.top < 1:
        raise UserError(f"--top {flags.top}: at least 1.")
    task = None if flags.task is None else choose_task(flags.task, "--task")
    form = _format(flags)
    sources = flags.puzzles or ([] if sys.stdin.isatty() else [STDIN])
    given = read_puzzles(sources)
    what = given[0].where if flags.task is None else f"{given[0].where} with --task {flags.task}"
    adapted = None if flags.adapt is None else _adapted(given, flags.model, flags.adapt)

    def fits(model: Reasoner) -> None:
        if task is not None:
            require_task(model, task)
        questions_of(given, model.task)

    reasoner = adapted or choose_model(flags.model, flags.device, fits, what)
    if task is not None:
        require_task(reasoner, task)
    questions = questions_of(given, reasoner.task)
    if flags.name is not None:
        questions = [Question(question.tokens, flags.name, question.label) for question in questions]
    answers: list[Answer] = []

    def solved() -> Iterator[Answer]:
        for answer in _answers(reasoner, questions, flags):
            answers.append(answer)
            yield answer

    writers: dict[Format, Callable[[Iterable[Answer], Flags], Iterator[str]]] = {
        "text": _text, "csv": _csv, "json": _json, "arc": _arc,
    }  # fmt: skip
    texts = writers[form](solved(), flags)
    if flags.output is None:
        for text in texts:
            print(text, flush=True)
    else:
        with writing_to(flags.output, "Choose another --output."):
            flags.output.parent.mkdir(parents=True, exist_ok=True)
            flags.output.write_text("".join(f"{text}\n" for text in texts))
    return int(any(not answer.solved and answer.verdict.checked for answer in answers))


def _adapted(given: list[Given], model: str | None, epochs: int) -> Reasoner:
    """The model, fine-tuned on the tasks that are given. What the training prints goes to standard error."""
    if model is None:
        raise UserError("--adapt: give the model to adapt with --model.")
    tasks = {piece.name or "unnamed": piece.puzzle for piece in given if isinstance(piece, Piece)}
    with contextlib.redirect_stdout(sys.stderr):
        return adapt(model, tasks, epochs=epochs)


def _format(flags: Flags) -> Format:
    if flags.json:
        if flags.format not in (None, "json"):
            raise UserError(f"--json and --format {flags.format} contradict each other. Leave out one of them.")
        return "json"
    by_suffix: dict[str, Format] = {".csv": "csv", ".json": "json", ".jsonl": "json"}
    if flags.format is None and flags.output is not None:
        return by_suffix.get(flags.output.suffix, "text")
    return flags.format or "text"


def _answers(reasoner: Reasoner, questions: list[Question], flags: Flags) -> Iterator[Answer]:
    """The answers in order, each as soon as its batch is done."""
    halting = HaltRule() if flags.early_halting else None
    attempts = Attempts(flags.restarts, flags.selector, flags.vary, flags.noise)
    size = 1 if reasoner.searches else choose_batch_size(reasoner.head.model, reasoner.device)
    with tqdm(total=len(questions), unit=" puzzles", delay=2, leave=False, disable=None) as bar:
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            yield from reasoner.answer(part, flags.steps, halting, seed=flags.seed, attempts=attempts)
            bar.update(len(part))


def _text(answers: Iterable[Answer], flags: Flags) -> Iterator[str]:
    color = sys.stdout.isatty() and flags.output is None
    for answer in answers:
        frames = _ALL_FRAMES if flags.all_steps else 1
        lines = [answer.picture(color, frames), "", answer.summary()]
        for place, (written, halt) in enumerate(answer.best(flags.top)[1:], start=2):
            lines.append(f"answer {place}, halting probability {halt:.2f}: {written}")
        yield "\n".join([*lines, ""])


def _json(answers: Iterable[Answer], flags: Flags) -> Iterator[str]:
    for answer in answers:
        line = _row(answer) | {"reason": answer.verdict.reason, "halt_probability": answer.halt_probability}
        if answer.question.name is not None:
            line["name"] = answer.question.name
        if flags.top > 1:
            line["top"] = [{"answer": written, "halt_probability": halt} for written, halt in answer.best(flags.top)]
        if flags.all_steps:
            line["step_answers"] = answer.step_answers
        yield json.dumps(line)


def _csv(answers: Iterable[Answer], flags: Flags) -> Iterator[str]:
    yield ",".join(_COLUMNS)
    for answer in answers:
        line = io.StringIO()
        values = [json.dumps(value) if isinstance(value, list) else value for value in _row(answer).values()]
        csv.writer(line, lineterminator="").writerow(values)
        yield line.getvalue()


def _arc(answers: Iterable[Answer], flags: Flags) -> Iterator[str]:
    """A submission: for each task the attempts at each of its test inputs."""
    submission: dict[str, list[dict[str, Any]]] = {}
    for answer in answers:
        best = [written for written, _ in answer.best(max(2, flags.top))]
        best += best[-1:] * (max(2, flags.top) - len(best))
        attempts = {f"attempt_{place}": written for place, written in enumerate(best, start=1)}
        submission.setdefault(answer.question.name or "unnamed", []).append(attempts)
    yield json.dumps(submission)


def _row(answer: Answer) -> dict[str, Any]:
    question = answer.task.decode(answer.question.tokens)
    values = (question, answer.written, answer.verdict.status, answer.steps, round(answer.seconds, 4))
    return dict(zip(_COLUMNS, values, strict=True))
