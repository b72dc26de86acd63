"""safetensors files: what is written comes back, and a damaged file is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runs import different
from utils.errors import UserError
from utils.safetensors_file import load_tensors, read_metadata, save_tensors

TENSORS = {
    "model.w": torch.arange(12.0).view(3, 4),
    "model.b": torch.linspace(-1, 1, 5).bfloat16(),
    "model.count": torch.tensor(7),
    "model.none": torch.zeros(0, 3),
    "model.flags": torch.tensor([True, False]),
}


def test_what_is_written_comes_back_and_others_can_read_it(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, TENSORS, {"step": "12"})
    for found in (load_tensors(path), load_file(path)):
        assert set(found) == set(TENSORS)
        assert different(TENSORS, found) == []
    assert {key: value for key, value in read_metadata(path).items() if key != "crc32"} == {
        "format": "pt",
        "step": "12",
    }
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_parts_of_a_tensor_are_written_as_tensors_of_their_own(tmp_path: Path):
    whole = torch.arange(6.0).view(2, 3)
    parts = {"whole": whole, "column": whole[:, 1], "turned": whole.T, "again": whole}
    save_tensors(tmp_path / "a.safetensors", parts)
    assert different(parts, load_tensors(tmp_path / "a.safetensors")) == []


def test_files_of_others_have_no_checksum_and_are_accepted(tmp_path: Path):
    save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    assert read_metadata(tmp_path / "a.safetensors") == {}
    assert load_tensors(tmp_path / "a.safetensors")["w"].tolist() == [1, 1, 1]


def test_no_flipped_bit_and_no_missing_byte_loads_other_numbers(tmp_path: Path):
    whole, path = tmp_path / "whole.safetensors", tmp_path / "a.safetensors"
    save_tensors(whole, TENSORS, {"step": "12"})
    content, refused = whole.read_bytes(), 0
    for bit in range(0, 8 * len(content), 7):  # each of the eight bits in turn
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = load_tensors(path)
        except UserError:
            refused += 1
        else:  # the bit was in the name of the checksum, or in the blanks after the header
            assert different(TENSORS, found) == []
        path.unlink()
    assert refused > 0.9 * len(content)
    for size in (0, 7, 8, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="a.safetensors is corrupted .*Take another copy"):
            load_tensors(path)


@pytest.mark.parametrize("change", [{"shape": [4, 3]}, {"dtype": "I32"}, {"data_offsets": [0, 1 << 40]}])
def test_a_header_that_lies_is_refused(tmp_path: Path, change: dict[str, object]):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"w": TENSORS["model.w"]})
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["w"] |= change
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(UserError, match="a.safetensors is corrupted"):
        load_tensors(path)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_tensors(path, TENSORS, {"step": 12})  # pyright: ignore[reportArgumentType]
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == before


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="is a folder"):
        load_tensors(tmp_path)
