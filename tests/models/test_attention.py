"""The attention for CPUs against torch's own, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import models.attention
from models.attention import attend


def q_k_v(dtype: torch.dtype, batch: int = 5, heads: int = 3, positions: int = 21, d: int = 8) -> list[Tensor]:
    """Views of one projection, as the attention layer makes them."""
    projected = torch.randn(batch, positions, 3, heads, d, generator=torch.Generator().manual_seed(0)) * 2
    return [x.detach().requires_grad_() for x in projected.to(dtype).permute(2, 0, 3, 1, 4)]


def with_gradients(function, inputs: list[Tensor]) -> list[Tensor]:
    for x in inputs:
        x.grad = None
    y = function(*inputs)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype))
    return [y.detach(), *(x.grad for x in inputs if x.grad is not None)]


@pytest.mark.parametrize("at_once", [1, 21**2 * 4, 2**25])
def test_values_and_gradients_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch, at_once: int):
    """Whatever number of heads is computed at once (1, 4 of 15, all)."""
    monkeypatch.setattr(models.attention, "_SCORES", at_once)
    inputs = q_k_v(torch.float64)
    found, expected = with_gradients(attend, inputs), with_gradients(F.scaled_dot_product_attention, inputs)
    assert len(found) == 4
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_error_of_bf16_is_less_than_twice_that_of_the_fused_kernel():
    """It rounds the scores to bf16 once more, which costs about as much as that queries and keys are bf16.

    Errors are against fp64 on inputs that were never rounded, with scores of a standard deviation of 4.
    """
    exact_inputs = q_k_v(torch.float64, positions=97, d=64)
    inputs = [x.detach().bfloat16().requires_grad_() for x in exact_inputs]
    exact = with_gradients(F.scaled_dot_product_attention, exact_inputs)
    fused, found = with_gradients(F.scaled_dot_product_attention, inputs), with_gradients(attend, inputs)
    for right, a, b in zip(exact, fused, found, strict=True):
        assert b.dtype == torch.bfloat16
        assert (b.double() - right).norm() <= 2 * (a.double() - right).norm()
