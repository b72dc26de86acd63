"""A small model of each architecture, with batches, for tests of the parts around the recursion."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import models.inner
from models.act import ACTModel
from models.losses import ACTLossHead
from models.training import PuzzleEmbRates, TrainState
from utils.constants import IGNORE_LABEL_ID
from utils.distributed import Ranks
from utils.functions import load_model_class
from utils.settings import OptimizationConfig

ARCHITECTURES = {
    "trm": "trm@TinyRecursiveModel",
    "trm_singlez": "trm_singlez@SingleLatentModel",
    "trm_hier6": "trm_hier6@SixLatentModel",
    "hrm": "hrm@HierarchicalReasoningModel",
    "transformers_baseline": "transformers_baseline@TransformerBaseline",
}
CONFIG = {
    "vocab_size": 7,
    "seq_len": 6,
    "num_puzzle_identifiers": 5,
    "puzzle_emb_ndim": 16,
    "hidden_size": 16,
    "num_heads": 2,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 4,
    "halt_exploration_prob": 0.0,
    "forward_dtype": "float32",
}


def small_model(architecture: str = "trm", **overrides: object) -> ACTModel:
    """A model in training mode, the same at each call, with a puzzle table that is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: ACTModel = load_model_class("recursive_reasoning." + ARCHITECTURES[architecture])(CONFIG | overrides)
        if model.puzzle_emb is not None:
            model.puzzle_emb.weights.normal_()
    return model


@contextmanager
def double_precision() -> Iterator[None]:
    """Within the block models are made in fp64, and compute in it where they otherwise do in fp32.

    Adam divides by the size of the gradient, and the sparse optimizer takes its sign, so that where it is almost 0 the
    rounding of fp32 decides how a weight moves. In fp64 two orders of the same sums can be compared over many steps.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.inner.FORWARD_DTYPES, "float32", torch.float64)
        patch.setattr(Tensor, "float", Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def small_batch(rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Random examples; the first two labels of each are ignored."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, CONFIG["seq_len"])
    labels = torch.randint(CONFIG["vocab_size"], shape, generator=generator)
    labels[:, :2] = IGNORE_LABEL_ID
    return {
        "inputs": torch.randint(CONFIG["vocab_size"], shape, generator=generator),
        "labels": labels,
        "puzzle_identifiers": torch.randint(CONFIG["num_puzzle_identifiers"], (rows,), generator=generator),
    }


def train_state(head: ACTLossHead, settings: Mapping[str, Any], ranks: Ranks, total_steps: int) -> TrainState:
    """A training state of the settings that pretrain.py would take."""
    own = dict(settings)
    warmup_steps, freeze_weights = own.pop("lr_warmup_steps", 0), own.pop("freeze_weights", False)
    puzzle_emb = PuzzleEmbRates(own.pop("puzzle_emb_lr", 0.0), own.pop("puzzle_emb_weight_decay", 0.0))
    config = OptimizationConfig(**own)
    return TrainState(head, config, ranks, total_steps, warmup_steps, puzzle_emb, freeze_weights)


@torch.no_grad()
def set_q(model: ACTModel, q_halt: float, q_continue: float = 0.0) -> ACTModel:
    """Make the halting logits of every slot exactly these."""
    model.inner.q_head.weight.zero_()
    assert model.inner.q_head.bias is not None
    model.inner.q_head.bias.copy_(torch.tensor([q_halt, q_continue]))
    return model


@torch.no_grad()
def halve_q(model: ACTModel, outputs: Mapping[str, Tensor]) -> ACTModel:
    """Shift the halting logits so that half of the slots that gave these outputs would have wanted to halt."""
    over = (outputs["q_halt_logits"] - outputs["q_continue_logits"]).sort().values
    assert model.inner.q_head.bias is not None
    model.inner.q_head.bias[0] -= over[len(over) // 2 - 1 : len(over) // 2 + 1].mean()
    return model


@torch.no_grad()
def spread_q(model: ACTModel) -> ACTModel:
    """Make the halting logits of the slots differ, some above zero and some below."""
    set_q(model, 0, 0)
    model.inner.q_head.weight.normal_(generator=torch.Generator().manual_seed(1))
    return model
