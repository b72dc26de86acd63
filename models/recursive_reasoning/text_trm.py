"""TRM for text: the recursion of `trm.py` under a causal mask, with a halting head at each position.

What attention and SwiGLU add to the state starts small: their output projections are divided by the number of layers
passed in a step. Post-norm layers halve what they were given with every sum, so that at the usual scale hardly anything
of a token is left after 14 of them, and training stays at the frequencies of the words (docs/text.md).
"""

from typing import ClassVar

import torch

from models.causal import CausalAttention
from models.feed_forward import FeedForward
from models.inner import ReasonerConfig
from models.recursive_reasoning.trm import TinyRecursiveInner
from models.text_model import DenseLevel, TextInner, TextModel


class TextRecursiveInner(TextInner, TinyRecursiveInner):
    """The recursion of TRM on text."""

    level_class: ClassVar = DenseLevel

    def __init__(self, config: ReasonerConfig):
        super().__init__(config)
        passed = config.H_cycles * (config.L_cycles + 1) * config.L_layers
        with torch.no_grad():
            for module in self.L_level.modules():
                if isinstance(module, CausalAttention):
                    module.o_proj.weight /= passed
                elif isinstance(module, FeedForward):
                    module.down_proj.weight /= passed


class TextRecursiveModel(TextModel):
    """Causal TRM with adaptive computation time."""

    inner_class = TextRecursiveInner
