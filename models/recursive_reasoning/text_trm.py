"""TRM for text: the recursion of `trm.py` under a causal mask, with a halting head at each position.

Two things differ, without which it does not learn from a few hundred thousand tokens (docs/text.md): the blocks are
damped (`models.text.causal.DampedBlock`), and the states start at zero, except the answer z_H, which starts at the
embedded token.
"""

from typing import ClassVar

import torch
from torch import Tensor

from models.inner import ReasonerConfig
from models.layers import Rotation
from models.recursive_reasoning.trm import TinyRecursiveInner
from models.text.causal import DampedBlock
from models.text.model import DenseLevel, TextInner, TextModel


class DampedLevel(DenseLevel):
    """A stack of damped blocks."""

    block_class: ClassVar = DampedBlock


class TextRecursiveInner(TextInner, TinyRecursiveInner):
    """The recursion of TRM on text."""

    level_class: ClassVar = DampedLevel

    def __init__(self, config: ReasonerConfig):
        super().__init__(config)
        for init in self.states.values():
            getattr(self, init).zero_()

    def recurse(self, z: dict[str, Tensor], x: Tensor, rotation: Rotation | None) -> dict[str, Tensor]:
        # behind a norm no state is zero, so zero means that there is no answer yet
        begins = ~z["z_H"].any(-1, keepdim=True)
        return super().recurse({**z, "z_H": torch.where(begins, x, z["z_H"])}, x, rotation)


class TextRecursiveModel(TextModel):
    """Causal TRM with adaptive computation time."""

    inner_class = TextRecursiveInner
