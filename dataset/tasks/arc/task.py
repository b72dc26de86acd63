"""ARC as a task. Its evaluator, which takes votes among predictions, is `evaluators.arc`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dataset.tasks.arc.field import MAX_SIDE, SEQ_LEN, VOCAB_SIZE, crop, encode
from dataset.tasks.arc.files import parse_grid, parse_task
from dataset.tasks.arc.look import ArcLook
from dataset.tasks.look import Look
from dataset.tasks.puzzle import Question, Verdict, Written
from dataset.tasks.task import Task
from dataset.tasks.written import plain_value
from utils.errors import UserError
from utils.text_files import read_json


class Arc(Task):
    """ARC-AGI grids in fields of 30x30 tokens.

    Raises:
        UserError: the sizes are not those of ARC.
    """

    name: ClassVar[str] = "arc"
    title: ClassVar[str] = "ARC"
    published: ClassVar[tuple[tuple[int, int], ...]] = ((SEQ_LEN, VOCAB_SIZE),)
    builder: ClassVar[str | None] = "dataset.build_arc_dataset"
    builder_options: ClassVar[str] = (
        "--input-file-prefix kaggle/combined/arc-agi --subsets training evaluation concept --test-set-name evaluation"
    )

    def __init__(self, seq_len: int, vocab_size: int):
        super().__init__(seq_len, vocab_size)
        if (seq_len, vocab_size) != (SEQ_LEN, VOCAB_SIZE):
            raise UserError(
                f"seq_len {seq_len} and vocab_size {vocab_size} are not those of ARC, {SEQ_LEN} and {VOCAB_SIZE}. "
                "Choose a data set built with `python -m dataset.build_arc_dataset`."
            )

    def look(self) -> Look:
        """See `Task.look`."""
        return ArcLook(MAX_SIDE)

    def encode(self, puzzle: Any) -> np.ndarray:
        """See `Task.encode`: a grid of colours, nested lists or an array."""
        return encode(parse_grid(plain_value(puzzle), "an ARC grid"))

    def questions(self, puzzle: Any, name: str | None = None) -> list[Question]:
        """See `Task.questions`: one for each test pair of a task, which may be an object or its JSON file."""
        if isinstance(puzzle, Path) or (isinstance(puzzle, str) and puzzle.endswith(".json")):
            path = Path(puzzle)
            return self.questions(read_json(path), path.stem if name is None else name)
        if not isinstance(puzzle, Mapping):
            return super().questions(puzzle, name)
        task = parse_task(name or "unnamed", dict(puzzle), "the puzzle")
        if not task.parts["test"]:
            raise UserError("the puzzle: an ARC task without a test pair asks nothing. Give it a test pair.")
        return [
            Question(encode(pair.input), name, None if pair.output is None else encode(pair.output))
            for pair in task.parts["test"]
        ]

    def rows(self, tokens: np.ndarray, question: np.ndarray | None = None) -> list[str]:
        """See `Task.rows`: the grid without the rest of its field, as digits."""
        return ["".join(map(str, row)) for row in self.grid(tokens).tolist()]

    def decode(self, tokens: np.ndarray, question: np.ndarray | None = None) -> Written:
        """See `Task.decode`: the rows of the grid."""
        return self.grid(tokens).tolist()

    def grid(self, tokens: np.ndarray, question: np.ndarray | None = None) -> np.ndarray:
        """See `Task.grid`: the colours, uint8 [height, width]; without a row if there is no grid in the answer."""
        return crop(np.asarray(tokens)[None])[0]

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Task.verify`: the grids are compared, not what is around them in their fields."""
        if label is None:
            return Verdict("undecided", "the solution is not known, and there are no rules to check it by", False)
        if np.array_equal(self.grid(answer), self.grid(label)):
            return Verdict("solved", "the grid is the solution that came with the task")
        return Verdict("wrong", "the grid is not the solution that came with the task")

    def unknown_name(self, name: str | None) -> UserError:
        """See `Task.unknown_name`."""
        what = "a task without a name" if name is None else f"the task {name!r}"
        return UserError(
            f"{what} is not among those that this model was trained on: a model for ARC has an embedding for each "
            "task. Give the name of a known task, or adapt the model to the new one first:\n"
            "  python -m dataset.build_arc_dataset --input-file-prefix FOLDER --subsets SUBSET --test-set-name SUBSET "
            "--output-dir data/my-tasks\n"
            "  python pretrain.py experiment=arc_adapt load_checkpoint=.../step_<N> data_paths=[data/my-tasks]"
        )
