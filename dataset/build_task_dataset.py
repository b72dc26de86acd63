"""Build the data set of a task: one of dataset/tasks, one of your own in a file, or an imported one.

    python -m dataset.build_task_dataset path/to/futoshiki.py --output-dir data/futoshiki --train-size 2000
    python -m dataset.build_task_dataset path/to/futoshiki.py --help
    python -m dataset.build_task_dataset reasoning_gym:chain_sum
    python -m dataset.build_task_dataset questions.jsonl

Token 0 is padding. A group is a puzzle and its augmented copies. No training puzzle is equivalent to a test puzzle, and
no puzzle is there twice, as far as the symmetries of the task say which are equivalent. Every label is checked with the
`verify` of the task. A task with a builder of its own (`Config` and `build`) is built by that, with its options.
"""

import importlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


import numpy as np
import torch
import tyro
from pydantic import BaseModel
from tqdm import tqdm

from dataset.build_record import build_and_record, record_options
from dataset.question_answer import check_at_least, notice, write_question_answers
from dataset.shards import BLANK_IDENTIFIER, build_folder, write_identifiers
from dataset.task_choice import choose_task, data_folder
from dataset.tasks import load_task
from dataset.tasks.own_code import examples_of, generated_in_turn, key_of_question, verdict_of
from dataset.tasks.symmetric import check_symmetries
from dataset.tasks.task import DoesNotFit, Task
from utils.config import unknown_key, validate
from utils.counter_random import seed_of
from utils.errors import UserError, exit_on_user_error
from utils.random_streams import Stream

Split = Literal["train", "test"]
_NOTED_REPEATS = 200  # examples in a row that are there already, after which a generator that takes long is noted
_MOST_REPEATS = 2000  # examples in a row that are there already, after which a generator counts as exhausted


class Config(BaseModel, extra="allow"):
    """Options of the builder of any task."""

    task: Annotated[str, tyro.conf.Positional]
    """A task of dataset/tasks, the .py file of one, reasoning_gym:NAME, or a file with questions and answers."""
    output_dir: str | None = None
    """Folder of the data set. By default data/NAME."""
    train_size: int = 2000
    """Number of training puzzles to generate."""
    test_size: int = 200
    """Number of test puzzles to generate."""
    difficulty: list[int] = []
    """Difficulties of the training puzzles. By default those of the task."""
    test_difficulty: list[int] = []
    """Difficulties of the test puzzles. By default those of the task for tests."""
    num_aug: int = 0
    """Augmented copies of each training puzzle, by the symmetries of the task."""
    seed: int = 0
    """Seed of all random choices."""
    overwrite: bool = False
    """Replace the data set in the output folder, if there is one."""


def build(config: Config) -> None:
    """Build the data set that `config` describes. Its task must be one that is found by its name.

    Raises:
        UserError: an option is invalid, a label is wrong, the generator repeats itself, or the output folder is not
            empty.
    """
    kind = load_task(config.task)
    options = options_of(config)
    if (module := own_builder(kind)) is not None:
        module.build(options)
        return
    if not kind.makes_examples():
        raise UserError(f"the task {kind.name} makes no examples: it needs `generate`, `examples` or a builder.")
    check_at_least(0, seed=config.seed, num_aug=config.num_aug)
    check_at_least(1, train_size=config.train_size, test_size=config.test_size)
    output_dir = config.output_dir or data_folder(kind)
    task = kind.of(*kind.own_size())
    with build_folder(output_dir, config.overwrite) as root:
        test_rng, train_rng = np.random.default_rng(config.seed).spawn(2)
        known: set[bytes] = set()
        test_levels = config.test_difficulty or kind.test_difficulties or config.difficulty or kind.difficulties
        test = collect(task, "test", config.test_size, test_levels, test_rng, known)
        train = collect(task, "train", config.train_size, config.difficulty or kind.difficulties, train_rng, known)
        inputs, labels = _augmented(task, *train, config.num_aug, config.seed)
        for split, (questions, answers), size in (("train", (inputs, labels), 1 + config.num_aug), ("test", test, 1)):
            sizes = np.full(len(questions) // size, size)
            write_question_answers(root / split, questions, answers, sizes, task.vocab_size, task.name)
        write_identifiers(root, [BLANK_IDENTIFIER])
        task.save_notes(root)
    print(
        f"{output_dir}: {len(train[0])} training puzzles ({len(inputs)} with augmented copies), {len(test[0])} test "
        f"puzzles of the task {task.name}, {task.seq_len} tokens of a vocabulary of {task.vocab_size}"
    )


def options_of(config: Config) -> BaseModel:
    """The options with which `config` builds: those of the builder of the task, if it has one of its own.

    Raises:
        UserError: there is no such task or option.
    """
    kind = load_task(config.task)
    if (module := own_builder(kind)) is not None:
        given = config.model_dump(exclude_unset=True, exclude={"task"})
        return validate(module.Config, given, where="data_builder.options.")
    if config.model_extra:
        allowed = sorted(set(Config.model_fields) - {"task"})
        raise UserError(f"data_builder.options: {unknown_key(next(iter(config.model_extra)), '', allowed)}")
    return config.model_copy(update={"output_dir": config.output_dir or data_folder(kind)})


def collect(
    task: Task, split: Split, size: int, difficulties: Iterable[int], rng: np.random.Generator, known: set[bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """Questions and labels, uint8 [n, seq_len], of a split.

    Args:
        task: the task.
        split: which of them, for a task that reads its examples from files.
        size: the number of puzzles to generate.
        difficulties: what to generate, in equal parts.
        rng: the source of randomness of this split.
        known: keys of puzzles that are not taken; those of this split are added.

    Raises:
        UserError: a label is wrong, there is no puzzle, or the generator repeats itself.
    """
    given = examples_of(task, split)
    levels = list(difficulties)
    stream = given if given is not None else generated_in_turn(task, levels, rng)
    bar = tqdm(desc=f"{split} puzzles", total=size if given is None else None, delay=1, leave=False, disable=None)
    questions: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    own: set[bytes] = set()
    repeats = too_long = in_a_row = in_other = 0
    for question, answer in stream:
        try:
            tokens, label = task.example(question, answer)
        except DoesNotFit:
            too_long += 1
            if given is None and too_long > size + _MOST_REPEATS:
                raise
            continue
        key = key_of_question(task, tokens)
        if key in known:
            repeats += 1
            in_a_row += 1
            in_other += key not in own
            if given is None and in_a_row == _NOTED_REPEATS:
                notice(f"{split}: the last {in_a_row} puzzles were there already; {len(questions)} of {size} are found")
            if given is None and in_a_row >= _MOST_REPEATS:
                raise UserError(
                    f"the task {task.name}: `generate` repeats itself: after {len(questions)} different {split} "
                    f"puzzles of {size}, the next {in_a_row:,} were there already, {in_other:,} of them in the other "
                    f"split (equivalent puzzles count as the same). Ask for fewer puzzles, or for other difficulties "
                    f"than {levels}."
                )
            continue
        in_a_row = in_other = 0
        _refuse_wrong_label(task, tokens, label)
        known.add(key)
        own.add(key)
        questions.append(tokens)
        answers.append(label)
        bar.update()
        if given is None and len(questions) == size:
            break
    bar.close()
    if not questions:
        raise UserError(f"the task {task.name}: there is no {split} puzzle that is not also elsewhere.")
    if given is not None and repeats:
        notice(f"{split}: {repeats} puzzles are equivalent to others and left out")
    if too_long:
        notice(f"{split}: {too_long} puzzles are longer than {task.seq_len} tokens and left out")
    return np.stack(questions), np.stack(answers)


def _refuse_wrong_label(task: Task, tokens: np.ndarray, label: np.ndarray) -> None:
    if not label.any():
        raise UserError(f"the task {task.name}: the answer to {task.decode(tokens)!r} is empty, so there is no label.")
    verdict = verdict_of(task, tokens, label, label)
    if verdict.status != "solved":
        raise UserError(
            f"the task {task.name}: a label is not right by `verify`: {task.decode(tokens)!r} with the answer "
            f"{task.decode(label, tokens)!r} is {verdict.status}: {verdict.reason}. Correct `generate` or `verify`."
        )


def _augmented(
    task: Task, inputs: np.ndarray, labels: np.ndarray, num_aug: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each example [n, seq_len] followed by its `num_aug` augmented copies: [n * (1 + num_aug), seq_len]."""
    if not num_aug:
        return inputs, labels
    augmentation = task.augmentation()
    check_symmetries(task, inputs, labels)
    questions, answers = (torch.from_numpy(np.repeat(tokens, 1 + num_aug, axis=0)) for tokens in (inputs, labels))
    copies = torch.arange(len(questions))
    copies = copies[copies % (1 + num_aug) > 0]
    draws = augmentation.draw(seed_of(seed, Stream.STORED_AUGMENTATION), copies)
    prepared = augmentation.prepare(questions[copies].numpy(), answers[copies].numpy())
    known = torch.from_numpy(prepared) if prepared is not None else None
    questions[copies], answers[copies] = augmentation.apply(questions[copies], answers[copies], known, draws)
    return questions.numpy(), answers.numpy()


def own_builder(kind: type[Task]) -> Any:
    """The module with the builder of a task, `Config` and `build`; None if it has none of its own."""
    module = importlib.import_module(kind.builder) if kind.builder is not None else sys.modules[kind.__module__]
    return module if hasattr(module, "Config") and hasattr(module, "build") else None


def main() -> None:
    """Run the command line."""
    exit_on_user_error(lambda: _run(sys.argv[1:]))


def _run(arguments: list[str]) -> None:
    prog = "python -m dataset.build_task_dataset"
    if not arguments or arguments[0].startswith("-"):
        tyro.cli(Config, prog=prog, description=__doc__, args=arguments)  # which ends with a help page or an error
        raise UserError("name the task first, before the options. For example: futoshiki.py --train-size 100")
    kind = choose_task(arguments[0])
    if (module := own_builder(kind)) is not None:
        description = sys.modules[module.Config.__module__].__doc__
        own = tyro.cli(module.Config, prog=f"{prog} {arguments[0]}", description=description, args=arguments[1:])
        build_and_record(module.build, own)
        return
    levels = f"difficulties: {list(kind.difficulties)}, in tests {list(kind.test_difficulties or kind.difficulties)}"
    description = f"Build a data set of the task {kind.name}.\n\n{inspect.getdoc(kind)}\n\n{levels}"
    config = tyro.cli(Config, prog=prog, description=description, args=arguments)
    config = config.model_copy(update={"task": kind.name})
    build(config)
    record_options(options_of(config))


if __name__ == "__main__":
    main()
