"""ARC as a task. Its evaluator, which takes votes among predictions, is `evaluators.arc`."""

from typing import ClassVar

from dataset.tasks.arc.field import MAX_SIDE, SEQ_LEN, VOCAB_SIZE
from dataset.tasks.arc.look import ArcLook
from dataset.tasks.look import Look
from dataset.tasks.task import Task
from utils.errors import UserError


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
