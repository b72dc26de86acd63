"""The recorder sees every update of every latent, and its presence changes no bit."""

import pytest
import torch

from models.act import ACTModel
from models.recorder import UpdateRecorder
from tests.models.small import ARCHITECTURES, small_batch, small_model
from tests.models.small_family import family_model
from utils.errors import UserError

TRM = ["z_L", "z_L", "z_H"] * 2
# architecture -> the latents in the order of their updates in a step of two cycles with two updates each
EXPECTED = {
    "trm": TRM,
    "hrm": TRM,
    "trm_singlez": ["z_L"] * 6,
    "trm_hier6": ["z_L1", "z_L2", "z_H"] * 2,
    "transformers_baseline": ["z_H"],
    "trm_wta": TRM,
    "eqr": TRM,
    "urm": ["current_hidden"] * 4,
    "fprm": ["y"],
}


def model_of(name: str) -> ACTModel:
    model = small_model(name) if name in ARCHITECTURES else family_model(name, noise_scale=0.0)
    return model.eval()


@pytest.mark.parametrize("name", EXPECTED)
def test_every_update_is_seen_and_no_bit_changes(name: str):
    model, batch = model_of(name), small_batch(3)
    plain = list(model.answer_steps(batch, 2))
    with UpdateRecorder(model) as recorder:
        for (states, outputs), (before, expected) in zip(model.answer_steps(batch, 2), plain, strict=True):
            updates = recorder.take()
            assert [update.latent for update in updates] == EXPECTED[name]
            for latent, value in {update.latent: update.value for update in updates}.items():
                own = states[latent]
                assert torch.equal(value, own[:, 0] if own.ndim == 4 else own)  # of several chains, the first
            assert all(torch.equal(states[latent], before[latent]) for latent in before)
            assert torch.equal(outputs["logits"], expected["logits"])
    next(iter(model.answer_steps(batch, 1)))
    assert recorder.take() == []
    assert not [key for key in model.state_dict() if "updates" in key]


def test_an_architecture_that_does_not_report_is_refused():
    with pytest.raises(UserError, match="does not report its inner updates"):
        UpdateRecorder(family_model("se_rrm"))
