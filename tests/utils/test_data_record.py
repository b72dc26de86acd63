"""The record of a checkpoint's puzzles: the same data pass wherever they lie, others do not."""

import hashlib
import json
from pathlib import Path

import pytest

from dataset.shards import write_identifiers
from utils.data_record import FILE, check_data_record, write_data_record
from utils.errors import UserError


def data(root: Path, *names: str) -> Path:
    root.mkdir()
    write_identifiers(root, ["<blank>", *names])
    return root


def test_the_record_is_readable(tmp_path: Path):
    root, bare = data(tmp_path / "data", "a", "b"), tmp_path / "bare"
    write_data_record(tmp_path, [root, bare], 3)
    digest = hashlib.sha256(b'["<blank>", "a", "b"]').hexdigest()
    assert json.loads((tmp_path / FILE).read_text()) == {
        "num_puzzle_identifiers": 3,
        "identifiers_sha256": {str(root): digest, str(bare): None},
    }


def test_the_same_puzzles_pass_wherever_they_lie(tmp_path: Path):
    roots = [data(tmp_path / "one", "a"), data(tmp_path / "two", "b")]
    write_data_record(tmp_path, roots, 3)
    for root in (*roots, data(tmp_path / "copy", "b")):
        check_data_record(tmp_path, root)


@pytest.mark.parametrize("names", [("b", "a"), ("a",), ("a", "b", "c"), ()])
def test_other_puzzles_are_refused(tmp_path: Path, names: tuple[str, ...]):
    write_data_record(tmp_path, [data(tmp_path / "trained", "a", "b")], 3)
    with pytest.raises(UserError, match=r"other: its identifiers\.json is not the one .*trained"):
        check_data_record(tmp_path, data(tmp_path / "other", *names))
    (tmp_path / "nameless").mkdir()
    with pytest.raises(UserError, match="nameless"):
        check_data_record(tmp_path, tmp_path / "nameless")


def test_data_without_names_fit_a_record_without_names(tmp_path: Path):
    write_data_record(tmp_path, [tmp_path / "trained"], 1)
    check_data_record(tmp_path, tmp_path / "other")
    with pytest.raises(UserError, match="named"):
        check_data_record(tmp_path, data(tmp_path / "named", "a"))


def test_published_checkpoints_have_no_record(tmp_path: Path):
    check_data_record(tmp_path, tmp_path / "anything")
