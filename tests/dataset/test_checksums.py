"""Checksums of data sets."""

import json
from pathlib import Path

import pytest

from dataset.checksums import FILE, check_checksums, write_checksums
from dataset.puzzle_dataset import PuzzleSplit
from tests.runs import write_sudoku
from utils.errors import UserError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = write_sudoku(tmp_path / "data", groups=6, tests=3)
    write_checksums(folder)
    return folder


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_token_that_changed_within_the_vocabulary_is_noticed(data: Path):
    path = data / "train" / "all__labels.npy"
    flip(path, -1)  # digits 2 and 3, or 4 and 5
    with pytest.raises(UserError, match=r"all__labels\.npy is not as it was built: .* remove .*checksums\.json"):
        PuzzleSplit([data], "train")
    PuzzleSplit([data], "test")
    PuzzleSplit([data], "train", check_tokens=False)  # on the other ranks
    (data / FILE).unlink()
    PuzzleSplit([data], "train")


@pytest.mark.parametrize("name", ["identifiers.json", "test/dataset.json"])
def test_every_file_of_a_split_is_compared(data: Path, name: str):
    path = data / name
    path.write_text(path.read_text() + " ")
    with pytest.raises(UserError, match=name):
        check_checksums(data, "test")
    if name.startswith("test"):
        check_checksums(data, "train")


def test_the_file_names_all_files_and_leaves_out_hidden_ones(data: Path):
    (data / ".DS_Store").touch()
    write_checksums(data)
    names = set(json.loads((data / FILE).read_text()))
    assert names == {
        "identifiers.json",
        *(f"{split}/dataset.json" for split in ("train", "test")),
        *(
            f"{split}/all__{name}.npy"
            for split in ("train", "test")
            for name in ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
        ),
    }


def test_a_file_without_a_checksum_is_named(data: Path):
    sums = json.loads((data / FILE).read_text())
    sums["../" * 9 + "x" * 1000] = sums.pop("train/all__labels.npy")
    (data / FILE).write_text(json.dumps(sums))
    with pytest.raises(UserError, match=r"checksums\.json has no checksum of .*/train/all__labels\.npy"):
        check_checksums(data, "train")


@pytest.mark.parametrize("content", ["[]", '{"identifiers.json": 1}', "{"])
def test_damaged_checksums_are_named(data: Path, content: str):
    (data / FILE).write_text(content)
    with pytest.raises(UserError, match=r"checksums\.json"):
        check_checksums(data, "train")
