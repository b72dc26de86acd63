"""How well a language model predicts held-out text."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.text.loss import TextLossHead
from utils.constants import IGNORE_LABEL_ID
from utils.distributed import break_off_together, sum_over_ranks
from utils.errors import UserError

SUMS = ("count", "loss", "right", "halted_loss", "halted_steps")  # over labelled tokens


def evaluate_language(
    head: TextLossHead,
    batches: Sequence[dict[str, np.ndarray]],
    device: torch.device,
    max_steps: int | None = None,
    stops: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Score the answers for all labelled tokens of `batches`. All tokens have the same weight.

    Args:
        head: the model, with the weights to be evaluated.
        batches: the rows of this rank: inputs, labels, documents, int32 [rows, seq].
        device: the device of the model.
        max_steps: ACT steps; None: halt_max_steps of the model.
        stops: asked after each batch whether this rank is to break off.

    Returns:
        Metrics over the rows of all ranks, the same on every rank. After the last ACT step: eval/lm_loss (nats per
        token, without any other loss), eval/perplexity (its exponential) and eval/accuracy. With each position halting
        by itself: eval/perplexity_halted, and eval/steps, the mean number of ACT steps.

    Raises:
        UserError: no token has a label.
        Interrupted: `stops` said so on any rank; raised on all of them.
    """
    was_training = head.training
    head.eval()
    interrupted = False
    zero = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    sums: dict[str, torch.Tensor] = dict.fromkeys(SUMS, zero)
    for arrays in batches:
        batch = {key: torch.from_numpy(values).to(device) for key, values in arrays.items()}
        labelled = batch["labels"] != IGNORE_LABEL_ID
        last = halted = head.scores(batch, max_steps=max_steps)
        if head.model.steps_limit(max_steps) > 1:
            # a second pass, because later positions see a halted position in the state at which it halted
            halted = head.scores(batch, halting=True, max_steps=max_steps)
        scores = {
            "count": labelled,
            "loss": last.losses,
            "right": last.right & labelled,
            "halted_loss": halted.losses,
            "halted_steps": halted.steps.where(labelled, 0),
        }
        sums = {name: sums[name] + scores[name].sum(dtype=zero.dtype) for name in SUMS}
        interrupted = stops is not None and stops()
        if interrupted:
            break
    head.train(was_training)
    break_off_together(interrupted, device)

    total = sum_over_ranks(sums)
    count = total.pop("count")
    if not count:
        raise UserError("there is no held-out token to evaluate on: give longer data_files_test or a larger held_out.")
    mean = {key: value / count for key, value in total.items()}
    return {
        "eval/lm_loss": mean["loss"],
        "eval/perplexity": perplexity(mean["loss"]),
        "eval/accuracy": mean["right"],
        "eval/perplexity_halted": perplexity(mean["halted_loss"]),
        "eval/steps": mean["halted_steps"],
    }


def perplexity(loss: float) -> float:
    """`exp(loss)`, or infinity if that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf
