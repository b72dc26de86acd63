"""The bare network against the loss head of pretrain.py."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy

from models.recursive_reasoning.trm import TinyRecursiveModel as Architecture
from tiny_recursive_model import TinyRecursiveModel, TRMConfig
from utils.errors import UserError


def small(**changes: object) -> TinyRecursiveModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 6, "seq_len": 16, "hidden_size": 16, "num_heads": 2, "L_cycles": 2, **changes}
    return TinyRecursiveModel(TRMConfig.model_validate(sizes))


def batch(rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randint(1, 6, (rows, 16), generator=generator) for _ in range(2))
    return x, y.where(torch.rand(y.shape, generator=generator) < 0.8, -100)


def test_the_loss_is_the_sum_over_the_steps_of_the_recursion():
    model, (x, y) = small(), batch()
    supervised = model(x, y, n_supervision=3)
    assert isinstance(model.head.model, Architecture)
    states = model.head.model.inner.empty_states(5, x.device)
    states = model.head.model.inner.reset_states(states, torch.ones(5, dtype=torch.bool))
    total = 0.0
    for step in range(3):
        data = {"inputs": x, "puzzle_identifiers": torch.zeros(5, dtype=torch.int32)}
        states, logits, q_halt, _ = model.head.model.inner(states, data)
        torch.testing.assert_close(supervised.logits_list[step], logits, rtol=0, atol=0)
        asked = y != -100
        exact = ((logits.argmax(-1) == y) | ~asked).all(-1).float()
        s = torch.where(logits.double() >= 0, logits.double() + 1, 1 / (1 - logits.double()))  # stablemax
        chosen = (s / s.sum(-1, keepdim=True)).gather(-1, y.clamp_min(0)[..., None])[..., 0].log()
        token_loss = -(chosen * asked).sum(-1) / asked.sum(-1)
        halt_loss = torch.nn.functional.binary_cross_entropy_with_logits(q_halt, exact, reduction="none")
        total += (token_loss + 0.5 * halt_loss).mean().item()
    assert len(supervised.logits_list) == len(supervised.q_halt_logits_list) == 3
    assert supervised.loss.item() == pytest.approx(total, rel=1e-5)


def test_it_learns_and_predicts():
    model, (x, y) = small(), batch(4)
    y = x % 5 + 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    token_losses = []  # without that of halting, which rises when the first answers are right
    for _ in range(40):
        supervised = model(x, y, n_supervision=2)
        optimizer.zero_grad()
        supervised.loss.backward()
        optimizer.step()
        token_losses.append(sum(cross_entropy(step.mT, y).item() for step in supervised.logits_list))
    assert token_losses[-1] < 0.5 * token_losses[0]
    assert model.training
    before = model(x, y, n_supervision=4).logits_list
    answers = model.predict(x, n_supervision=4)
    assert model.training
    torch.testing.assert_close(answers, before[-1].argmax(-1))
    assert (answers == y).float().mean() > 0.5  # one in five by guessing
    assert model.predict(x, n_supervision=20).shape == x.shape  # more steps than in training


def test_what_is_refused():
    with pytest.raises(ValidationError, match="dim"):
        TRMConfig.model_validate({"vocab_size": 6, "seq_len": 16, "dim": 5})
    model, (x, y) = small(halt_max_steps=4), batch()
    with pytest.raises(UserError, match="n_supervision 5: at least 1 and at most halt_max_steps, which is 4"):
        model(x, y, n_supervision=5)
    with pytest.raises(UserError, match="n_supervision 0"):
        model.predict(x, n_supervision=0)
