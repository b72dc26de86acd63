"""The record of a run's data: the same data pass wherever they lie, others do not."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from dataset.shards import write_identifiers
from utils.data_record import FILE, check_same_data, check_same_puzzles, read_sizes, same_puzzles, write_data_record
from utils.errors import UserError

SIZES = {"seq_len": 16, "vocab_size": 6, "task": "sudoku"}


def data(root: Path, *names: str, content: int = 3) -> Path:
    """A folder as far as the record reads it: without names it has no identifiers.json."""
    (root / "train").mkdir(parents=True)
    (root / "train" / "dataset.json").write_text("{}")
    np.save(root / "train" / "all__inputs.npy", np.full(5, content))
    if names:
        write_identifiers(root, ["<blank>", *names])
    return root


def test_the_record_is_readable(tmp_path: Path):
    root, bare = data(tmp_path / "data", "a", "b"), data(tmp_path / "bare")
    write_data_record(tmp_path, [root, bare], 3, SIZES)
    digest = hashlib.sha256(b'["<blank>", "a", "b"]').hexdigest()
    record = json.loads((tmp_path / FILE).read_text())
    assert record["num_puzzle_identifiers"] == 3
    assert read_sizes(tmp_path) == SIZES
    assert record["identifiers_sha256"] == {str(root): digest, str(bare): None}
    assert record["train_sha256"].keys() == record["identifiers_sha256"].keys()


def test_the_same_puzzles_pass_wherever_they_lie(tmp_path: Path):
    roots = [data(tmp_path / "one", "a"), data(tmp_path / "two", "b")]
    write_data_record(tmp_path, roots, 3, SIZES)
    copy = data(tmp_path / "copy", "b")
    for root in (*roots, copy):
        check_same_puzzles(tmp_path, root)
    assert same_puzzles(tmp_path, [roots[0], copy])
    assert not same_puzzles(tmp_path, [copy, roots[0]])  # other rows of the table
    assert not same_puzzles(tmp_path, [copy])
    assert same_puzzles(tmp_path / "one", roots) is None  # a published checkpoint has no record


@pytest.mark.parametrize("names", [("b", "a"), ("a",), ("a", "b", "c"), ()])
def test_other_puzzles_are_refused(tmp_path: Path, names: tuple[str, ...]):
    write_data_record(tmp_path, [data(tmp_path / "trained", "a", "b")], 3, SIZES)
    with pytest.raises(UserError, match=r"other: its identifiers\.json is not the one .*trained"):
        check_same_puzzles(tmp_path, data(tmp_path / "other", *names))


def test_data_without_names_fit_a_record_without_names(tmp_path: Path):
    write_data_record(tmp_path, [data(tmp_path / "trained")], 1, SIZES)
    check_same_puzzles(tmp_path, data(tmp_path / "other"))
    with pytest.raises(UserError, match="named"):
        check_same_puzzles(tmp_path, data(tmp_path / "named", "a"))


def test_a_run_does_not_go_on_with_data_built_anew(tmp_path: Path):
    root = data(tmp_path / "trained", "a")
    write_data_record(tmp_path, [root], 2, SIZES)
    assert check_same_data(tmp_path, [root])
    (root / "train" / "._all__inputs.npy").write_bytes(b"of macOS, and not data")
    assert check_same_data(tmp_path, [root])
    np.save(root / "train" / "all__inputs.npy", np.full(5, 4))
    check_same_puzzles(tmp_path, root)
    with pytest.raises(UserError, match="trained is not the data"):
        check_same_data(tmp_path, [root])


def test_data_are_compared_wherever_they_lie_and_however_their_path_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    one, two = data(Path("one"), "a"), data(Path("two"), "b", content=4)
    write_data_record(tmp_path, [one, two], 3, SIZES)
    moved = two.rename("moved")
    assert check_same_data(tmp_path, [one.resolve(), moved])
    for roots in ([moved, one], [one]):
        with pytest.raises(UserError, match=r"was trained on \[one,two\]"):
            check_same_data(tmp_path, roots)
    np.save(one / "train" / "all__inputs.npy", np.full(5, 5))
    with pytest.raises(UserError, match="one is not the data"):
        check_same_data(tmp_path, [one.resolve(), moved])


def test_published_checkpoints_have_no_record(tmp_path: Path):
    check_same_puzzles(tmp_path, tmp_path / "anything")
    assert not check_same_data(tmp_path, [tmp_path / "anything"])
    assert not same_puzzles(tmp_path, [tmp_path / "anything"])


DIGESTS = {"identifiers_sha256": {}, "train_sha256": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON .*nested too deeply"),
        ("[]", "expected an object, got list"),
        ("null", "expected an object, got NoneType"),
        ("{}", "expected (identifiers|train)_sha256, an object"),
        (json.dumps({key: ["a"] for key in DIGESTS}), "expected (identifiers|train)_sha256, an object"),
        (json.dumps({key: {"a": 1} for key in DIGESTS}), "expected (identifiers|train)_sha256, an object"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str, message: str):
    root = data(tmp_path / "data", "a")
    (tmp_path / FILE).write_text(content)
    for check in (
        lambda: check_same_puzzles(tmp_path, root),
        lambda: same_puzzles(tmp_path, [root]),
        lambda: check_same_data(tmp_path, [root]),
    ):
        with pytest.raises(UserError, match=rf"train_data\.json: {message}.*Take another copy"):
            check()


@pytest.mark.parametrize(
    "sizes", [{"seq_len": "16"}, {"seq_len": 0}, {"seq_len": True}, {"vocab_size": None}, {"task": 1}]
)
def test_a_wrong_size_in_the_record_is_named(tmp_path: Path, sizes: dict):
    (tmp_path / FILE).write_text(json.dumps({**SIZES, **sizes}))
    with pytest.raises(UserError, match=rf"train_data\.json: {next(iter(sizes))} is .*, expected a"):
        read_sizes(tmp_path)


@pytest.mark.parametrize("name", ["identifiers.json", "train/all__inputs.npy"])
def test_data_that_are_no_regular_files_are_refused_without_waiting(tmp_path: Path, name: str):
    root = data(tmp_path / "data", "a")
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(UserError, match=f"{name} is a pipe, expected a regular file"):
        write_data_record(tmp_path, [root], 2, SIZES)
