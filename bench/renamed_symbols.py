"""Whether a trained model answers alike when the symbols of a puzzle are renamed.

    python -m bench.renamed_symbols checkpoints/.../step_1000 data/sudoku-6x6-quickstart --renamings 5

Asks the test puzzles of a data set, and then each of them with its symbols renamed at random, and prints how many are
solved, in how many the answer is the renamed answer, and by how much a logit differs from that of the same symbol
before.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from dataset.puzzle_dataset import EvalBatches, PuzzleSplit
from dataset.tasks.grid_symmetry import renamed_by
from evaluators.loading import load
from evaluators.reasoner import Reasoner
from exporting.checks import original_answers
from utils.constants import IGNORE_LABEL_ID
from utils.errors import UserError, exit_on_user_error


@dataclass
class Flags:
    """Rename the symbols of puzzles."""

    model: Annotated[str, tyro.conf.Positional]
    """A run folder, a checkpoint, or a name in weights/."""
    data: Annotated[Path, tyro.conf.Positional]
    """The data set."""
    renamings: int = 5
    """Times that each puzzle is renamed."""
    puzzles: int | None = None
    """Puzzles at most; by default all."""
    steps: int = 16
    """ACT steps."""
    batch: int = 100
    """Puzzles at once."""
    threads: int = 2
    """Threads of PyTorch."""


@dataclass
class Found:
    """What the answers were, summed over puzzles.

    Attributes:
        puzzles: how many were asked.
        solved: how many of them were answered without an error.
        renamed: puzzles asked with other symbols.
        renamed_solved: how many of them were answered without an error.
        others: how many of them have another answer than the renamed one, after the last step.
        difference: the largest difference of the logits of a symbol and of what it is called now, after any step.
    """

    puzzles: int = 0
    solved: int = 0
    renamed: int = 0
    renamed_solved: int = 0
    others: int = 0
    difference: float = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Count a batch: logits fp32 [steps, batch, seq, vocab], labels [batch, seq]."""
        self.puzzles += len(labels)
        self.solved += solved(logits, labels)

    def add_renamed(self, before: np.ndarray, after: np.ndarray, labels: np.ndarray, name: np.ndarray) -> None:
        """Count the same batch with other symbols: token t is now called `name[t]`, also in `after` and `labels`."""
        self.renamed += len(labels)
        self.renamed_solved += solved(after, labels)
        self.others += int((after[-1].argmax(-1) != name[before[-1].argmax(-1)]).any(-1).sum())
        self.difference = max(self.difference, float(np.abs(after[..., name] - before).max()))

    def __str__(self) -> str:
        return (
            f"{self.puzzles} puzzles, {self.solved} solved; with other symbols {self.renamed}, {self.renamed_solved} "
            f"solved, {self.others} with another answer; logits within {self.difference:.1e}"
        )


def solved(logits: np.ndarray, labels: np.ndarray) -> int:
    """How many puzzles have the answer of their label, [batch, seq], after the last step."""
    return int(((logits[-1].argmax(-1) == labels) | (labels == IGNORE_LABEL_ID)).all(-1).sum())


def compare(reasoner: Reasoner, flags: Flags) -> Found:
    """Ask the puzzles, and ask them again with other symbols.

    Raises:
        UserError: the symbols of the model's task cannot be renamed, or the data set has puzzles of another size.
    """
    symbols = np.array(renamed_by(reasoner.task.symmetries()))
    if not len(symbols):
        raise UserError(
            f"the task {reasoner.task.name} has no symbols that can be renamed. Give a model of one that has."
        )
    (source,) = PuzzleSplit([flags.data], "test").sources
    sizes, own = ((of.seq_len, of.vocab_size) for of in (source.metadata, reasoner.task))
    if sizes != own:
        raise UserError(
            f"{flags.data} has puzzles of {sizes[0]} tokens out of {sizes[1]}, and the model answers such of {own[0]} "
            f"out of {own[1]}. Give the data set that it was trained on, or one like it."
        )
    rng, found, answers = np.random.default_rng(0), Found(), original_answers(reasoner)
    for shard in source.shards:
        for batch in EvalBatches(source, shard, flags.batch, max_examples=flags.puzzles):
            plain, _ = answers(batch["inputs"], flags.steps)
            found.add(plain, batch["labels"])
            for _ in range(flags.renamings):
                name = np.arange(plain.shape[-1])
                name[symbols] = rng.permutation(symbols)
                moved, _ = answers(name[batch["inputs"]], flags.steps)
                labels = np.where(batch["labels"] == IGNORE_LABEL_ID, IGNORE_LABEL_ID, name[batch["labels"]])
                found.add_renamed(plain, moved, labels, name)
    return found


def main(flags: Flags) -> None:
    """Compare, and print."""
    torch.set_num_threads(flags.threads)
    print(compare(load(flags.model), flags))


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Flags, description=__doc__)))
