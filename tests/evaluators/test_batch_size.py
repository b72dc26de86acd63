"""The batch size chosen from memory: a power of two, no larger than the estimate of the memory allows."""

import pytest
import torch

from evaluators.batch_size import LARGEST, ON_HOST, bytes_per_example, choose_batch_size
from tests.models.small import ARCHITECTURES, small_model

GPU = torch.device("cuda", 0)


def chosen(monkeypatch: pytest.MonkeyPatch, free: int) -> int:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10 * free))
    return choose_batch_size(small_model(), GPU)


def test_a_quarter_of_the_memory_is_taken(monkeypatch: pytest.MonkeyPatch):
    need = bytes_per_example(small_model())
    assert chosen(monkeypatch, 4 * 64 * need) == 64
    assert chosen(monkeypatch, 4 * 64 * need - 1) == 32
    assert chosen(monkeypatch, 4 * 3 * need) == 2
    assert chosen(monkeypatch, 0) == 1
    assert chosen(monkeypatch, 1 << 50) == LARGEST
    assert choose_batch_size(small_model(), torch.device("cpu")) == ON_HOST


def test_the_estimate_grows_with_the_model():
    small = bytes_per_example(small_model())
    for key, value in (("hidden_size", 32), ("seq_len", 12), ("vocab_size", 50), ("expansion", 8.0)):
        assert bytes_per_example(small_model("trm", **{key: value})) > small


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_estimate_covers_every_architecture(architecture: str):
    model = small_model(architecture)
    states = sum(z.nbytes for z in model.inner.empty_states(1, torch.device("cpu")).values())
    assert bytes_per_example(model) > 4 * states


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("options", [{}, {"mlp_t": True, "pos_encodings": "none"}])
def test_an_evaluation_step_stays_within_the_estimate(options: dict):
    sizes = {"hidden_size": 512, "num_heads": 8, "seq_len": 81, "vocab_size": 11, "forward_dtype": "bfloat16"}
    model = small_model("trm", **sizes, **options).to(GPU).eval()
    rows = 256
    batch = {
        "inputs": torch.ones(rows, 81, dtype=torch.int32, device=GPU),
        "labels": torch.ones(rows, 81, dtype=torch.int32, device=GPU),
        "puzzle_identifiers": torch.zeros(rows, dtype=torch.int32, device=GPU),
    }
    with torch.inference_mode():
        carry, _ = model(model.initial_carry(batch), batch)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model(carry, batch)
        assert torch.cuda.max_memory_allocated() - before < rows * bytes_per_example(model)
