import runpy
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
from pydantic import ValidationError

from dataset import build_sudoku_dataset
from dataset.build_sudoku_dataset import Config, build
from dataset.shards import Shard, load_identifiers, load_metadata, load_shard
from dataset.tasks.sudoku.equivalence import canonical_keys
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import BOXES, TOKEN_OFFSET, Box
from dataset.tasks.sudoku.solver import solutions
from tests.dataset.tasks.sudoku.exact_cover import exact_solutions
from tests.dataset.tasks.sudoku.symmetries import exchanges
from tests.paths import SHARED
from utils.errors import UserError

REAL = SHARED / "data" / "sudoku-extreme-like"
SMALL, MIDDLE, LARGE = BOXES
PUBLISHED = Config().source
HEADER = "source,question,answer,rating"


def loaded(folder: Path | str, split: str) -> Shard:
    return load_shard(folder, split, "all", load_metadata(folder, split))


def text(board: np.ndarray) -> str:
    return "".join(str(value) for value in board).replace("0", ".")


def write_csv(folder: Path, split: str, rows: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def csv_rows(boards: list[tuple[np.ndarray, np.ndarray]]) -> list[str]:
    return [f"made,{text(puzzle)},{text(solution)},{rating}" for rating, (puzzle, solution) in enumerate(boards)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of 6x6 puzzles, 12 to train and 5 to test, rated from 0 up."""
    boards = list(generate_puzzles(17, MIDDLE, np.random.default_rng(0)))
    write_csv(tmp_path / "source", "train", csv_rows(boards[5:]))
    write_csv(tmp_path / "source", "test", csv_rows(boards[:5]))
    return tmp_path / "source"


def options(tmp_path: Path, source: Path, /, **more) -> Config:
    fields: dict[str, Any] = {"source": str(source), "box": "2x3"}
    return Config(output_dir=str(tmp_path / "built"), **(fields | more))


def check_every_row(folder: str, box: Box, exact_cover: bool) -> int:
    rows = 0
    for split in ("train", "test"):
        shard = loaded(folder, split)
        for tokens, answer in zip(shard.inputs, shard.labels, strict=True):
            puzzle, solution = tokens - TOKEN_OFFSET, answer - TOKEN_OFFSET
            solver = exact_solutions if exact_cover else solutions
            assert [list(found) for found in islice(solver(puzzle, box), 2)] == [solution.tolist()]
            rows += 1
    return rows


@pytest.mark.thorough
@pytest.mark.skipif(not REAL.exists(), reason="needs the shared data")
def test_every_row_of_augmented_real_puzzles_is_right(tmp_path: Path):
    for split in ("train", "test"):
        lines = (REAL / f"{split}.csv").read_text().splitlines()
        write_csv(tmp_path / "source", split, lines[1 :: len(lines) // 12])
    config = options(tmp_path, tmp_path / "source", box="3x3", num_aug=4)
    build(config)
    assert check_every_row(config.output_dir, LARGE, exact_cover=False) >= 5 * 12 + 12


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_every_row_of_augmented_generated_puzzles_is_right(tmp_path: Path, box: Box):
    num_aug = 3 if box == LARGE else 7
    config = Config(output_dir=str(tmp_path / "made"), generate=6, test_size=4, num_aug=num_aug, box=str(box))
    build(config)
    assert check_every_row(config.output_dir, box, exact_cover=True) == 6 * (1 + num_aug) + 4
    keys = {
        split: set(canonical_keys(loaded(config.output_dir, split).inputs - TOKEN_OFFSET, box))
        for split in ("train", "test")
    }
    assert (len(keys["train"]), len(keys["test"])) == (6, 4)
    assert keys["train"].isdisjoint(keys["test"])


def test_the_published_layout(tmp_path: Path, source: Path):
    build(options(tmp_path, source, num_aug=3))
    assert load_identifiers(tmp_path / "built") == ["<blank>"]
    metadata = load_metadata(tmp_path / "built", "train")
    assert metadata.model_dump() == {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": 8,
        "seq_len": 36,
        "num_puzzle_identifiers": 1,
        "total_groups": 12,
        "mean_puzzle_examples": 1.0,
        "total_puzzles": 48,
        "sets": ["all"],
        "task": "sudoku",
    }
    train, test = loaded(tmp_path / "built", "train"), loaded(tmp_path / "built", "test")
    assert train.group_indices.tolist() == list(range(0, 49, 4))
    assert train.puzzle_indices.tolist() == list(range(49))
    assert test.group_indices.tolist() == test.puzzle_indices.tolist() == list(range(6))
    assert not train.puzzle_identifiers.any()
    for shard, split, stride in ((train, "train", 4), (test, "test", 1)):
        rows = [line.split(",") for line in (source / f"{split}.csv").read_text().splitlines()[1:]]
        for name, column in (("inputs", 1), ("labels", 2)):
            stored = [text(tokens - TOKEN_OFFSET) for tokens in getattr(shard, name)[::stride]]
            assert stored == [row[column] for row in rows]  # the puzzle itself is the first of its group
    keys = canonical_keys(train.inputs - TOKEN_OFFSET, MIDDLE)
    assert all(len(set(keys[group : group + 4])) == 1 for group in range(0, 48, 4))
    assert len({tokens.tobytes() for tokens in train.inputs}) == 48


def test_training_puzzles_equivalent_to_a_test_puzzle_are_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    boards = list(generate_puzzles(6, MIDDLE, np.random.default_rng(0)))
    leaks = [tuple(exchanges(part, MIDDLE)[i] for part in boards[0]) for i in (0, 1, 7, 12)]
    write_csv(tmp_path / "source", "train", csv_rows([*leaks, *boards[2:]]))  # pyright: ignore[reportArgumentType]
    write_csv(tmp_path / "source", "test", csv_rows(boards[:2]))
    build(options(tmp_path, tmp_path / "source"))
    assert "4 training candidates equivalent to a test puzzle dropped" in capsys.readouterr().out
    stored = [tokens.tobytes() for tokens in loaded(tmp_path / "built", "train").inputs - TOKEN_OFFSET]
    assert stored == [puzzle.tobytes() for puzzle, _ in boards[2:]]


def test_only_a_source_without_leaks_makes_a_training_set(tmp_path: Path, source: Path):
    (source / "train.csv").write_text((source / "test.csv").read_text())
    with pytest.raises(UserError, match="equivalent to a test puzzle"):
        build(options(tmp_path, source))


def test_subsamples_are_seeded(tmp_path: Path, source: Path):
    def sample(**more) -> tuple[list[bytes], list[bytes]]:
        build(options(tmp_path, source, overwrite=True, subsample_size=6, test_subsample_size=3, **more))
        shards = (loaded(tmp_path / "built", split) for split in ("train", "test"))
        train, test = ([row.tobytes() for row in shard.inputs[shard.group_indices[:-1]]] for shard in shards)
        return train, test

    train, test = first = sample()
    assert (len(set(train)), len(set(test))) == (6, 3)
    assert sample() == first
    assert sample(num_aug=2) == first  # augmenting does not choose other puzzles
    assert sample(seed=1) != first


def test_difficulty_selects_rows(tmp_path: Path, source: Path):
    build(options(tmp_path, source, min_difficulty=3))
    assert [len(loaded(tmp_path / "built", split).inputs) for split in ("train", "test")] == [9, 2]
    with pytest.raises(UserError, match="rating of 12 or more"):
        build(options(tmp_path, source, min_difficulty=12, overwrite=True))


def edited(row: int, column: int, value: str):
    def edit(lines: list[str]) -> None:
        cells = lines[row].split(",")
        cells[column] = value if len(value) != 1 else value + cells[column][1:]
        lines[row] = ",".join(cells)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            edited(0, 1, "puzzle"),
            "no column 'question'.*names source,puzzle,answer.*Expected the header source,question,answer,rating",
        ),
        (lambda lines: lines.__setitem__(0, "question;answer"), "Is it separated by ';'. Commas are expected"),
        (lambda lines: lines.__setitem__(0, "source\tquestion"), r"Is it separated by '\\t'. Commas are expected"),
        (lambda lines: lines.__setitem__(0, "question,answer,rating,Question"), "the column 'question' more than once"),
        (lambda lines: lines.__setitem__(0, "source,question,answer,stars"), "no column 'rating', which --min-diff"),
        (lambda lines: lines.clear(), "train.csv is empty"),
        (edited(3, 0, '"never closed'), "not CSV"),
        (edited(4, 1, ""), "line 5: question of 0 characters"),
        (edited(3, 1, "." * 35), r"train.csv line 4: question of 35 characters, expected 36.*--box"),
        (edited(3, 2, "1" * 81), r"train.csv line 4: answer of 81 characters"),
        (edited(2, 1, "7"), r"train.csv line 3: a question holds digits 1..6"),
        (edited(2, 1, "!"), r"train.csv line 3: a question holds digits 1..6"),
        (edited(2, 1, "\u00b2"), r"train.csv line 3: a question holds digits 1..6"),
        (edited(2, 2, "."), r"train.csv line 3: an answer holds digits 1..6 only"),
        (edited(5, 1, "123456" * 6), r"train.csv line 6: the answer does not keep"),
        (lambda lines: lines.__setitem__(4, f"x,{'.' * 36},{'123456' * 6},0"), "line 5: the answer repeats"),
        (edited(6, 3, "hard"), r"train.csv line 7: rating 'hard' is no whole number"),
        (lambda lines: lines.__setitem__(7, "a,b,c"), "line 8: 3 columns, expected 4"),
        (lambda lines: lines.__delitem__(slice(1, None)), "train.csv has no puzzle"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, source: Path, edit, message: str):
    path = source / "train.csv"
    lines = path.read_text().splitlines()
    edit(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        build(options(tmp_path, source, min_difficulty=0))
    assert not (tmp_path / "built").exists()


def test_a_file_that_is_no_text_is_named(tmp_path: Path, source: Path):
    (source / "train.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"train.csv is not in UTF-8: byte 0 is 0xff.*It looks like UTF-16"):
        build(options(tmp_path, source))


def rewritten(text: str, columns: list[str | None], names: list[str], separator: str = ",") -> str:
    """The CSV `text` with these of its columns, None for another one, below other `names`."""
    header, *rows = (line.split(",") for line in text.splitlines())
    places = [None if column is None else header.index(column) for column in columns]
    lines = [names, *(["7" if place is None else row[place] for place in places] for row in rows)]
    return "".join(separator.join(line) + "\r\n" for line in lines)


@pytest.mark.parametrize(
    ("columns", "names", "separator"),
    [
        (["question", "answer", "rating", "source"], ["question", "answer", "rating", "source"], ","),
        (["answer", "question"], ["Answer", "QUESTION"], ","),
        (["source", None, "question", None, "answer"], ["source", "tags", " question", "", "answer "], ","),
        (["source", "question", "answer", "rating"], ["source", "question", "answer", "rating"], ", "),
        (["source", "question", "answer", "rating"], ["\ufeffsource", "question", "answer", "rating"], " ,\t"),
    ],
)
def test_columns_are_found_by_name(
    tmp_path: Path, source: Path, columns: list[str | None], names: list[str], separator: str
):
    build(options(tmp_path, source))
    plain = {file: file.read_bytes() for file in sorted((tmp_path / "built").rglob("*.*"))}
    for split in ("train", "test"):
        text = rewritten((source / f"{split}.csv").read_text(), columns, names, separator)
        (source / f"{split}.csv").write_bytes((text + " ,\r\n").encode())
    build(options(tmp_path, source, overwrite=True))
    assert {file: file.read_bytes() for file in sorted((tmp_path / "built").rglob("*.*"))} == plain
    if "rating" not in columns:
        with pytest.raises(UserError, match="'rating', which --min-difficulty needs"):
            build(options(tmp_path, source, overwrite=True, min_difficulty=1))


def without_answers(path: Path, rows: slice) -> None:
    """Empty the answers of some `rows`, counted from 0, of a CSV file."""
    header, *lines = path.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    for row in cells[rows]:
        row[2] = ""
    path.write_text("\n".join([header, *(",".join(row) for row in cells)]) + "\n")


def test_puzzles_without_an_answer_are_tested_on_and_not_trained_on(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
):
    build(options(tmp_path, source))
    train, test = (loaded(tmp_path / "built", split) for split in ("train", "test"))
    train, test = (np.stack([shard.inputs, shard.labels]) for shard in (train, test))
    without_answers(source / "train.csv", slice(2, 5))
    without_answers(source / "test.csv", slice(1, 3))
    capsys.readouterr()
    build(options(tmp_path, source, overwrite=True))
    printed = capsys.readouterr().err
    assert "train.csv: 3 of 12 training puzzles have no answer and are left out" in printed
    assert "test.csv: 2 of 5 test puzzles have no answer; they are predicted, but not scored" in printed
    assert "WARNING" not in printed
    built = loaded(tmp_path / "built", "train")
    assert np.array_equal(np.stack([built.inputs, built.labels]), np.delete(train, slice(2, 5), axis=1))
    built = loaded(tmp_path / "built", "test")
    test[1, 1:3] = 0
    assert np.array_equal(np.stack([built.inputs, built.labels]), test)


def test_a_test_file_may_have_no_answers_and_a_training_file_may_not(tmp_path: Path, source: Path):
    (source / "test.csv").write_text(f"question\n{'.' * 36}\n")
    build(options(tmp_path, source))
    assert not loaded(tmp_path / "built", "test").labels.any()
    assert (loaded(tmp_path / "built", "test").inputs == TOKEN_OFFSET).all()
    without_answers(source / "train.csv", slice(None))
    with pytest.raises(UserError, match=r"train.csv: no puzzle has an answer.*line 2.*Training needs answers"):
        build(options(tmp_path, source, overwrite=True))


def test_puzzles_with_several_solutions_or_none_are_counted(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
):
    build(options(tmp_path, source))
    assert "WARNING" not in capsys.readouterr().err
    header, *rows = (source / "test.csv").read_text().splitlines()
    answer = rows[0].split(",")[2]
    rows += [f"s,{'.' * 35}{answer[-1]},{answer},0", f"s,{'.' * 36},,0", f"s,11{'.' * 34},,0"]
    (source / "test.csv").write_text("\n".join([header, *rows]) + "\n")
    build(options(tmp_path, source, overwrite=True))
    printed = capsys.readouterr().err
    assert "WARNING: 2 of 8 test puzzles checked have several solutions" in printed
    assert "Sudoku/solved counts any of them, exact_accuracy only the given one" in printed
    assert "WARNING: 1 of 8 test puzzles checked have no solution" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"box": "4x4"}, "allowed are 2x2, 2x3, 3x3"),
        ({"box": "3x3"}, "36 characters, expected 81"),
        ({"num_aug": -1}, "--num-aug -1: must be at least 0"),
        ({"subsample_size": 0}, "--subsample-size 0: must be at least 1"),
        ({"generate": 0}, "--generate 0: must be at least 1"),
        ({"generate": 5}, "--source .*: not with --generate"),
        ({"generate": 5, "source": PUBLISHED, "min_difficulty": 1}, "--min-difficulty 1: not with --generate"),
        ({"generate": 5, "source": PUBLISHED, "min_clues": 30, "max_clues": 20}, "Mend the two options"),
        ({"max_clues": 20}, "--max-clues 20: only with --generate"),
        ({"uniform_clues": True}, "--uniform-clues True: only with --generate"),
        ({"test_size": 20}, "--test-size 20: only with --generate"),
        ({"source": "nowhere"}, "neither a folder nor"),
        ({"source": "./no/where"}, "neither a folder nor"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, source: Path, more: dict, message: str):
    with pytest.raises(UserError, match=message):
        build(options(tmp_path, source, **more))


def test_a_missing_file_is_named(tmp_path: Path, source: Path):
    (source / "test.csv").unlink()
    with pytest.raises(UserError, match=r"test.csv is missing"):
        build(options(tmp_path, source))


def test_existing_data_is_replaced_only_when_asked(tmp_path: Path, source: Path):
    build(options(tmp_path, source))
    with pytest.raises(UserError, match="not empty"):
        build(options(tmp_path, source))
    build(options(tmp_path, source, overwrite=True))


def test_without_a_network_a_local_folder_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(repo: str, filename: str, repo_type: str) -> str:
        assert (repo, filename, repo_type) == ("sapientinc/sudoku-extreme", "train.csv", "dataset")
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match=r"no connection.*--source FOLDER"):
        build(Config(output_dir=str(tmp_path / "built")))


def test_a_data_set_is_loaded_by_name(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file, repo_type: str(source / file))
    build(Config(output_dir=str(tmp_path / "built"), source="someone/six-by-six", box="2x3"))
    assert len(loaded(tmp_path / "built", "train").inputs) == 12


def test_published_command_lines_parse():
    line = "--output-dir data/sudoku-extreme-1k-aug-1000 --subsample-size 1000 --num-aug 1000 --min-difficulty 2"
    config = tyro.cli(Config, args=line.split())
    assert config == Config(
        output_dir="data/sudoku-extreme-1k-aug-1000", subsample_size=1000, num_aug=1000, min_difficulty=2
    )
    defaults = tyro.cli(Config, args=[])
    assert (defaults.output_dir, defaults.source) == ("data/sudoku-extreme-full", "sapientinc/sudoku-extreme")
    assert tyro.cli(Config, args=["--source-repo", "a/b"]).source == "a/b"


def test_unknown_options_are_refused():
    with pytest.raises(ValidationError):
        Config.model_validate({"num_augs": 3})


def test_the_command_line_reports_errors_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["build", "--box", "9x9", "--output-dir", str(tmp_path / "built")])
    with pytest.raises(SystemExit) as stopped:
        build_sudoku_dataset.main()
    assert stopped.value.code == 2
    assert "error: Sudoku box '9x9': allowed are 2x2, 2x3, 3x3" in capsys.readouterr().err


@pytest.mark.thorough
def test_the_builder_runs_by_path_from_anywhere(tmp_path: Path):
    script = Path(build_sudoku_dataset.__file__)
    arguments = ["--generate", "3", "--test-size", "2", "--box", "2x3", "--output-dir", "made"]
    run = subprocess.run([sys.executable, script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("made: 3 training puzzles (3 with augmented copies), 2 test puzzles")
    assert len(loaded(tmp_path / "made", "train").inputs) == 3


def test_the_builder_runs_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    arguments = ["--generate", "2", "--test-size", "1", "--box", "2x2", "--output-dir", str(tmp_path / "made")]
    monkeypatch.setattr(sys, "argv", ["build", *arguments])
    monkeypatch.delitem(sys.modules, "dataset.build_sudoku_dataset")
    runpy.run_module("dataset.build_sudoku_dataset", run_name="__main__")
    assert len(loaded(tmp_path / "made", "test").inputs) == 1
