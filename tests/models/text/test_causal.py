"""Which positions see which: attention against a second implementation, and the gradients of whole models."""

import math

import pytest
import torch
from torch import Tensor

from models.layers import RotaryEmbedding
from models.text.causal import TextView, attend, document_lengths, document_mask
from models.text.model import TextModel
from tests.models.small_text import DOCUMENTS, TEXT_ARCHITECTURES, small_text, small_text_model
from utils.constants import NO_DOCUMENT

DOCUMENTS_OF_TEXT = small_text()["documents"]
LOOKED_AT = (1, 3)  # rows of several documents and padding


def view(documents: Tensor, way: str) -> TextView:
    rotation = RotaryEmbedding(4, documents.shape[1], 1e4)()
    lengths = document_lengths(documents) if way == "lengths" else None
    mask = document_mask(documents) if way == "mask" else None
    return TextView(rotation, real=documents != NO_DOCUMENT, lengths=lengths, mask=mask)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, documents: Tensor, across: bool) -> Tensor:
    """Position by position."""
    found = torch.zeros_like(v)
    for row, head, at in ((r, h, i) for r in range(q.shape[0]) for h in range(q.shape[1]) for i in range(q.shape[2])):
        seen = [j for j in range(at + 1) if across or documents[row, j] == documents[row, at]]
        scores = torch.stack([q[row, head, at] @ k[row, head, j] for j in seen]) / math.sqrt(q.shape[-1])
        weights = scores.exp() / scores.exp().sum()
        found[row, head, at] = sum(w * v[row, head, j] for w, j in zip(weights, seen, strict=True))
    return found


def test_lengths_are_those_of_the_documents_and_the_padding_between_them():
    expected = [n for lengths, padding in DOCUMENTS for n in [*lengths, padding] if n]
    assert document_lengths(DOCUMENTS_OF_TEXT) == expected


def test_equal_numbers_in_neighbouring_rows_are_different_documents():
    assert document_lengths(torch.zeros(3, 5, dtype=torch.int32)) == [5, 5, 5]


@pytest.mark.parametrize("way", ["lengths", "mask", "neither"])
def test_attention_is_that_of_a_loop(way: str):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(4, 2, 12, 4, generator=generator) for _ in range(3))
    expected = plain_attention(q, k, v, DOCUMENTS_OF_TEXT, across=way == "neither")
    torch.testing.assert_close(attend(q, k, v, view(DOCUMENTS_OF_TEXT, way)), expected)


# -- whole models -----------------------------------------------------------------------------------------------------


def influence(model: TextModel, steps: int) -> Tensor:
    """[2, seq, rows, seq]: whether any logit of a position of the rows `LOOKED_AT` depends on the embedding of another.

    After `steps` ACT steps with gradient through all of them, where a model is trained through the last alone.
    """
    batch = small_text()
    inner = model.inner
    embedded = inner.embed(batch).detach().requires_grad_()
    rows, seq = batch["inputs"].shape
    states = inner.reset_states(inner.empty_states(rows, embedded.device), torch.ones(rows, dtype=torch.bool))
    z = {name: states[name] for name in inner.states}
    for _ in range(steps):
        z = inner.recurse(z, embedded, inner.view(batch["documents"], cut_documents=True, record=False))
    logits = model.logits(inner.read(z)[0])
    # one number for each position, in which no two logits cancel out
    numbers = (logits * torch.rand(logits.shape, generator=torch.Generator().manual_seed(3))).sum(-1)
    found = torch.zeros(len(LOOKED_AT), seq, rows, seq, dtype=torch.bool)
    for index, row in enumerate(LOOKED_AT):
        for at in range(seq):
            (gradient,) = torch.autograd.grad(numbers[row, at], embedded, retain_graph=True)
            found[index, at] = gradient.abs().sum(-1) > 0
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("masked", [False, True], ids=["cut", "masked"])
@pytest.mark.parametrize(("architecture", "steps"), [("trm", 1), ("trm", 3), ("flat", 1), ("moeut", 1), ("moeut", 2)])
def test_logits_depend_on_earlier_tokens_of_the_same_document_alone(
    architecture: str, steps: int, masked: bool, across: bool, monkeypatch: pytest.MonkeyPatch
):
    model = small_text_model(architecture, attend_across_documents=across)
    make_view = model.inner.view
    monkeypatch.setattr(model.inner, "view", lambda documents, record, **_: make_view(documents, not masked, record))
    found = influence(model, steps)
    for index, row in enumerate(LOOKED_AT):
        documents = DOCUMENTS_OF_TEXT[row]
        same = documents.unsqueeze(1) == documents.unsqueeze(0)
        expected = (torch.ones(12, 12, dtype=torch.bool) if across else same).tril()
        assert torch.equal(found[index, :, row], expected)
        assert not any(found[index, :, other].any() for other in range(4) if other != row)


@pytest.mark.parametrize("architecture", TEXT_ARCHITECTURES)
def test_a_mask_does_what_cutting_does(architecture: str, monkeypatch: pytest.MonkeyPatch):
    cut, masked = small_text_model(architecture), small_text_model(architecture)
    batch = small_text()
    views: list[TextView] = []

    def masks(documents: Tensor, cut_documents: bool, record: bool) -> TextView:
        views.append(make_view(documents, cut_documents=False, record=record))
        return views[-1]

    make_view = masked.inner.view
    monkeypatch.setattr(masked.inner, "view", masks)
    (one, _), (other, _) = (model.eval().answers(batch["inputs"], batch["documents"]) for model in (cut, masked))
    assert views[0].mask is not None
    torch.testing.assert_close(one, other)


def test_a_document_is_answered_as_it_would_be_alone():
    """Rotary positions are relative: where in a row a document stands makes no difference."""
    model, batch = small_text_model().eval(), small_text()
    together, _ = model.answers(batch["inputs"], batch["documents"])
    alone, _ = model.answers(batch["inputs"][1:2, 5:9])
    torch.testing.assert_close(together[1:2, 5:9], alone, rtol=1e-4, atol=1e-5)
