"""The global switches of torch that a run sets."""

import os
from collections.abc import Iterator

import pytest
import torch

from utils.numerics import ALLOCATOR, set_numerics

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
ALLOCATORS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    for name in (*ALLOCATORS, "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    yield
    torch.set_float32_matmul_precision(before)
    torch.use_deterministic_algorithms(False)


def test_on_a_cpu_nothing_changes():
    assert set_numerics(CPU, "high", deterministic=False) is None
    assert torch.get_float32_matmul_precision() == "highest"
    assert not any(name in os.environ for name in ALLOCATORS)


def test_on_cuda_everything_is_said():
    said = set_numerics(CUDA, "highest", deterministic=False)
    assert said == f"fp32 products: in fp32; allocator: {ALLOCATOR}"
    assert os.environ["PYTORCH_ALLOC_CONF"] == ALLOCATOR
    assert "TF32" in (set_numerics(CUDA, "high", deterministic=False) or "")
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize("name", ALLOCATORS)
def test_an_allocator_that_the_user_chose_is_kept(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "backend:native")
    assert "allocator: backend:native" in (set_numerics(CUDA, "highest", deterministic=False) or "")
    assert [other for other in ALLOCATORS if other in os.environ] == [name]


def test_deterministic_refuses_what_has_no_fixed_order():
    said = set_numerics(CUDA, "highest", deterministic=True) or ""
    assert "deterministic" in said
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    with pytest.raises(RuntimeError, match="deterministic"):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    set_numerics(CPU, "highest", deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
