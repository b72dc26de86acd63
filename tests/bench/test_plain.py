"""The plain implementation and the program's own step, eager and compiled: the same losses."""

import pytest
import torch

from bench.plain import PlainTRM
from models.acceleration import accelerate
from models.inner import ReasonerConfig
from models.losses import ACTLossHead
from tests.models.small import CONFIG, small_batch, small_model, train_state
from tests.test_golden import SETTINGS
from utils.distributed import Ranks
from utils.machine import choose_machine

ROWS, STEPS = 6, 6
LR, PUZZLE_EMB_LR = 1e-4, 1e-3  # small: the optimizer is close to a sign and blows up what is rounded differently
VARIANTS = {
    "attention": {"pos_encodings": "rope", "L_layers": 2},
    "mlp": {"mlp_t": True, "pos_encodings": "none", "L_layers": 2},
}


def labelled(seed: int) -> dict[str, torch.Tensor]:
    """The plain implementation knows no ignored labels."""
    batch = small_batch(ROWS, seed)
    return batch | {"labels": batch["labels"].clamp_min(0).to(torch.int32)}


def plain_losses(head: ACTLossHead) -> list[float]:
    config = head.model.config
    assert isinstance(config, ReasonerConfig)
    run = PlainTRM(head.state_dict(), config, torch.float32)
    no_minimum = torch.zeros(ROWS, dtype=torch.int32)
    return [run.train_step(labelled(step), no_minimum, LR, PUZZLE_EMB_LR) for step in range(STEPS)]


def own_losses(head: ACTLossHead, compiled: bool) -> list[float]:
    constant = {"lr": LR, "puzzle_emb_lr": PUZZLE_EMB_LR, "lr_warmup_steps": 0, "lr_min_ratio": 1.0}
    state = train_state(head, SETTINGS | constant, Ranks(), total_steps=STEPS)
    if compiled:
        state.use_fast_update(accelerate(head.model, choose_machine("cpu", "float32", compile=True)))
    losses = []
    for step in range(STEPS):
        metrics = state.train_step(labelled(step))
        losses.append(metrics["train/lm_loss"] + 0.5 * metrics["train/q_halt_loss"])
    assert state.ema is not None
    assert all(not torch.equal(shadow, state.parameters[name]) for name, shadow in state.ema.shadow.items())
    return losses


@pytest.mark.thorough
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_losses(variant: str, compiled: bool):
    head = ACTLossHead(small_model("trm", **VARIANTS[variant]))
    names = list(head.state_dict())
    expected = plain_losses(head)
    # compiled sums have another order, and the optimizer is close to a sign
    tolerance = 1e-4 if compiled else 1e-5
    torch.testing.assert_close(own_losses(head, compiled), expected, rtol=tolerance, atol=1e-6)
    assert list(head.state_dict()) == names
    assert CONFIG["forward_dtype"] == "float32"
