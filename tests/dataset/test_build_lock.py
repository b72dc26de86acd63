"""Two builds of one folder, and builds that are killed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset.build_lock import unfinished
from dataset.building import build_missing_data
from dataset.puzzle_dataset import PuzzleSplit
from dataset.shards import FolderTaken, build_folder, load_metadata
from tests.runs import ROOT, environment, write_sudoku
from utils.errors import UserError
from utils.settings import DataBuilderConfig

# holds the lock of a build until it is killed, or for as many seconds as its second argument says, then copies the
# folder of its third argument to its place
OTHER = """
import fcntl, shutil, sys, time
from pathlib import Path
target, seconds = Path(sys.argv[1]), float(sys.argv[2])
file = (target.parent / f".{target.name}.lock").open("a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(seconds)
if len(sys.argv) > 3:
    shutil.copytree(sys.argv[3], target)
"""


def other_build(target: Path, seconds: float, *more: Path) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-S", "-c", OTHER, str(target), str(seconds), *map(str, more)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        assert lines.readline() == "locked\n"
    return process


def test_the_second_of_two_builds_waits_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    finished, target = write_sudoku(tmp_path / "finished", groups=4, tests=2), tmp_path / "data"
    process = other_build(target, 0.3, finished)
    with pytest.raises(FolderTaken, match="has been built by another process in the meantime"), build_folder(target):
        pytest.fail("it was built a second time")
    process.wait()
    assert capsys.readouterr().out == f"another process is building {target}: waiting for it\n"
    assert load_metadata(target, "train").total_groups == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "finished"]


def test_a_run_uses_what_another_process_has_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    finished, target = write_sudoku(tmp_path / "finished", groups=4, tests=2), tmp_path / "data"
    process = other_build(target, 0.3, finished)
    options = {"output_dir": str(target), "generate": 9, "test_size": 2, "box": "2x2", "min_clues": 7}
    build_missing_data([str(target)], [], DataBuilderConfig(module="dataset.build_sudoku_dataset", options=options))
    process.wait()
    assert "has been built by another process in the meantime: it is used" in capsys.readouterr().out
    assert load_metadata(target, "train").total_groups == 4


def test_the_rest_of_a_killed_build_is_removed(tmp_path: Path):
    target = tmp_path / "data"
    process = other_build(target, 1000)
    process.kill()
    process.wait()
    rest = unfinished(target)
    rest = rest.with_name(f"{rest.name}1")  # of another process of this machine
    foreign = tmp_path / ".data.building-elsewhere-1"
    for folder in (rest, foreign):
        folder.mkdir()
    with build_folder(target) as folder:
        (folder / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [foreign.name, "data"]


def test_without_locks_the_first_to_finish_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    target = tmp_path / "data"

    def build() -> None:
        with build_folder(target) as folder:
            (folder / "mine").touch()
            target.mkdir()
            (target / "identifiers.json").touch()

    with pytest.raises(FolderTaken):
        build()
    assert [path.name for path in target.iterdir()] == ["identifiers.json"]
    with build_folder(target, overwrite=True) as folder:
        (folder / "mine").touch()
    assert sorted(path.name for path in target.iterdir()) == ["checksums.json", "mine"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_that_is_too_long_is_refused(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=4, tests=2)
    with (data / "train" / "all__inputs.npy").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"all__inputs\.npy has 257 bytes, its header says 256, so it is damaged"):
        PuzzleSplit([str(data)], "train", check_tokens=False)


@pytest.mark.thorough
def test_a_killed_build_leaves_nothing_that_looks_whole(tmp_path: Path):
    options = ["--output-dir", "data", "--generate", "40", "--test-size", "5", "--box", "2x2", "--min-clues", "7"]
    line = [sys.executable, "-m", "dataset.build_sudoku_dataset", *options]
    environ = environment() | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(line, cwd=tmp_path, env=environ)
    for _ in range(6000):
        if any(tmp_path.glob(".data.building-*")):
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "data").exists()
    subprocess.run(line, cwd=tmp_path, env=environ, check=True, timeout=200)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert load_metadata(tmp_path / "data", "train").total_groups == 40
