"""Sudoku beyond token accuracy: is the board a Sudoku, and does it keep the clues?"""

from typing import ClassVar

import numpy as np

from dataset.shards import PuzzleDatasetMetadata
from dataset.sudoku import TOKEN_OFFSET, box_of, obeys_rules
from evaluators.counting import CountingEvaluator


class Sudoku(CountingEvaluator):
    """Shares of the puzzles, as `Sudoku/<metric>`.

    valid: each row, column and box of the predicted board holds every digit once, whatever the clues;
    clues_kept: every clue stands where it was given;
    solved: both, which for a puzzle with one solution means that the board is that solution.

    Raises:
        UserError: the data set is no Sudoku.
    """

    metrics: ClassVar[tuple[str, ...]] = ("valid", "clues_kept", "solved")

    def __init__(self, data_path: str, eval_metadata: PuzzleDatasetMetadata):
        super().__init__(data_path, eval_metadata)
        self.box = box_of(eval_metadata.seq_len, eval_metadata.vocab_size)

    def judge(self, inputs: np.ndarray, preds: np.ndarray) -> dict[str, np.ndarray]:
        """See `CountingEvaluator.judge`."""
        valid = obeys_rules(preds.astype(np.int64) - TOKEN_OFFSET, self.box)
        kept = ((inputs <= TOKEN_OFFSET) | (inputs == preds)).all(axis=1)
        return {"valid": valid, "clues_kept": kept, "solved": valid & kept}
