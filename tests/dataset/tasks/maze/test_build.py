from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from dataset.build_maze_dataset import Config, build
from dataset.shards import Shard, load_identifiers, load_metadata, load_shard
from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.paths import label_mazes, path_lengths
from dataset.tasks.maze.rules import CHARACTERS, PATH
from dataset.tasks.maze.symmetries import maze_keys
from tests.dataset.tasks.maze.plain_bfs import plain_label
from tests.paths import SHARED
from utils.errors import UserError

HARD = SHARED / "data" / "maze-30x30-hard-1k"
HEADER = "source,question,answer,rating"


def loaded(folder: Path | str, split: str) -> Shard:
    return load_shard(folder, split, "all", load_metadata(folder, split))


def text(tokens: np.ndarray) -> str:
    return "".join(CHARACTERS[token - 1] for token in tokens.ravel())


def write_csv(folder: Path, split: str, mazes: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    rows = [f"made,{text(maze)},{text(label)},0" for maze, label in zip(mazes, labels, strict=True)]
    (folder / f"{split}.csv").write_text("\n".join([HEADER, *rows]) + "\n")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of 7x7 mazes, 9 to train and 4 to test."""
    mazes = np.array(list(generate_mazes(13, 7, 7, np.random.default_rng(0))))
    labels = label_mazes(mazes)
    write_csv(tmp_path / "source", "train", mazes[4:], labels[4:])
    write_csv(tmp_path / "source", "test", mazes[:4], labels[:4])
    return tmp_path / "source"


def options(tmp_path: Path, source: Path, /, **more) -> Config:
    fields: dict[str, Any] = {"source": str(source), "height": 7, "width": 7}
    return Config(output_dir=str(tmp_path / "built"), **(fields | more))


def check_every_row(folder: str, height: int, width: int) -> int:
    rows = 0
    for split in ("train", "test"):
        shard = loaded(folder, split)
        for maze, label in zip(shard.inputs, shard.labels, strict=True):
            plain = plain_label(maze.reshape(height, width))
            assert plain is not None
            assert np.array_equal(label, plain.ravel())
            rows += 1
    return rows


@pytest.mark.thorough
@pytest.mark.skipif(not HARD.exists(), reason="needs the shared data")
def test_the_published_data_set_is_rebuilt_and_every_augmented_row_is_right(tmp_path: Path):
    published = {split: loaded(HARD, split) for split in ("train", "test")}
    for split, shard in published.items():
        write_csv(tmp_path / "source", split, shard.inputs[:60], shard.labels[:60])
    config = options(tmp_path, tmp_path / "source", height=30, width=30, aug=True)
    build(config)
    assert check_every_row(config.output_dir, 30, 30) == 60 * 8 + 60
    built = loaded(config.output_dir, "train")
    for name in ("inputs", "labels"):
        assert np.array_equal(getattr(built, name)[::8], getattr(published["train"], name)[:60])
        test = loaded(config.output_dir, "test")
        assert np.array_equal(getattr(test, name), getattr(published["test"], name)[:60])


@pytest.mark.parametrize(("height", "width", "images"), [(6, 6, 8), (5, 9, 4)])
def test_every_row_of_augmented_generated_mazes_is_right(tmp_path: Path, height: int, width: int, images: int):
    config = Config(
        output_dir=str(tmp_path / "made"), generate=20, test_size=7, height=height, width=width, min_path=6, aug=True
    )
    build(config)
    assert check_every_row(config.output_dir, height, width) <= 20 * images + 7
    train, test = (loaded(config.output_dir, split) for split in ("train", "test"))
    assert path_lengths(train.inputs.reshape(-1, height, width)).min() >= 6
    keys = maze_keys(train.inputs.reshape(-1, height, width))
    assert len(set(keys)) == 20
    assert set(keys).isdisjoint(maze_keys(test.inputs.reshape(-1, height, width)))
    for start, end in zip(train.group_indices[:-1], train.group_indices[1:], strict=True):
        assert len(set(keys[start:end])) == 1
        assert len({maze.tobytes() for maze in train.inputs[start:end]}) == end - start


def test_images_of_a_symmetric_maze_are_not_repeated(tmp_path: Path):
    symmetric = np.array([[2, 2, 2, 2, 2], [2, 2, 2, 2, 2], [3, 2, 2, 2, 4], [2, 2, 2, 2, 2], [2, 2, 2, 2, 2]])[None]
    other = np.array(list(generate_mazes(1, 5, 5, np.random.default_rng(0))))
    write_csv(tmp_path / "source", "train", symmetric, label_mazes(symmetric))
    write_csv(tmp_path / "source", "test", other, label_mazes(other))
    build(options(tmp_path, tmp_path / "source", height=5, width=5, aug=True))
    assert loaded(tmp_path / "built", "train").group_indices.tolist() == [0, 4]


def test_the_published_layout(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]):
    build(options(tmp_path, source))
    assert "9 training mazes (9 with turned and flipped copies), 4 test mazes" in capsys.readouterr().out
    assert load_identifiers(tmp_path / "built") == ["<blank>"]
    metadata = load_metadata(tmp_path / "built", "train")
    assert metadata.model_dump() == {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": 6,
        "seq_len": 49,
        "num_puzzle_identifiers": 1,
        "total_groups": 9,
        "mean_puzzle_examples": 1.0,
        "total_puzzles": 9,
        "sets": ["all"],
        "task": "maze",
    }
    rows = [line.split(",") for line in (source / "train.csv").read_text().splitlines()[1:]]
    shard = loaded(tmp_path / "built", "train")
    assert [text(maze) for maze in shard.inputs] == [row[1] for row in rows]
    assert [text(label) for label in shard.labels] == [row[2] for row in rows]


def test_turned_test_mazes_are_dropped_from_training(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]):
    mazes = np.array(list(generate_mazes(5, 7, 7, np.random.default_rng(1))))
    leaks = np.array([np.rot90(mazes[0]), mazes[1].T, np.fliplr(mazes[2])])
    train = np.concatenate([leaks, mazes[3:]])
    write_csv(source, "train", train, label_mazes(train))
    write_csv(source, "test", mazes[:3], label_mazes(mazes[:3]))
    build(options(tmp_path, source))
    assert "3 training candidates equivalent to a test maze dropped" in capsys.readouterr().out
    assert np.array_equal(loaded(tmp_path / "built", "train").inputs, mazes[3:].reshape(2, -1))


def test_another_shortest_path_is_kept_as_published(tmp_path: Path, source: Path):
    maze = np.full((1, 7, 7), 2)
    maze[0, 1, 1], maze[0, 4, 4] = 3, 4
    answer = maze.copy()
    answer[0, 1, 2:5] = answer[0, 2:4, 4] = PATH  # right first: the labeller goes down first
    assert not np.array_equal(answer, label_mazes(maze))
    write_csv(source, "train", maze, answer)
    build(options(tmp_path, source, aug=True))
    shard = loaded(tmp_path / "built", "train")
    assert np.array_equal(shard.labels[0], answer.ravel())
    assert np.array_equal(shard.labels[1:], label_mazes(shard.inputs[1:].reshape(-1, 7, 7)).reshape(-1, 49))


def test_subsamples_are_seeded(tmp_path: Path, source: Path):
    def sample(**more) -> list[bytes]:
        build(options(tmp_path, source, overwrite=True, subsample_size=5, **more))
        shard = loaded(tmp_path / "built", "train")
        return [row.tobytes() for row in shard.inputs[shard.group_indices[:-1]]]

    first = sample()
    assert len(set(first)) == 5
    assert sample() == first
    assert sample(aug=True) == first
    assert sample(seed=1) != first


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("S G" + " " * 21, "SoG" + " " * 21, "question of 24 characters, expected 25.*--height and --width"),
        ("SxG" + " " * 22, "SoG" + " " * 22, "a question holds only"),
        ("SoG" + " " * 22, "SoG" + " " * 22, "a question holds only"),
        ("S G" + " " * 22, "S.G" + " " * 22, "an answer holds only"),
        ("S S" + " " * 22, "SoS" + " " * 22, "a question has one S"),
        ("S  " + " " * 22, "So " + " " * 22, "a question has one G"),
        ("S#G" + " " * 22, "SoG" + " " * 22, "differs from the question"),
        ("S G" + " " * 22, "S#G" + " " * 22, "differs from the question"),
        ("S G" + " " * 22, "S G" + " " * 22, "no path from S to G"),
        ("S#G##" + "#" * 20, "S#G##" + "#" * 20, "no path leads from S to G.*Its question is 'S#G###"),
        ("S GS " + " " * 20, "SoGS " + " " * 20, "this one has several.*Its question is 'S GS  "),
        ("S G" + " " * 22, "SoG" + " " * 21 + "o", "no path from S to G"),
        ("S G  " + " " * 20, "S G  " + "ooo  " + " " * 15, "not a shortest one"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, question: str, answer: str, message: str):
    good = np.array(list(generate_mazes(2, 5, 5, np.random.default_rng(0))))
    write_csv(tmp_path / "source", "train", good, label_mazes(good))
    write_csv(tmp_path / "source", "test", good, label_mazes(good))
    with (tmp_path / "source" / "train.csv").open("a") as file:
        file.write(f"made,{question},{answer},0\n")
    with pytest.raises(UserError, match=rf"train\.csv line 4: .*{message}"):
        build(options(tmp_path, tmp_path / "source", height=5, width=5))
    assert not (tmp_path / "built").exists()


def test_mazes_without_an_answer_are_tested_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = np.array(list(generate_mazes(4, 5, 5, np.random.default_rng(0))))
    write_csv(tmp_path / "source", "train", good, label_mazes(good))
    closed, free = "S#G##" + "#" * 20, " S" + " " * 22 + "G"
    # the space after each comma is not part of the maze
    (tmp_path / "source" / "test.csv").write_text(f"answer, question\n, {closed}\n, {free}\n")
    build(options(tmp_path, tmp_path / "source", height=5, width=5))
    printed = capsys.readouterr()
    assert "2 of 2 test puzzles have no answer; they are predicted, but not scored" in printed.err
    assert "WARNING: 1 of 2 test mazes have no path" in printed.err
    assert "and an unknown number of moves" in printed.out
    test = loaded(tmp_path / "built", "test")
    assert not test.labels.any()
    assert ["".join(CHARACTERS[token - 1] for token in row) for row in test.inputs] == [closed, free]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"height": 4}, "--height 4: must be at least 5"),
        ({"height": 5, "width": 20}, "as many as in a square"),
        ({"generate": 0}, "--generate 0"),
        ({"subsample_size": 0}, "--subsample-size 0"),
        ({"generate": 3, "min_path": 1, "source": Config().source}, "--min-path 1"),
        ({"generate": 3}, "--source .*: not with --generate"),
        ({"min_path": 20}, "--min-path 20: only with --generate"),
        ({"source": "nowhere"}, "neither a folder nor"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, source: Path, more: dict, message: str):
    with pytest.raises(UserError, match=message):
        build(options(tmp_path, source, **more))


def test_existing_data_is_replaced_only_when_asked(tmp_path: Path, source: Path):
    build(options(tmp_path, source))
    with pytest.raises(UserError, match="not empty"):
        build(options(tmp_path, source))
    build(options(tmp_path, source, overwrite=True))


def test_published_command_lines_parse():
    config = tyro.cli(Config, args=[])
    assert (config.output_dir, config.source) == ("data/maze-30x30-hard-1k", "sapientinc/maze-30x30-hard-1k")
    config = tyro.cli(Config, args=["--output-dir", "out", "--subsample-size", "10", "--aug"])
    assert config == Config(output_dir="out", subsample_size=10, aug=True)
