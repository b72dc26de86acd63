"""How many examples to evaluate at once if the user does not say."""

import torch

from models.act import ACTModel
from models.inner import ReasonerConfig
from models.lattice.network import LatticeConfig

ON_HOST = 128  # enough to keep a CPU busy, and few enough for its caches
LARGEST = 2048  # more than fills any GPU
_SHARE = 4  # use one part in this many of the free memory
_LOGIT_BYTES = 48  # per token and entry of the vocabulary: logits, and the loss in fp64


def choose_batch_size(model: ACTModel, device: torch.device) -> int:
    """Examples at once in one process: on CUDA the largest power of two that fits in a quarter of the free memory.

    Args:
        model: on its device.
        device: that device.
    """
    if device.type != "cuda":
        return ON_HOST
    free = torch.cuda.mem_get_info(device)[0]
    return largest_power_of_two(min(LARGEST, max(1, free // _SHARE // bytes_per_example(model))))


def bytes_per_example(model: ACTModel) -> int:
    """Upper estimate of the bytes that one example takes in evaluation, without the weights."""
    inner, config = model.inner, model.config
    assert isinstance(config, ReasonerConfig | LatticeConfig)
    # the latents twice (old and new), the question, its sums with them, and the tensors of the mixer and MLP of a block
    hidden_copies = 2 * len(inner.states) + 4 + 4 + 3 * config.expansion
    hidden = inner.positions * config.hidden_size * hidden_copies * inner.dtype.itemsize
    return int(hidden + config.seq_len * config.vocab_size * _LOGIT_BYTES)


def largest_power_of_two(most: int) -> int:
    """The largest power of two that is at most `most` >= 1."""
    return 1 << (most.bit_length() - 1)
