"""The silu of compiled bf16 code: values and gradients differ from exact ones by less than bf16 resolves."""

import pytest
import torch
import torch.nn.functional as F

from models.silu import fast_sigmoid, silu


@pytest.mark.parametrize(("largest", "error"), [(8, 5e-5), (12, 4e-4), (100, 1e-12)])
def test_relative_error_of_the_sigmoid(largest: float, error: float):
    """Beyond 30 either way it is 1, or so small that only the absolute error counts."""
    x = torch.linspace(-largest, largest, 200_001)
    found, exact = fast_sigmoid(x).double(), x.double().sigmoid()
    if largest > 30:
        far = x.abs() > 30
        assert (found[far] - exact[far]).abs().max() < error
    else:
        assert ((found - exact) / exact).abs().max() < error


@pytest.mark.thorough
def test_compiled_values_and_gradients_are_those_of_fp64_rounded():
    x = torch.cat((torch.linspace(-20, 20, 4001), torch.tensor([0.0, 60.0, -60.0]))).bfloat16()
    own, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    y, expected = torch.compile(lambda x: silu(x) * 1, dynamic=False)(own), F.silu(exact)
    gradient = torch.randn(len(x), generator=torch.Generator().manual_seed(0)).bfloat16()
    y.backward(gradient)
    expected.backward(gradient.double())
    assert own.grad is not None
    assert exact.grad is not None
    # one rounding to bf16 (2^-8 of the value), and a tenth of it for the approximation
    torch.testing.assert_close(y.double(), expected, rtol=2**-8 * 1.1, atol=1e-6)
    torch.testing.assert_close(own.grad.double(), exact.grad, rtol=2**-8 * 1.1, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eager_code_has_torchs_own(dtype: torch.dtype):
    x = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(silu(x), F.silu(x))
