"""How many examples to evaluate at once where nobody says."""

import torch

from models.act import ACTModel

ON_HOST = 128  # enough to keep a CPU busy, and still in its caches
LARGEST = 2048  # more than fills any GPU
_SHARE = 4  # of the free memory, one part in so many
_LOGIT_BYTES = 48  # of a token and entry of the vocabulary: logits, and the loss in fp64


def choose_batch_size(model: ACTModel, device: torch.device) -> int:
    """Examples at once in one process: on CUDA the power of two whose tensors take a quarter of the free memory.

    Args:
        model: on its device.
        device: that device.
    """
    if device.type != "cuda":
        return ON_HOST
    free = torch.cuda.mem_get_info(device)[0]
    return largest_power_of_two(min(LARGEST, max(1, free // _SHARE // bytes_per_example(model))))


def bytes_per_example(model: ACTModel) -> int:
    """An upper estimate of the memory of one example in evaluation, weights apart."""
    inner, config = model.inner, model.config
    # twice the latents (old and new), the question, its sums with them, and within a block the mixer's and the MLP's
    hidden_copies = 2 * len(inner.states) + 4 + 4 + 3 * config.expansion
    hidden = inner.positions * config.hidden_size * hidden_copies * inner.dtype.itemsize
    return int(hidden + config.seq_len * config.vocab_size * _LOGIT_BYTES)


def largest_power_of_two(most: int) -> int:
    """The largest power of two that is at most `most` >= 1."""
    return 1 << (most.bit_length() - 1)
