"""TRM for text: the recursion of `trm.py` under a causal mask, with a halting head at each position.

Two things differ from TRM, because otherwise it does not learn from a few hundred thousand tokens (docs/text.md): the
blocks are damped (`models.text.causal.DampedBlock`), and the states start at zero, except the answer z_H, which starts
at the embedded token.
"""

from typing import ClassVar

import torch
from torch import Tensor

from models.inner import RecursionConfig
from models.recursive_reasoning.trm import TinyRecursion
from models.text.causal import DampedBlock
from models.text.model import DenseLevel, DenseTextConfig, TextInner, TextModel
from models.view import View


class DampedLevel(DenseLevel):
    """A stack of damped blocks."""

    block_class: ClassVar = DampedBlock


class TextRecursion(TinyRecursion, TextInner):
    """The recursion of TRM on text, with any kind of layers."""

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        for init in filter(None, self.states.values()):
            getattr(self, init).zero_()

    def recurse(self, z: dict[str, Tensor], x: Tensor, view: View) -> dict[str, Tensor]:
        # a state is never zero after a norm, so zero means that there is no answer yet
        begins = ~z["z_H"].any(-1, keepdim=True)
        return super().recurse({**z, "z_H": torch.where(begins, x, z["z_H"])}, x, view)


class TextRecursiveInner(TextRecursion):
    """The recursion of TRM on text, with damped blocks."""

    config_class = DenseTextConfig
    level_class: ClassVar = DampedLevel


class TextRecursiveModel(TextModel):
    """Causal TRM with adaptive computation time."""

    inner_class = TextRecursiveInner
