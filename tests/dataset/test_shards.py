"""The shard format: what is written is read back, and whatever is broken is named."""

import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from dataset.shards import (
    ARRAYS,
    build_folder,
    load_identifiers,
    load_metadata,
    load_shard,
    write_identifiers,
    write_split,
)
from dataset.tasks import load_task, task_of
from tests.dataset.small import SEQ_LEN, small_arrays, small_metadata, write_small
from tests.paths import SHARED
from utils.errors import UserError

GROUPS = [[2, 1], [3], [1, 1, 1]]  # 6 puzzles, 9 examples


def load(root: Path):
    return load_shard(root, "train", "all", load_metadata(root, "train"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_small(tmp_path / "data", GROUPS)


def change_array(root: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = root / "train" / f"all__{name}.npy"
    np.save(path, change(np.load(path)), allow_pickle=False)


def change_metadata(root: Path, **values: object) -> None:
    path = root / "train" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def put(place: Any, value: int) -> Callable[[np.ndarray], np.ndarray]:
    """A copy with one value replaced, in a type that holds it."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.int64)
        array[place] = value
        return array

    return change


def test_what_is_written_is_read_back(root: Path):
    shard = load(root)
    for name, array in small_arrays(GROUPS).items():
        found = getattr(shard, name)
        assert np.array_equal(found, array)
        assert found.dtype == (np.uint8 if name in ("inputs", "labels") else np.int32)
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
    assert load_metadata(root, "train") == small_metadata(GROUPS)
    assert load_identifiers(root) == ["<blank>", *(f"p{i}" for i in range(1, 7))]


def test_metadata_has_the_published_keys_in_their_order(root: Path):
    keys = list(json.loads((root / "train" / "dataset.json").read_text()))
    assert keys == [
        *("pad_id", "ignore_label_id", "blank_identifier_id", "vocab_size", "seq_len", "num_puzzle_identifiers"),
        *("total_groups", "mean_puzzle_examples", "total_puzzles", "sets"),
    ]


def test_the_task_is_written_where_it_is_known(tmp_path: Path):
    write_small(tmp_path, GROUPS, task="maze")
    assert load_metadata(tmp_path, "train").task == "maze"


def test_older_metadata_lacks_total_puzzles(root: Path):
    path = root / "train" / "dataset.json"
    values = json.loads(path.read_text())
    del values["total_puzzles"]
    path.write_text(json.dumps(values | {"a_key_of_theirs": 1}))
    assert load_metadata(root, "train").total_puzzles is None
    assert len(load(root).puzzle_identifiers) == 6
    assert TrainBatches(PuzzleSplit([root], "train"), 2, seed=0)[1]["inputs"].shape == (2, SEQ_LEN)


def test_sets_are_files_of_their_own(tmp_path: Path):
    write_small(tmp_path, GROUPS, sets=["easy", "hard"])
    assert (tmp_path / "train" / "hard__inputs.npy").exists()
    assert [shard.name for shard in PuzzleSplit([tmp_path], "train").sources[0].shards] == ["easy", "hard"]


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_file_is_named(root: Path, name: str):
    (root / "train" / f"all__{name}.npy").unlink()
    with pytest.raises(UserError, match=rf"all__{name}\.npy is missing"):
        load(root)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("kept", [slice(0, 0), slice(0, 40), slice(0, -3)], ids=["empty", "header", "data"])
def test_a_truncated_file_is_named(root: Path, name: str, kept: slice):
    path = root / "train" / f"all__{name}.npy"
    path.write_bytes(path.read_bytes()[kept])
    with pytest.raises(UserError, match=rf"all__{name}\.npy is truncated or no \.npy file"):
        load(root)


def test_other_files_under_the_name_are_refused(root: Path):
    path = root / "train" / "all__inputs.npy"
    for content in (b"inputs", pickle.dumps([1]), b"\x93NUMPY\x09"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"all__inputs\.npy"):
            load(root)
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"all__inputs\.npy"):
        load(root)


def header(shape: str = "(9, 4)", descr: str = "'|u1'", more: str = "") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, {more}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")


@pytest.mark.parametrize(
    "start",
    [
        header(shape="(3000000000, 4)"),
        header(shape="(4611686018427387904, 4)"),
        header(shape="(99999999999999999999999, 4)"),
        header(shape="(-9, 4)"),
        header(shape="(9, '4')"),
        header(shape="(9, 4))"),
        header(shape="(" * 100),
        header(descr="'|u1"),
        header(descr="'|u99999999999999'"),
        header(descr="[('a', '|u1', (99999999999,))]"),
        header(descr="'|O'"),
        header(more="\x00"),
        header(more="  \n\t 1"),
        header(more="f(): 0"),
    ],
)
def test_a_damaged_header_is_named_and_takes_no_memory(root: Path, start: bytes):
    path = root / "train" / "all__inputs.npy"
    path.write_bytes(start + bytes(36))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"all__inputs\.npy is truncated or no \.npy file"):
            load(root)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_header_with_any_byte_flipped_ends_in_a_message_at_most(root: Path):
    path = root / "train" / "all__inputs.npy"
    whole = path.read_bytes()
    refused = 0
    for place in range(128):
        for value in (0, ord("("), ord("9"), whole[place] ^ 0x80):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                load(root)
            except UserError as error:
                refused += 1
                assert str(path) in str(error)  # noqa: PT017
    assert refused > 200


@pytest.mark.parametrize("name", ["train/all__labels.npy", "train/dataset.json", "identifiers.json"])
def test_what_is_no_regular_file_is_refused_without_waiting(root: Path, name: str):
    (root / name).unlink()
    (root / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is a folder, expected a regular file. Build the data set again"):
        PuzzleSplit([root], "train")
    (root / name).rmdir()
    os.mkfifo(root / name)
    with pytest.raises(UserError, match=f"{name} is a pipe, expected a regular file. Build the data set again"):
        PuzzleSplit([root], "train")


def test_an_archive_under_the_name_of_an_array_is_refused(root: Path):
    with (root / "train" / "all__inputs.npy").open("wb") as file:
        np.savez(file, inputs=np.zeros((9, SEQ_LEN), np.uint8))
    with pytest.raises(UserError, match=r"all__inputs\.npy"):
        load(root)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("inputs", lambda x: x[:, :3], f"rows of 3 tokens, dataset.json says seq_len {SEQ_LEN}"),
        ("labels", lambda x: x[:, :3], f"rows of 3 tokens, dataset.json says seq_len {SEQ_LEN}"),
        ("inputs", lambda x: x[0], "expected whole numbers with 2 axes"),
        ("inputs", lambda x: x.astype(float), "float64"),
        ("labels", lambda x: x[:-1], "8 rows for 9 inputs"),
        ("puzzle_identifiers", lambda x: x[:, None], "expected whole numbers with 1 axes"),
        ("puzzle_indices", put(0, 1), "must rise from 0 to the number of examples, 9"),
        ("puzzle_indices", put(-1, 8), "must rise from 0 to the number of examples, 9"),
        ("puzzle_indices", put(2, 9), "must rise from 0 to the number of examples, 9"),
        ("puzzle_indices", lambda x: x[:0], "must rise from 0 to the number of examples, 9"),
        ("puzzle_indices", lambda x: np.delete(x, 2), "6 puzzles need one offset more than that"),
        ("group_indices", put(0, 1), "must rise from 0 to the number of puzzles, 6"),
        ("group_indices", put(-1, 7), "must rise from 0 to the number of puzzles, 6"),
        ("group_indices", put(1, 5), "must rise from 0 to the number of puzzles, 6"),
        ("inputs", put((3, 1), 10), r"tokens 0\.\.10 out of the vocabulary 0\.\.9"),
        ("inputs", put((3, 1), -100), r"tokens -100\.\.\d out of the vocabulary 0\.\.9"),
        ("labels", put((8, 3), 12), r"tokens 0\.\.12 out of the vocabulary 0\.\.9"),
        ("labels", put((8, 3), -101), "tokens -101"),
        ("puzzle_identifiers", put(2, 7), r"ids 1\.\.7, dataset\.json allows 0\.\.6"),
        ("puzzle_identifiers", put(2, -1), r"ids -1\.\.6, dataset\.json allows 0\.\.6"),
    ],
)
def test_what_does_not_fit_is_named(root: Path, name: str, change: Callable, message: str):
    change_array(root, name, change)
    with pytest.raises(UserError, match=rf"all__{name}\.npy: .*({message})"):
        load(root)


def test_the_tokens_alone_are_left_to_another_process(root: Path):
    metadata = load_metadata(root, "train")
    change_array(root, "inputs", put((3, 1), 10))
    load_shard(root, "train", "all", metadata, check_tokens=False)
    PuzzleSplit([root], "train", check_tokens=False)
    with pytest.raises(UserError, match="out of the vocabulary"):
        PuzzleSplit([root], "train")
    change_array(root, "puzzle_identifiers", put(2, 7))
    with pytest.raises(UserError, match=r"ids 1\.\.7"):
        load_shard(root, "train", "all", metadata, check_tokens=False)


@pytest.mark.parametrize("name", ["puzzle_indices", "group_indices"])
def test_offsets_without_a_sign_are_checked_too(root: Path, name: str):
    change_array(root, name, lambda x: put(1, x[-1])(x).astype(np.uint32))
    with pytest.raises(UserError, match=rf"all__{name}\.npy: must rise"):
        load(root)


def test_of_the_negative_labels_only_the_ignored_one_is_allowed(root: Path):
    change_array(root, "labels", put((0, 0), -100))
    load(root)
    change_array(root, "labels", put((0, 0), -5))
    with pytest.raises(UserError, match=r"all__labels\.npy: tokens -5"):
        load(root)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"pad_id": 0}'],
    ids=["empty", "cut", "list", "no-text", "keys-missing"],
)
def test_a_malformed_dataset_json_is_named(root: Path, content: bytes):
    (root / "train" / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=r"dataset\.json is not a dataset\.json"):
        load_metadata(root, "train")


@pytest.mark.parametrize(
    "values",
    [
        *({"vocab_size": "ten"}, {"seq_len": None}, {"sets": "all"}, {"task": "chess"}, {"mean_puzzle_examples": []}),
        *({"mean_puzzle_examples": "1.5"}, {"mean_puzzle_examples": float("nan")}, {"total_groups": True}),
        *({"mean_puzzle_examples": float("inf")}, {"total_groups": "3"}, {"sets": ["all", "all"]}),
    ],
)
def test_a_wrong_value_in_dataset_json_is_named(root: Path, values: dict):
    change_metadata(root, **values)
    with pytest.raises(UserError, match=next(iter(values))):
        load_metadata(root, "train")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("mean_puzzle_examples", value) for value in (0.0, 1.4999, 7.5, 1e300, -1.5)),
        *(("total_groups", value) for value in (4, 15, 10**30)),
    ],
)
def test_a_length_in_dataset_json_that_is_not_that_of_the_shards_is_refused(root: Path, key: str, value: float):
    change_metadata(root, **{key: value})
    with pytest.raises(UserError, match=r"dataset\.json: total_groups .* the shards hold 3 groups with a mean of 1\.5"):
        _ = PuzzleSplit([root], "train").examples_per_epoch


def test_a_length_that_was_rounded_is_used_as_recorded(root: Path):
    change_metadata(root, mean_puzzle_examples=1.500001)
    assert PuzzleSplit([root], "train").examples_per_epoch == 3 * 1.500001


def test_the_length_of_several_sets_is_that_of_all_their_groups(tmp_path: Path):
    root = write_small(tmp_path, GROUPS, sets=["one", "two"], total_groups=6)
    assert PuzzleSplit([root], "train").examples_per_epoch == 6 * 1.5
    change_metadata(root, total_groups=7)
    with pytest.raises(UserError, match="the shards hold 6 groups"):
        _ = PuzzleSplit([root], "train").examples_per_epoch


@pytest.mark.parametrize("values", [{"sets": []}, {"num_puzzle_identifiers": 0}])
def test_values_with_which_there_is_no_data_are_refused(root: Path, values: dict):
    change_metadata(root, **values)
    with pytest.raises(UserError, match=str(root)):
        TrainBatches(PuzzleSplit([root], "train"), 2, seed=0)


@pytest.mark.parametrize("name", ["../train/all", "/tmp/all", "a/b", "", ".."])
def test_a_set_that_would_lie_elsewhere_is_refused(root: Path, name: str):
    change_metadata(root, sets=["all", name])
    with pytest.raises(UserError, match=rf"dataset\.json: sets: '{name}' becomes the name of a file"):
        PuzzleSplit([root], "train")


def test_a_folder_without_the_split_is_named_with_the_commands_that_build_one(root: Path):
    with pytest.raises(UserError, match=r"(?s)not a data set with a 'test' split.*build_sudoku_dataset"):
        load_metadata(root, "test")


def test_a_file_in_place_of_the_folder_is_refused(root: Path):
    with pytest.raises(UserError, match=r"identifiers\.json"):
        load_metadata(root / "identifiers.json", "train")


def test_identifiers_may_be_absent_but_not_broken(root: Path):
    path = root / "identifiers.json"
    for content in ("", "{", "{}", "[1]", "null", "[NaN]", "[" * 100_000, "\xff"):
        path.write_text(content, encoding="latin1")
        with pytest.raises(UserError, match=r"identifiers\.json"):
            load_identifiers(root)
        with pytest.raises(UserError, match=r"identifiers\.json"):
            PuzzleSplit([root], "train")
    path.unlink()
    assert load_identifiers(root) is None


def test_writing_refuses_other_arrays_and_names(tmp_path: Path):
    arrays = small_arrays(GROUPS)
    del arrays["labels"]
    with pytest.raises(ValueError, match="expected exactly"):
        write_split(tmp_path, arrays, small_metadata(GROUPS))
    for names in ([], ["p1", "<blank>"]):
        with pytest.raises(ValueError, match="must start with '<blank>'"):
            write_identifiers(tmp_path, names)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "checksums.json"}


def test_a_build_appears_when_it_is_complete(tmp_path: Path):
    target = tmp_path / "a" / "data"
    with build_folder(target) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert files(tmp_path) == {"a", "a/data", "a/data/file"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupted_build_leaves_nothing_behind(tmp_path: Path, error: type[BaseException], exists: bool):
    target = tmp_path / "data"
    if exists:
        target.mkdir()
        (target / "identifiers.json").write_text("old")
    before = files(tmp_path)

    def build() -> None:
        with build_folder(target, overwrite=exists) as folder:
            (folder / "half").write_text("x")
            raise error

    with pytest.raises(error):
        build()
    assert files(tmp_path) == before


def test_a_build_does_not_overwrite_unless_asked(tmp_path: Path):
    target = tmp_path / "data"
    target.mkdir()
    with build_folder(target) as folder:  # an empty folder is free
        (folder / "identifiers.json").touch()
    with pytest.raises(UserError, match="exists and is not empty.*--overwrite"), build_folder(target):
        pass
    with pytest.raises(UserError, match="exists"), build_folder(target / "identifiers.json"):
        pass
    assert files(tmp_path) == {"data", "data/identifiers.json"}
    with build_folder(target, overwrite=True) as folder:
        (folder / "second").touch()
    assert files(tmp_path) == {"data", "data/second"}


@pytest.mark.parametrize("mark", ["identifiers.json", "train/dataset.json", "test/dataset.json"])
def test_only_data_sets_are_overwritten(tmp_path: Path, mark: str):
    target = tmp_path / "home"
    (target / mark).parent.mkdir(parents=True)
    (target / "thesis.tex").touch()
    before = files(tmp_path)
    for given in (target, target / "thesis.tex"):
        refusal = pytest.raises(UserError, match=f"--overwrite: {given} does not look like a data set")
        with refusal, build_folder(given, overwrite=True):
            pass
        assert files(tmp_path) == before
    (target / mark).touch()
    with build_folder(target, overwrite=True) as folder:
        (folder / "new").touch()
    assert files(tmp_path) == {"home", "home/new"}


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ({"seq_len": 81, "vocab_size": 11}, "sudoku"),
        ({"seq_len": 900, "vocab_size": 6}, "maze"),
        ({"seq_len": 900, "vocab_size": 12}, "arc"),
        ({"seq_len": 900, "vocab_size": 6, "task": "sudoku"}, "sudoku"),
        ({"seq_len": 900, "vocab_size": 11}, None),
        ({"task": "arithmetic"}, "arithmetic"),
        ({}, None),
    ],
)
def test_the_task_is_recorded_or_told_by_the_published_shapes(values: dict, task: str | None):
    found = task_of(small_metadata(GROUPS, **values))
    assert (None if found is None else found.name) == task


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data")
@pytest.mark.parametrize("split", ["train", "test"])
def test_published_mazes_load(split: str):
    source = PuzzleSplit([SHARED / "data" / "maze-30x30-hard-1k"], split).sources[0]
    (shard,) = source.shards
    assert task_of(source.metadata) is load_task("maze")
    assert len(shard.inputs) == len(shard.labels) == 1000
    # one S and one G in each; the labels add a path and change nothing else
    assert (np.sort(shard.inputs, axis=1)[:, -2:] == [3, 4]).all()
    assert np.array_equal(np.where(shard.labels == 5, 2, shard.labels), shard.inputs)
