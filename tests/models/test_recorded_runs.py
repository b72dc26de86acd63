"""Every architecture against recorded fp32 runs of the published code: eight training steps, then an evaluation."""

import json

import numpy as np
import pytest
import torch

from models.ema import EMA
from models.losses import ACTLossHead
from models.sparse_embedding import SparseSignSGD
from tests.paths import SHARED
from utils.functions import load_model_class
from utils.optimizers import AdamATan2

ORACLES = SHARED / "oracles"
RUNS = {
    "trm_att": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_att_learned_pos": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_att_no_puzzle_emb": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_att_one_step": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_att_pad_puzzle_emb": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_mlp_t": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_singlez": "trm_singlez@TinyRecursiveReasoningModel_ACTV1",
    "trm_hier6": "trm_hier6@TinyRecursiveReasoningModel_ACTV1",
    "hrm": "hrm@HierarchicalReasoningModel_ACTV1",
    "transformers_baseline": "transformers_baseline@Model_ACTV2",
}
OUTPUTS = ("logits", "q_halt_logits", "q_continue_logits", "preds", "target_q_continue")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


class Recording:
    """A recorded run; `check` compares an array with it and remembers that it was compared."""

    def __init__(self, name: str, tolerance: float):
        self.arrays = dict(np.load(ORACLES / f"{name}.npz"))
        self.config = json.loads(str(self.arrays.pop("config")))
        self.tolerance = tolerance
        self.unchecked = {key for key in self.arrays if not key.startswith("init/") and "/batch/" not in key}

    def under(self, prefix: str, device: str) -> dict[str, torch.Tensor]:
        return {
            key.removeprefix(prefix): torch.tensor(value, device=device)
            for key, value in self.arrays.items()
            if key.startswith(prefix)
        }

    def check(self, key: str, mine: torch.Tensor) -> None:
        recorded, found = self.arrays[key], mine.detach().cpu().numpy()
        assert found.shape == recorded.shape, key
        if recorded.dtype.kind in "biu":
            np.testing.assert_array_equal(found, recorded, err_msg=key)
        else:
            scale = max(float(np.abs(recorded).max()), 1e-30)
            error = float(np.abs(found.astype(np.float64) - recorded).max()) / scale
            assert error <= self.tolerance, f"{key}: relative error {error:.2e}"
        self.unchecked.discard(key)


@pytest.mark.skipif(not ORACLES.exists(), reason="the recorded runs are not here")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("run", RUNS)
def test_agrees_with_the_recorded_run(run: str, device: str):
    recording = Recording(run, tolerance=1e-5 if device == "cpu" else 1e-4)
    config = recording.config
    model = load_model_class("recursive_reasoning." + RUNS[run])(config)
    model.load_state_dict(recording.under("init/", "cpu"), strict=True)
    head = ACTLossHead(model, config["loss_type"]).to(device)
    head.train()
    ema = EMA(model, rate=0.999)
    dense = AdamATan2(
        model.parameters(),
        lr=config["lr"],
        betas=(config["beta1"], config["beta2"]),
        weight_decay=config["weight_decay"],
    )
    embedding = model.puzzle_emb
    sparse = None
    if embedding is not None:
        rates = {"lr": config["puzzle_emb_lr"], "weight_decay": config["puzzle_emb_weight_decay"]}
        sparse = SparseSignSGD([embedding], **rates)

    carry = head.initial_carry(recording.under("step1/batch/", device))
    for step in range(1, 9):
        at = f"step{step}/"
        carry, loss, metrics, outputs, all_finished = head(
            carry=carry, batch=recording.under(at + "batch/", device), return_keys=OUTPUTS
        )
        (loss / config["batch_size"]).backward()
        recording.check(at + "loss", loss)
        recording.check(at + "all_finish", all_finished)
        for name, value in metrics.items():
            recording.check(f"{at}metric/{name}", value)
        for name, value in outputs.items():
            recording.check(f"{at}out/{name}", value)
        for name, value in {**carry.states, "steps": carry.steps, "halted": carry.halted}.items():
            recording.check(f"{at}carry/{name}", value)
        if step == 1:
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    recording.check(f"{at}grad/{name}", parameter.grad)
            if embedding is not None:
                recording.check(f"{at}grad/puzzle_emb.local_weights", embedding.local_weights.grad)
        if sparse is not None:
            sparse.step()
        dense.step()
        dense.zero_grad()
        ema.update()

    for name, value in model.state_dict().items():
        recording.check(f"step8/weights/{name}", value)
    for name, value in ema.shadow.items():
        recording.check(f"step8/ema/{name}", value)

    head.eval()
    batch = recording.under("step8/batch/", device)
    with torch.inference_mode():
        carry = head.initial_carry(batch)
        for _ in range(config["halt_max_steps"]):
            carry, _, metrics, outputs, all_finished = head(carry=carry, batch=batch, return_keys=OUTPUTS)
    recording.check("eval/all_finish", all_finished)
    for name, value in metrics.items():
        recording.check(f"eval/metric/{name}", value)
    for name in ("logits", "q_halt_logits"):
        recording.check(f"eval/out/{name}", outputs[name])
    assert not recording.unchecked, f"recorded and not compared: {sorted(recording.unchecked)[:10]}"
