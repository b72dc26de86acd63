"""A small text model of each architecture, with batches."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from models.text.loss import TextLossHead
from models.text.model import TextModel
from utils.constants import IGNORE_LABEL_ID, NO_DOCUMENT
from utils.functions import load_model_class

TEXT_ARCHITECTURES = {
    "trm": "text_trm@TextRecursiveModel",
    "flat": "text_flat@TextTransformer",
    "moeut": "text_moeut@TextMoEModel",
}
HALTING = ["trm", "moeut"]
CONFIG = {
    "vocab_size": 11,
    "seq_len": 12,
    "hidden_size": 16,
    "num_heads": 2,
    "inner_size": 24,
    "H_layers": 2,
    "L_layers": 2,
    "H_cycles": 1,
    "L_cycles": 2,
    "halt_max_steps": 4,
    "halt_exploration_prob": 0.0,
    "num_experts": 5,
    "expert_size": 8,
    "num_attention_experts": 3,
}
# of each row of `small_text`, the lengths of its documents and of the padding behind them
DOCUMENTS = [([5, 7], 0), ([3, 2, 4], 3), ([12], 0), ([1, 1, 6, 2], 2)]


def small_text_model(architecture: str = "trm", **overrides: object) -> TextModel:
    """A model in training mode, the same at each call; three positions in ten of `small_text` want to halt at once.

    Without overrides, positions of every row want to halt in every step, and positions settle in each of the steps.
    """
    model = _without_halting_head(architecture, overrides)
    _draw_halting_head(model, _seed_of_halting_head(architecture) if architecture in HALTING else 1)
    return model


def _without_halting_head(architecture: str, overrides: Mapping[str, object]) -> TextModel:
    options = {**CONFIG, **({"halt_max_steps": 1} if architecture == "flat" else {}), **overrides}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_model_class("recursive_reasoning." + TEXT_ARCHITECTURES[architecture])(options)


@torch.no_grad()
def _draw_halting_head(model: TextModel, seed: int) -> None:
    model.inner.q_head.weight.normal_(generator=torch.Generator().manual_seed(seed))
    assert model.inner.q_head.bias is not None
    model.inner.q_head.bias.zero_()
    batch = small_text()
    if model.config.seq_len == CONFIG["seq_len"]:
        _, outputs = model.eval()(model.initial_carry(batch), batch)
        model.train()
        model.inner.q_head.bias.fill_(-outputs["q_halt_logits"].quantile(0.7))


@cache
def _seed_of_halting_head(architecture: str) -> int:
    """The first seed of a halting head that does what `small_text_model` says."""
    model, batch = _without_halting_head(architecture, {}).eval(), small_text()
    for seed in range(1, 1000):
        _draw_halting_head(model, seed)
        carry, wanted = model.eval().initial_carry(batch), []
        with torch.no_grad():
            for _ in range(model.config.halt_max_steps):
                carry, outputs = model(carry, batch)
                wanted.append((outputs["q_halt_logits"] > 0).any(1))
        steps = model.answers(batch["inputs"], batch["documents"], halting=True)[1]
        if torch.stack(wanted).all() and len(steps.unique()) == model.config.halt_max_steps:
            return seed
    raise AssertionError("no halting head does that")


def small_text_head(architecture: str = "trm", **overrides: object) -> TextLossHead:
    """That model in its loss head."""
    return TextLossHead(small_text_model(architecture, **overrides), "softmax_cross_entropy")


def small_text(rows: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Random documents in rows, with the next token of the same document as the label."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, CONFIG["seq_len"])
    inputs = torch.randint(CONFIG["vocab_size"], shape, generator=generator, dtype=torch.int32)
    labels = torch.full(shape, IGNORE_LABEL_ID, dtype=torch.int32)
    documents = torch.full(shape, NO_DOCUMENT, dtype=torch.int32)
    for row in range(rows):
        start, lengths = 0, DOCUMENTS[row % len(DOCUMENTS)][0]
        for number, length in enumerate(lengths):
            end = start + length
            documents[row, start:end] = number
            labels[row, start : end - 1] = inputs[row, start + 1 : end]
            labels[row, end - 1] = 0  # the end of a document
            start = end
    return {"inputs": inputs, "labels": labels, "documents": documents}


@torch.no_grad()
def set_text_q(model: TextModel, q_halt: float) -> TextModel:
    """Make the halting logit of every position exactly this."""
    model.inner.q_head.weight.zero_()
    assert model.inner.q_head.bias is not None
    model.inner.q_head.bias.fill_(q_halt)
    return model
