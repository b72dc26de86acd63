"""Weights in both formats: nothing changes on the way there and back."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.losses import ACTLossHead
from scripts.convert_weights import convert
from tests.models.small import small_model
from tests.runs import different
from utils.checkpoint import load_weights, save_weights
from utils.errors import UserError
from utils.safetensors_file import save_tensors


def test_there_and_back(tmp_path: Path):
    head = ACTLossHead(small_model())
    save_weights(tmp_path, 7, head)
    convert(tmp_path / "step_7", tmp_path / "step_7.safetensors")
    assert different(load_file(tmp_path / "step_7.safetensors"), dict(head.state_dict())) == []
    convert(tmp_path / "step_7.safetensors", tmp_path / "step_8")
    assert different(load_weights(tmp_path / "step_8"), load_weights(tmp_path / "step_7")) == []
    assert set(torch.load(tmp_path / "step_8")) == set(torch.load(tmp_path / "step_7"))


def test_rounded_weights_keep_whole_numbers(tmp_path: Path):
    weights = {"model.a": torch.tensor([1.001, 3.0]), "model.b": torch.tensor([257, 70000])}
    save_tensors(tmp_path / "a.safetensors", weights)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", torch.bfloat16)
    rounded = load_file(tmp_path / "b.safetensors")
    assert rounded["model.a"].dtype == torch.bfloat16
    assert rounded["model.a"].tolist() == [1.0, 3.0]
    assert torch.equal(rounded["model.b"], weights["model.b"])


def test_nothing_is_overwritten_and_nothing_damaged_converted(tmp_path: Path):
    save_weights(tmp_path, 7, ACTLossHead(small_model()))
    for name in ("step_7", "step_8"):
        convert(tmp_path / "step_7", tmp_path / f"{name}.safetensors")
        with pytest.raises(UserError, match="exists"):
            convert(tmp_path / "step_7.safetensors", tmp_path / f"{name}.safetensors")
    (tmp_path / "step_7").write_bytes((tmp_path / "step_7").read_bytes()[:-1])
    with pytest.raises(UserError, match="step_7 is corrupted"):
        convert(tmp_path / "step_7", tmp_path / "step_9.safetensors")
    assert not (tmp_path / "step_9.safetensors").exists()
    with pytest.raises(UserError, match="nowhere cannot be written"):
        convert(tmp_path / "step_7.safetensors", tmp_path / "nowhere" / "a.safetensors")
