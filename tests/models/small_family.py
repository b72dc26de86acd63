"""Small models of the architectures that came after TRM, for tests; their batches are those of `tests.models.small`."""

from typing import Any

import torch

from models.act import ACTModel
from models.losses import ACTLossHead
from models.training import TrainState
from tests.models.small import CONFIG, train_state
from utils.distributed import Ranks
from utils.functions import load_model_class

FAMILY = {
    "urm": "urm@URM",
    "eqr": "eqr@EqRModel",
    "se_rrm": "se_rrm@SERRM",
    "fprm": "fprm@FixedPointReasoningModel_ACTV1",
    "trm_wta": "trm_wta@WinnerTakesAllModel",
}
OWN: dict[str, dict[str, Any]] = {
    "eqr": {"puzzle_emb_ndim": 0},
    "se_rrm": {"head_dim": 8, "head_dim_t": 8, "num_heads_t": 1, "pos_encodings": "rope", "halt_exploration_prob": 0.3},
    "fprm": {"conv_type": "conv1d", "conv_kernel_size": 2, "n_backwards_L": 2, "max_iter_eval": 8},
    "trm_wta": {"num_chains": 3},
}
SETTINGS = {
    "global_batch_size": 6,
    "lr": 1e-3,
    "lr_warmup_steps": 2,
    "weight_decay": 0.1,
    "puzzle_emb_lr": 1e-2,
    "puzzle_emb_weight_decay": 0.1,
    "ema": True,
}


def family_model(architecture: str, **overrides: object) -> Any:
    """A model in training mode, an `ACTModel`, the same at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CONFIG | OWN.get(architecture, {}) | overrides
        model: ACTModel = load_model_class("recursive_reasoning." + FAMILY[architecture])(config)
        if model.puzzle_emb is not None:
            model.puzzle_emb.weights.normal_()
    return model


def family_state(architecture: str, ranks: Ranks | None = None, **overrides: object) -> TrainState:
    """A training state of such a model."""
    head = ACTLossHead(family_model(architecture, **overrides))
    return train_state(head, SETTINGS | {"optimizer": "adamw"}, ranks or Ranks(), total_steps=8)
