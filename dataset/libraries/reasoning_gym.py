"""The generators of the package reasoning-gym as tasks, `reasoning_gym:NAME`, scored by their own `score_answer`.

Open-Thought, "Reasoning Gym" (arXiv 2505.24760). The package is an optional extra and takes seconds to import, so it is
imported where it is used.
"""

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dataset.tasks.puzzle import Verdict
from dataset.tasks.text_task import TextTask
from utils.errors import UserError, did_you_mean
from utils.text_files import read_json, shown

FILE = "reasoning_gym.json"
_ENTRIES = 1 << 30  # a generator makes an entry from its number, so none is stored
_SAMPLED = 500  # questions whose longest decides how long an example is
_INSTALL = "Install it with `uv sync --extra reasoning-gym`, or `pip install reasoning-gym`."


@cache
def task_called(generator: str) -> type[TextTask]:
    """The task of a generator.

    Raises:
        UserError: the package is not installed, or has no such generator.
    """
    names = sorted(_package().factory.DATASETS)
    if generator not in names:
        raise UserError(
            f"task=reasoning_gym:{generator}: there is no such generator.{did_you_mean(generator, names)} There are "
            f"{', '.join(names)}."
        )
    title = "".join(word.capitalize() for word in generator.split("_"))
    return type(title, (ReasoningGym,), {"name": f"reasoning_gym:{generator}", "title": title, "generator": generator})


@cache
def _package() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            import reasoning_gym
    except ImportError as error:
        raise UserError(f"task=reasoning_gym:...: the package reasoning-gym is missing ({error}). {_INSTALL}") from None
    return reasoning_gym


class ReasoningGym(TextTask):
    """A generator of Reasoning Gym, with its default settings.

    Its columns: `solved`, the share of answers with a full score; `exact`, of those equal to the label; and `score`,
    the mean score.
    """

    generator: ClassVar[str]

    def __init__(self, seq_len: int, vocab_size: int):
        super().__init__(seq_len, vocab_size)
        self._numbers: dict[str, int] = {}

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """See `Task.columns`."""
        return "solved", "exact", "score"

    @classmethod
    def own_size(cls) -> tuple[int, int]:
        """See `Task.own_size`: as long as the longest of a sample."""
        return cls.size_for(_longest(cls.generator))

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[str, str]:
        """See `Task.generate`: there is one difficulty, the default settings of the generator."""
        number = int(rng.integers(_ENTRIES))
        entry = _entry(self.generator, number)
        self._numbers[entry["question"].strip()] = number
        return entry["question"], entry["answer"]

    def save_notes(self, root: Path) -> None:
        """See `Task.save_notes`: the number of each question, from which its entry can be made again."""
        (root / FILE).write_text(json.dumps(self._numbers, indent=1) + "\n")

    def load_notes(self, root: Path) -> None:
        """See `Task.load_notes`."""
        if (root / FILE).exists():
            self._numbers.update(read_json(root / FILE, "Build the data set again."))

    def score(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None) -> float | None:
        """The score of an answer by the generator's own `score_answer`, 0 to 1; None: there is nothing to score it by.

        Without the entry of the question, that is in another data set than the one it was built for, the label is all
        that the generator is given.
        """
        asked = self.decode(question)
        if asked in self._numbers:
            entry = _entry(self.generator, self._numbers[asked])
        elif label is not None:
            entry = {"question": asked, "answer": self.decode(label, question), "metadata": {}}
        else:
            return None
        try:
            return float(_data_set(self.generator).score_answer(self.decode(answer, question), entry))
        except Exception:  # some generators fail on answers that cannot be read
            return 0.0

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Task.verify`: solved is a full score."""
        score = self.score(question, answer, label)
        if score is None:
            return Verdict("undecided", "the generator does not know this question, so it cannot score it", False)
        if score >= 1:
            return Verdict("solved", f"score_answer of {self.generator} gives the full score")
        right = "" if label is None else f"; its own answer is {shown(self.decode(label, question))}"
        return Verdict("wrong", f"score_answer of {self.generator} gives {score:.2f}{right}")

    def judge(self, inputs: np.ndarray, answers: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """See `Task.judge`."""
        scores = [
            self.score(question, answer, label if label.any() else None) or 0.0
            for question, answer, label in zip(inputs, answers, labels, strict=True)
        ]
        exact = [
            self.decode(answer, question) == self.decode(label, question)
            for question, answer, label in zip(inputs, answers, labels, strict=True)
        ]
        return {"solved": np.array(scores) >= 1, "exact": np.array(exact, np.bool_), "score": np.array(scores)}


@cache
def _data_set(generator: str) -> Any:
    try:
        return _package().create_dataset(generator, size=_ENTRIES, seed=0)
    except Exception as error:  # whatever the settings of the generator ask for
        raise UserError(
            f"task=reasoning_gym:{generator}: it does not work with its default settings "
            f"({type(error).__name__}: {error}). Choose another generator."
        ) from error


def _entry(generator: str, number: int) -> dict[str, Any]:
    """The entry of a generator with this number, made anew each time.

    Raises:
        UserError: its question or answer is no text.
    """
    entry = _data_set(generator)[number]
    for key in ("question", "answer"):
        if not isinstance(entry[key], str):
            raise UserError(
                f"task=reasoning_gym:{generator}: its {key} is {shown(entry[key])}, no text. Choose another generator."
            )
    return entry


@cache
def _longest(generator: str) -> int:
    entries = [_entry(generator, number) for number in range(_SAMPLED)]
    return max(len((entry["question"].strip() + entry["answer"].strip()).encode()) for entry in entries)
