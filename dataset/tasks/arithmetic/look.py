"""How an addition is displayed."""

from typing import ClassVar, Literal

import numpy as np

from dataset.tasks.look import Colour, Display, Look, Status
from utils.constants import IGNORE_LABEL_ID


class ArithmeticLook(Look):
    """Displays one line of text, with `_` in place of the answer."""

    style: ClassVar[Literal["boxes", "block", "line"]] = "line"
    legend: ClassVar[str] = "^ marks a wrong digit"
    picture_legend: ClassVar[str] = "green: right   red: wrong"
    outline: ClassVar[Colour | None] = None

    def __init__(self, length: int):
        super().__init__(1, length, "_0123456789+=")

    def given(self, inputs: np.ndarray) -> np.ndarray:
        """See `Look.given`: the question."""
        return inputs > 0

    def view(self, inputs: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> Display:
        """See `Look.view`: question and answer. The output of a model at positions of the question is ignored."""
        given, known = self.given(inputs), labels != IGNORE_LABEL_ID
        answers = np.where(given & ~known, inputs, answers)
        used = np.flatnonzero((given | known)[0]) if known.any() else np.arange(self.width)
        window = np.s_[:, : int(used[-1]) + 1]
        return Display(answers, labels, np.where(known, labels, inputs), window, window)

    def has_hairline(self, token: int, status: Status) -> bool:
        """See `Look.has_hairline`: not around the question."""
        return status != Status.GIVEN
