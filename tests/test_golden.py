"""The first losses of each architecture, against losses recorded when the code agreed with runs of the published code.

They check the whole path from seed to loss where the recorded runs are not available. After a change that is meant to
alter the numbers, `python -m tests.test_golden` records them again.
"""

import json
from pathlib import Path

import pytest
import torch

from models.losses import ACTLossHead
from tests.models.small import ARCHITECTURES, small_batch, small_model, train_state
from utils.distributed import Ranks

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
STEPS, BATCH = 8, 6
SETTINGS = {
    "global_batch_size": BATCH,
    "lr": 1e-3,
    "lr_min_ratio": 0.1,
    "lr_warmup_steps": 2,
    "beta1": 0.9,
    "beta2": 0.95,
    "weight_decay": 0.1,
    "puzzle_emb_lr": 1e-2,
    "puzzle_emb_weight_decay": 0.1,
    "ema": True,
}
RUNS = {
    **{name: (name, {}) for name in ARCHITECTURES},
    "trm_mlp_t": ("trm", {"mlp_t": True, "pos_encodings": "none"}),
    "trm_continue": ("trm", {"no_ACT_continue": False, "halt_exploration_prob": 0.5}),
    "trm_learned_positions": ("trm", {"pos_encodings": "learned", "puzzle_emb_len": 2}),
}


def losses(run: str) -> list[list[float]]:
    """[lm_loss, q_halt_loss (, q_continue_loss), slots halted] of each step."""
    architecture, overrides = RUNS[run]
    state = train_state(ACTLossHead(small_model(architecture, **overrides)), SETTINGS, Ranks(), total_steps=STEPS)
    found = []
    for step in range(1, STEPS + 1):
        metrics = state.train_step(small_batch(BATCH, seed=step))
        names = ("train/lm_loss", "train/q_halt_loss", "train/q_continue_loss", "train/count")
        found.append([metrics[name] for name in names if name in metrics])
    return found


@pytest.mark.parametrize("run", RUNS)
def test_losses_are_the_golden_ones(run: str):
    golden = torch.tensor(json.loads(GOLDEN.read_text())[run], dtype=torch.float64)
    torch.testing.assert_close(torch.tensor(losses(run), dtype=torch.float64), golden, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({run: losses(run) for run in RUNS}, indent=1) + "\n")
