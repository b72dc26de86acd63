"""Deep improvement supervision (DIS, arXiv 2511.16886): a target of its own for each step of an example.

The targets lead from the question to the label: at step t of T, the first floor(t * n / T) of the n positions where the
two differ, in a random order, have their label, and the others still have the token of the question. At step T all have
their label. So a step is asked for an improvement, and not for the whole answer at once. As in the published code,
every example makes all T steps. Unlike there, no embedding of t is added to the question, since the latents can count.
"""

import torch
from torch import Tensor

from utils.constants import IGNORE_LABEL_ID
from utils.counter_random import seeds_of, uniform

_ORDER = 1000  # the stream of the order, far from those of `models.random_start`


def improvement_targets(inputs: Tensor, labels: Tensor, steps: Tensor, last_step: int) -> Tensor:
    """The targets of the step that each example is at, int [batch, seq]; ignored labels stay ignored.

    The order follows from the tokens of the question, so it is the same at all steps of an example, and nothing has to
    be carried from one to the next.

    Args:
        inputs, labels: tokens of the question and of the answer, int [batch, seq].
        steps: int [batch], from 1 to last_step.
        last_step: the number of steps, T.
    """
    differs = (labels != IGNORE_LABEL_ID) & (labels != inputs)
    keys = uniform(_ORDER, seeds_of(inputs), inputs.shape[1]).masked_fill(~differs, 2.0)  # those that differ come first
    places = keys.argsort(dim=1, stable=True).argsort(dim=1)
    shown = steps.long() * differs.sum(1) // last_step
    return torch.where(differs & (places >= shown.unsqueeze(1)), inputs.to(labels.dtype), labels)
