"""How many cycles a recursion runs, and the curriculum that lets it grow deeper over the training.

CGAR (arXiv 2511.08653) trains TRM with (H_cycles, L_cycles) = (1, 2) for the first 30 % of the steps, with (2, 4) up to
60 % and with (3, 6) from there on. Evaluations always have the full depth. The states of an example have the same shape
at every depth, so a stage ends without disturbing the slots, and since the blocks are compiled and not the recursion,
nothing is compiled again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from models.recipes.config import DepthStage


class RecursionDepth:
    """The cycles of a step: those of the configuration, and within `at` those of a stage.

    Attributes:
        H_cycles, L_cycles: see `models.inner.RecursionConfig`.
    """

    def __init__(self, H_cycles: int, L_cycles: int):
        self.H_cycles, self.L_cycles = H_cycles, L_cycles

    @contextmanager
    def at(self, stage: DepthStage) -> Iterator[None]:
        """Within the block the recursion has the depth of `stage`."""
        before = self.H_cycles, self.L_cycles
        self.H_cycles, self.L_cycles = stage.H_cycles, stage.L_cycles
        try:
            yield
        finally:
            self.H_cycles, self.L_cycles = before


def stage_at(curriculum: Sequence[DepthStage], progress: float) -> DepthStage | None:
    """The stage after a share `progress` of the training, in [0, 1); None: the full depth."""
    return next((stage for stage in curriculum if progress < stage.until), None)
