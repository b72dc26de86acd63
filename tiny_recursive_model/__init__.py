"""The short form: use a trained model, or train a small one, in a few lines.

    python -m tiny_recursive_model demo            a trained model at work, in the terminal
    python -m tiny_recursive_model predict FILE    answers to puzzles of your own
    python -m tiny_recursive_model train           a small model of your own

From Python, `load` gives a trained model, `train` trains one, and `adapt` fine-tunes one for ARC on new tasks.
`TinyRecursiveModel` is the bare network for loops of your own. All of it is the code of the other programs under
shorter names.
"""

from evaluators.answer import Answer
from evaluators.loading import load
from evaluators.reasoner import Reasoner
from tiny_recursive_model.adapting import adapt
from tiny_recursive_model.short_model import TinyRecursiveModel, TRMConfig
from tiny_recursive_model.training import train

__all__ = ["Answer", "Reasoner", "TRMConfig", "TinyRecursiveModel", "adapt", "load", "train"]
