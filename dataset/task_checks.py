"""The checks of a task: whether what it says about itself is true of many of its examples.

A `Finding` is a fault, a check that was passed, or a note. `python -m dataset.check_task` prints them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from dataset.shards import load_metadata, load_shard
from dataset.tasks.own_code import (
    OwnCodeError,
    examples_of,
    generated_in_turn,
    key_of_question,
    solution_of,
    symmetries_of,
    verdict_of,
    written,
)
from dataset.tasks.symmetric import Example, broken_symmetries, same_answer, transformed, tries_all
from dataset.tasks.task import DoesNotFit, Given, Task
from utils.errors import UserError
from utils.text_files import shown

_MOST_ACCEPTED = 0.5  # of random answers that are not the label
_LEAST_DISTINCT = 0.5  # of generated puzzles
_MOST_CONSTANT = 0.5  # of labels that are the same
_LEAK = 0.5  # of independently drawn test puzzles that are training puzzles too
_SOLVING = 20.0  # seconds for `solve`
_HIDDEN, _LAYERS, _CYCLES = 96, 2, 4  # the network whose cost is estimated: that of experiment=own_task
Kind = Literal["ok", "fault", "note"]


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    kind: Kind
    detail: str


@dataclass(frozen=True)
class Examples:
    """Examples that are checked: as they were given, and in tokens."""

    given: list[tuple[Given, Given]]
    train: list[Example]
    test: list[Example]
    seconds: float  # time to generate one

    @property
    def all(self) -> list[Example]:
        """Those of both splits."""
        return [*self.train, *self.test]


def draw_examples(task: Task, count: int, seed: int) -> Examples:
    """`count` examples of each split, read or generated, of all difficulties.

    Raises:
        UserError: the task has none, or one is none of the task.
    """
    test_rng, train_rng = np.random.default_rng(seed).spawn(2)
    given: list[tuple[Given, Given]] = []
    tokens: dict[str, list[Example]] = {"train": [], "test": []}
    begun = time.perf_counter()
    splits: tuple[tuple[Literal["train", "test"], Sequence[int], np.random.Generator], ...] = (
        ("train", task.difficulties, train_rng),
        ("test", task.test_difficulties or task.difficulties, test_rng),
    )
    for split, levels, rng in splits:
        read = examples_of(task, split)
        stream = read if read is not None else generated_in_turn(task, levels, rng)
        for pair in islice(stream, count):
            try:
                tokens[split].append(task.example(*pair))
            except DoesNotFit:
                continue
            given.append(pair)
    if not tokens["train"] or not tokens["test"]:
        raise UserError(f"the task {task.name} has no example that fits {task.seq_len} tokens.")
    return Examples(given, tokens["train"], tokens["test"], (time.perf_counter() - begun) / len(given))


def read_examples(task: Task, root: Path, count: int) -> Examples:
    """The first `count` examples of each split of a data set.

    Raises:
        UserError: it is no data set of this task.
    """
    splits: dict[str, list[Example]] = {}
    for split in ("train", "test"):
        metadata = load_metadata(root, split)
        if metadata.task not in (None, task.name):
            raise UserError(f"{root}: a data set of the task {metadata.task}, not {task.name}. Give another --data.")
        shards = [load_shard(root, split, name, metadata) for name in metadata.sets]
        rows = [(shard.inputs[row], shard.labels[row]) for shard in shards for row in range(len(shard.inputs))]
        splits[split] = [(np.asarray(question), np.asarray(label)) for question, label in rows[:count]]
    task.load_notes(root)
    return Examples([], splits["train"], splits["test"], 0.0)


def all_findings(task: Task, examples: Examples, seed: int = 0) -> Iterator[Finding]:
    """What all checks find. A check that fails with an exception is a fault."""
    checks: list[tuple[str, Callable[[Task, Examples, np.random.Generator], Iterator[Finding]]]] = [
        ("round trip", round_trips),
        ("labels", labels),
        ("broken answers", broken_answers),
        ("solve", solver),
        ("symmetries", symmetries),
        ("leak", leaks),
        ("repeats", repeats),
        ("balance", balance),
        ("difficulty", difficulty),
        ("length and cost", length_and_cost),
    ]
    for name, check in checks:
        try:
            yield from check(task, examples, np.random.default_rng((seed, len(name))))
        except OwnCodeError as error:
            yield Finding(name, "fault", str(error))
        except Exception as error:  # the code of a user, which may raise anything
            what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            yield Finding(name, "fault", f"it stopped with an error: {what}")


def round_trips(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """What `decode` writes, `encode` must read back, and the other way round."""
    for question, label in examples.all:
        written = task.decode(question)
        if not np.array_equal(task.encode(written), question):
            yield Finding("round trip", "fault", f"encode(decode(question)) is another question than {shown(written)}")
            return
        answer = task.decode(np.where(label > 0, label, question) if _in_place(label) else label, question)
        if not same_answer(task.encode_answer(answer, question), label):
            yield Finding(
                "round trip", "fault", f"encode_answer(decode(answer)) is another answer than {shown(answer)}"
            )
            return
    for (question, _), (tokens, _) in zip(examples.given, examples.all, strict=False):
        if isinstance(question, str) and "".join(str(task.decode(tokens)).split()) != "".join(question.split()):
            yield Finding("round trip", "fault", f"the question {shown(question)} is read as {task.decode(tokens)!r}")
            return
    yield Finding("round trip", "ok", f"{len(examples.all)} questions and answers are written and read back")


def _in_place(label: np.ndarray) -> bool:
    """Whether a label asks for most of the cells, so that the answer is written as a whole board."""
    return bool(2 * np.count_nonzero(label) > len(label))


def labels(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """`verify` must accept every label, whatever is answered where nothing is asked for."""
    unchecked = 0
    for question, label in examples.all:
        answer = np.where(label > 0, label, rng.integers(task.vocab_size, size=len(label))).astype(np.uint8)
        shown_as = f"{shown(task.decode(question))} with the answer {shown(task.decode(label, question))}"
        before = question.copy(), answer.copy()
        for given, name in ((label, "the label"), (answer, "the label, and noise where nothing is asked for,")):
            verdict = verdict_of(task, question, given, label)
            if verdict.status != "solved":
                yield Finding("labels", "fault", f"verify: {name} of {shown_as} is {verdict.status}: {verdict.reason}")
                return
        alone = verdict_of(task, question, answer)
        unchecked += not alone.checked
        if alone.checked and alone.status != "solved":
            yield Finding("labels", "fault", f"verify without the label: {shown_as} is {alone.status}: {alone.reason}")
            return
        if not (np.array_equal(question, before[0]) and np.array_equal(answer, before[1])):
            yield Finding("labels", "fault", "verify changes the arrays that it is given. Let it work on copies")
            return
    rules = f"; {unchecked} can be checked by the label alone" if unchecked else ", also without the label"
    yield Finding("labels", "ok", f"verify accepts all {len(examples.all)} labels{rules}")


def broken_answers(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """`verify` must refuse answers that are wrong. Some that are not the label may be right, but not most."""
    accepted, tried = Counter[str](), Counter[str]()
    used = np.unique(np.concatenate([label[label > 0] for _, label in examples.all]))
    if len(used) < 2:
        yield Finding("broken answers", "fault", f"all labels consist of one token, {used.tolist()}")
        return
    others = examples.all
    for number, (question, label) in enumerate(examples.all):
        asked = np.flatnonzero(label)
        one = label.copy()
        place = rng.choice(asked)
        one[place] = rng.choice(used[used != label[place]])
        noise = label.copy()
        noise[asked] = rng.choice(used, len(asked))
        unsolved = np.where(label > 0, question, label)
        other = np.where(label > 0, others[(number + 1) % len(others)][1], 0).astype(np.uint8)
        kinds = {"one token changed": one, "random": noise, "the question itself": unsolved, "another label": other}
        for name, answer in kinds.items():
            if same_answer(answer, label):
                continue
            tried[name] += 1
            if verdict_of(task, question, answer.astype(np.uint8), label).status == "solved":
                accepted[name] += 1
    shares = ", ".join(f"{name}: {accepted[name]} of {tried[name]} accepted" for name in tried)
    if all(accepted[name] == tried[name] for name in tried):
        yield Finding("broken answers", "fault", f"verify accepts everything ({shares})")
    elif accepted["random"] > _MOST_ACCEPTED * tried["random"]:
        yield Finding("broken answers", "fault", f"verify accepts most random answers ({shares})")
    elif accepted["the question itself"] > _MOST_ACCEPTED * max(1, tried["the question itself"]):
        yield Finding("broken answers", "fault", f"verify accepts questions as their own answers ({shares})")
    else:
        yield Finding("broken answers", "ok", shares)


def solver(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """`solve` must give the label, the same each time, and leave its argument as it is."""
    if type(task).solve is Task.solve:
        yield Finding("solve", "note", "the task has none")
        return
    begun, count = time.perf_counter(), 0
    labelled = [example for example in examples.all if example[1].any()]
    for question, label in labelled:
        if time.perf_counter() - begun > _SOLVING:
            break
        fault = _unsolved(task, question, label)
        if fault is not None:
            yield Finding("solve", "fault", fault)
            return
        count += 1
    limit = "" if count == len(labelled) else f", in {_SOLVING:.0f} seconds"
    yield Finding("solve", "ok", f"solve gives the labels of {count} questions{limit}")


def _unsolved(task: Task, question: np.ndarray, label: np.ndarray) -> str | None:
    """What is wrong with the solution of a question; None if nothing is."""
    asked, again = question.copy(), question.copy()
    found = solution_of(task, asked)
    which = f"{written(task, question)}, whose label is {written(task, label, question)}"
    if not np.array_equal(asked, question):
        return f"solve changes the array that it is given, {which}. Let it work on a copy"
    if found is None:
        return f"solve gives no answer to {which}"
    found = found.copy()
    other = solution_of(task, again)
    if other is None or not np.array_equal(found, other):
        return f"solve gives different answers when it is called twice for {which}. It must depend on nothing else"
    if same_answer(found, label):
        return None
    verdict = verdict_of(task, question, found.astype(np.uint8), label)
    gives = f"solve gives {written(task, found, question)} for {which}"
    if verdict.status != "solved":
        return f"{gives}; that is {verdict.status}: {verdict.reason}"
    return f"{gives}. It is right too, but of several right answers `solve` must give the one that is the label"


def symmetries(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """A right answer must stay right under every symmetry, and equivalent questions must have one key."""
    found = symmetries_of(task)
    if not found:
        yield Finding("symmetries", "note", "the task has none, so there is no augmentation")
        return
    chosen = [examples.all[row] for row in rng.permutation(len(examples.all))[:64]]
    faults = list(broken_symmetries(task, chosen, rng))
    yield from (Finding("symmetries", "fault", fault) for fault in faults)
    if faults:
        return
    exact = tries_all(found) or type(task).key is not Task.key
    for question, label in chosen[:16] if exact else []:
        image = question, label
        for symmetry in found:
            image = transformed(task, symmetry, symmetry.choices[int(rng.integers(len(symmetry.choices)))], image)
        if key_of_question(task, image[0]) != key_of_question(task, question):
            yield Finding(
                "symmetries", "fault",
                f"key: {shown(task.decode(question))} and its image {shown(task.decode(image[0]))} have different "
                "keys. One choice of each symmetry, one after the other, must make every image",
            )  # fmt: skip
            return
    names = ", ".join(f"{symmetry.name} ({len(symmetry.choices):,})" for symmetry in found)
    yield Finding("symmetries", "ok", names)
    if not exact:
        yield Finding(
            "symmetries", "note", "there are too many to find all equivalent puzzles; a `key` of your own would"
        )


def leaks(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """No test puzzle may be equivalent to a training puzzle."""
    trained = {key_of_question(task, question): question for question, _ in examples.train}
    leaked = [question for question, _ in examples.test if key_of_question(task, question) in trained]
    if not leaked:
        yield Finding("leak", "ok", f"none of {len(examples.test)} test puzzles is equivalent to a training puzzle")
        return
    first = leaked[0]
    what = (
        f"{len(leaked)} of {len(examples.test)} test puzzles are equivalent to a training puzzle, such as "
        f"{shown(task.decode(first))} to {shown(task.decode(trained[key_of_question(task, first)]))}"
    )
    generated = bool(examples.given) and task.examples("train") is None
    if not generated:
        yield Finding("leak", "fault", what)
    elif len(leaked) > _LEAK * len(examples.test):
        yield Finding("leak", "fault", f"{what}. There are too few different puzzles")
    else:
        yield Finding("leak", "note", f"{what}; the builder leaves these out")


def repeats(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """A generator must not repeat itself, and must depend on nothing but its random numbers."""
    count, distinct = len(examples.train), len({question.tobytes() for question, _ in examples.train})
    share = distinct / count
    what = f"{distinct} of {count} training puzzles are different"
    yield Finding("repeats", "ok" if share == 1 else "note" if share >= _LEAST_DISTINCT else "fault", what)
    if not examples.given or task.examples("train") is not None:
        return
    twice = [task.random_example(np.random.default_rng(7)) for _ in range(2)]
    if not np.array_equal(twice[0][0], twice[1][0]):
        yield Finding(
            "repeats", "fault", "generate gives different puzzles for the same random numbers: it uses others"
        )


def balance(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """How far one gets without looking at the question."""
    token, exact, constant = majority_guess(task, examples.train, examples.test)
    tokens = Counter(np.concatenate([label[label > 0] for _, label in examples.all]).tolist())
    most, count = tokens.most_common(1)[0]
    symbol = task.look().character(most)
    detail = (
        f"the most frequent token in each place is right in {token:.0%} of the places and {exact:.1%} of the puzzles; "
        f"the most frequent answer is that of {constant:.1%}; {count / tokens.total():.0%} of all tokens asked for are "
        f"{shown(symbol)}"
    )
    yield Finding("balance", "fault" if max(exact, constant) > _MOST_CONSTANT else "ok", detail)
    copied = np.mean([same_answer(question, label) for question, label in examples.all])
    if copied:
        kind: Kind = "fault" if copied > _MOST_CONSTANT else "note"
        yield Finding("balance", kind, f"{copied:.1%} of the labels are the question itself")


def majority_guess(task: Task, train: Sequence[Example], test: Sequence[Example]) -> tuple[float, float, float]:
    """What is right on `test` without a look at the questions.

    Returns:
        The accuracy and the exact accuracy of the token that is most frequent in each place of the labels of `train`,
        and the share of `test` with the written answer that is most frequent in `train`.
    """
    stacked = np.stack([label for _, label in train])
    guess = np.array([np.bincount(place[place > 0], minlength=1).argmax() for place in stacked.T])
    right = [(guess[label > 0] == label[label > 0]) for _, label in test]
    trained, tested = ([str(task.decode(label, question)) for question, label in part] for part in (train, test))
    constant = tested.count(Counter(trained).most_common(1)[0][0]) / len(test)
    return float(np.concatenate(right).mean()), float(np.mean([bool(row.all()) for row in right])), constant


def difficulty(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """What the difficulties differ in."""
    if not examples.given or task.examples("train") is not None:
        return
    levels = [*task.difficulties, *(level for level in task.test_difficulties if level not in task.difficulties)]
    if len(levels) > 8:
        levels = [levels[round(place * (len(levels) - 1) / 7)] for place in range(8)]
    for level in levels:
        begun = time.perf_counter()
        drawn = [task.random_example(rng, level) for _ in range(10)]
        milliseconds = (time.perf_counter() - begun) * 100
        changed = np.mean([np.count_nonzero((label > 0) & (label != question)) for question, label in drawn])
        asked = np.mean([np.count_nonzero(label) for _, label in drawn])
        yield Finding(
            "difficulty", "note",
            f"{level}: {asked:.1f} tokens asked for, {changed:.1f} not in the question; {milliseconds:.1f} ms each",
        )  # fmt: skip


def length_and_cost(task: Task, examples: Examples, rng: np.random.Generator) -> Iterator[Finding]:
    """How long an example is, and what a step costs."""
    filled = np.mean([np.count_nonzero(question) for question, _ in examples.all]) / task.seq_len
    # products of a block: 12 * hidden**2 for each position, and 2 * seq * hidden for attention
    operations = 2 * task.seq_len * _LAYERS * _CYCLES * (12 * _HIDDEN**2 + 2 * task.seq_len * _HIDDEN)
    yield Finding(
        "length and cost", "note",
        f"{task.seq_len} tokens of a vocabulary of {task.vocab_size}, {filled:.0%} of them not padding; "
        f"{operations / 1e6:,.0f} million operations for one ACT step forward, with {_LAYERS} layers of width "
        f"{_HIDDEN} and {_CYCLES} cycles",
    )  # fmt: skip
    if task.seq_len > 1024:
        yield Finding(
            "length and cost", "note", "attention grows with the square of the length; above 1,024 it is slow"
        )
