"""Questions and answers that lie in files, as texts: `task=questions.jsonl`, or `task=hf:owner/name`."""

from collections.abc import Iterable
from typing import ClassVar, Literal

from dataset.pairs import Pairs, find_pairs, read_pairs, source_name
from dataset.tasks.text_task import TextTask
from utils.errors import UserError


class QuestionAnswer(TextTask):
    """Questions and answers of a file. An answer is right if it is that of the file, character by character."""

    name: ClassVar[str] = "question_answer"
    title: ClassVar[str] = "QuestionAnswer"
    pairs: ClassVar[Pairs | None] = None  # where the examples of a new data set lie

    @classmethod
    def own_size(cls) -> tuple[int, int]:
        """See `Task.own_size`: as long as the longest example."""
        everything = [pair for split in ("train", "test") for pair in cls._read(split)]
        return cls.size_for(max(len((question + answer).encode()) for question, answer in everything))

    def examples(self, split: Literal["train", "test"]) -> Iterable[tuple[str, str]]:
        """See `Task.examples`."""
        return self._read(split)

    @classmethod
    def _read(cls, split: Literal["train", "test"]) -> list[tuple[str, str]]:
        if cls.pairs is None:
            raise UserError(
                "the task question_answer: nothing says where the questions lie. Give the file, a folder with train "
                "and test, or a data set of the Hugging Face Hub: task=questions.jsonl, task=hf:owner/name."
            )
        return read_pairs(cls.pairs, split)


def task_from(source: str) -> type[QuestionAnswer]:
    """The task whose data sets are built from a file, a folder, or a data set of the Hugging Face Hub (hf:owner/name).

    Raises:
        UserError: there is no such source.
    """
    fields = {"pairs": find_pairs(source), "data_name": source_name(source), "__module__": __name__}
    return type("QuestionAnswer", (QuestionAnswer,), fields)
