"""The SwiGLU computed in chunks against the plain one."""

import pytest
import torch

from models.layers import SwiGLU
from models.text import feed_forward
from models.text.feed_forward import FeedForward


def made(kind: type[SwiGLU], dtype: torch.dtype) -> list[torch.Tensor]:
    """Values, and gradients of the input and the weights."""
    torch.manual_seed(0)
    module = kind(16, 4.0, inner=24)
    x = torch.randn(3, 7, 16, dtype=dtype).requires_grad_()
    y = module(x)
    (y * torch.linspace(-1, 1, 16)).sum().backward()
    gradients = [tensor.grad for tensor in (x, *module.parameters())]
    assert {gradient.dtype for gradient in gradients[1:] if gradient is not None} == {torch.float32}
    return [y.detach(), *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("chunk", [1, 5, 21, 100])
def test_values_and_gradients_are_those_of_the_plain_one(chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed_forward, "KEPT", 0)
    monkeypatch.setattr(feed_forward, "CHUNK", chunk)
    for found, expected in zip(made(FeedForward, torch.float32), made(SwiGLU, torch.float32), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_bf16_is_as_close_to_fp32_as_the_plain_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed_forward, "KEPT", 0)
    monkeypatch.setattr(feed_forward, "CHUNK", 5)
    exact = made(SwiGLU, torch.float32)
    for found, plain, expected in zip(
        made(FeedForward, torch.bfloat16), made(SwiGLU, torch.bfloat16), exact, strict=True
    ):
        error, usual = ((x.float() - expected).norm() / expected.norm() for x in (found, plain))
        assert float(error) < 1.5 * float(usual) + 1e-3


def saved_for_the_backward(rows: int) -> set[tuple[int, ...]]:
    module, shapes = FeedForward(16, 4.0, inner=24), set()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: shapes.add(tuple(x.shape)) or x, lambda x: x):
        module(torch.randn(rows, 9, 16))
    return shapes


def test_nothing_wide_is_kept_of_a_large_batch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed_forward, "KEPT", 2 * 9 * 48 * 4)
    assert saved_for_the_backward(rows=3) == {(27, 16), (48, 16), (16, 24)}
    assert (2, 9, 24) in saved_for_the_backward(rows=2)
