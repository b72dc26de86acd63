from pathlib import Path

import numpy as np
import pytest
import tyro

from dataset.build_arithmetic_dataset import Config, build
from dataset.shards import load_metadata, load_shard
from dataset.tasks.arithmetic.build import _pairs
from dataset.tasks.arithmetic.rules import encode
from utils.errors import UserError

SYMBOLS = ".0123456789+="


def read(folder: str, split: str) -> list[tuple[str, str]]:
    shard = load_shard(folder, split, "all", load_metadata(folder, split))
    strings = [["".join(SYMBOLS[token] for token in row) for row in rows] for rows in (shard.inputs, shard.labels)]
    return list(zip(*strings, strict=True))


@pytest.mark.parametrize("digits", [1, 3, 9])
def test_every_row_is_a_right_addition(tmp_path: Path, digits: int):
    config = Config(output_dir=str(tmp_path / "sums"), digits=digits, train_size=40, test_size=15)
    build(config)
    pairs = {}
    for split, count in (("train", 40), ("test", 15)):
        rows = read(config.output_dir, split)
        assert len(rows) == count
        pairs[split] = set()
        for question, answer in rows:
            a, b = question[:digits], question[digits + 1 : 2 * digits + 1]
            assert question == f"{a}+{b}=" + "." * (digits + 1)
            assert answer == "." * (2 * digits + 2) + f"{int(a) + int(b):0{digits + 1}d}"
            pairs[split].add(frozenset((a, b)))
        assert len(pairs[split]) == count
        metadata = load_metadata(config.output_dir, split)
        assert (metadata.task, metadata.vocab_size, metadata.seq_len) == ("arithmetic", 13, 3 * digits + 3)
        assert (metadata.ignore_label_id, metadata.total_groups, metadata.total_puzzles) == (0, count, count)
    assert pairs["train"].isdisjoint(pairs["test"])


def test_one_digit_can_be_used_up(tmp_path: Path):
    config = Config(output_dir=str(tmp_path / "sums"), digits=1, train_size=50, test_size=5)
    build(config)
    pairs = {frozenset((q[0], q[2])) for split in ("train", "test") for q, _ in read(config.output_dir, split)}
    assert len(pairs) == 55


def test_pairs_are_numbered_without_gaps_or_rounding():
    expected = [(low, high) for high in range(60) for low in range(high + 1)]
    assert list(map(tuple, _pairs(np.arange(len(expected))).tolist())) == expected
    top = 10**9 - 1
    last = top * (top + 1) // 2
    assert _pairs(np.array([last - 1, last, last + top])).tolist() == [[top - 1, top - 1], [0, top], [top, top]]


def test_both_orders_of_operands_occur(tmp_path: Path):
    build(Config(output_dir=str(tmp_path / "sums"), digits=3, train_size=1000))
    rows = [question.split("=")[0].split("+") for question, _ in read(str(tmp_path / "sums"), "train")]
    rising = np.mean([int(a) < int(b) for a, b in rows])
    assert 0.45 < rising < 0.55


def test_an_example_token_by_token():
    inputs, labels = encode(np.array([[7, 95]]), 2)
    assert inputs.tolist() == [[1, 8, 11, 10, 6, 12, 0, 0, 0]]
    assert labels.tolist() == [[0, 0, 0, 0, 0, 0, 2, 1, 3]]


def test_builds_are_seeded(tmp_path: Path):
    def made(seed: int) -> list[tuple[str, str]]:
        build(Config(output_dir=str(tmp_path / "sums"), train_size=20, test_size=5, seed=seed, overwrite=True))
        return read(str(tmp_path / "sums"), "train")

    assert made(1) == made(1)
    assert made(1) != made(2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"digits": 0}, "--digits 0: must be at least 1"),
        ({"digits": 10}, "allowed are 1 to 9"),
        ({"digits": 1, "train_size": 50, "test_size": 6}, "55 pairs"),
        ({"train_size": 0}, "--train-size 0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, more: dict, message: str):
    with pytest.raises(UserError, match=message):
        build(Config(output_dir=str(tmp_path / "sums"), **more))


def test_existing_data_is_replaced_only_when_asked(tmp_path: Path):
    (tmp_path / "note").write_text("keep me")
    with pytest.raises(UserError, match="not empty"):
        build(Config(output_dir=str(tmp_path)))


def test_the_command_line_parses():
    line = "--output-dir out --digits 5 --train-size 9 --test-size 3 --seed 1"
    config = tyro.cli(Config, args=line.split())
    assert config == Config(output_dir="out", digits=5, train_size=9, test_size=3, seed=1)
