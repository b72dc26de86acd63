"""TRM for text: the recursion of `trm.py` under a causal mask, with a halting head at each position."""

from typing import ClassVar

from models.recursive_reasoning.trm import TinyRecursiveInner
from models.text_model import DenseLevel, TextInner, TextModel


class TextRecursiveInner(TextInner, TinyRecursiveInner):
    """The recursion of TRM on text."""

    level_class: ClassVar = DenseLevel


class TextRecursiveModel(TextModel):
    """Causal TRM with adaptive computation time."""

    inner_class = TextRecursiveInner
