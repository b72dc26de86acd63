"""Checkpoints of two files: what belongs together, what is whole, and what is taken instead of a damaged one."""

from pathlib import Path

import pytest
import torch

from tests.runs import different
from utils.checkpoint import save_train_state, train_state_path, weights_path
from utils.checkpoint_pair import load_pair, newest_whole_pair, newest_whole_weights, write_pair
from utils.errors import DamagedFileError, UserError


def write(folder: Path, *steps: int, value: float = 0) -> Path:
    """Checkpoints whose weights are all `value + step`."""
    folder.mkdir(exist_ok=True)
    for step in steps:
        weights = {"_orig_mod.model.w": torch.full((10,), value + step)}
        write_pair(folder, step, weights, {"step": step, "m": torch.full((5,), value)})
    return folder


def flip(path: Path) -> None:
    """Flip a bit in the first part of an archive, which says what the tensors are."""
    content = bytearray(path.read_bytes())
    content[80] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_written_comes_back(tmp_path: Path):
    write(tmp_path, 3, 5)
    for compare in (True, False):
        weights, state = load_pair(tmp_path, 5, compare)
        assert different(weights, {"model.w": torch.full((10,), 5.0)}) == []
        assert (state["step"], state["m"].tolist()) == (5, [0.0] * 5)
    assert names(tmp_path) == {"step_3", "step_3_train_state.pt", "step_5", "step_5_train_state.pt"}
    assert newest_whole_pair(tmp_path / "nowhere", set_aside=True) is None


def test_the_same_state_is_written_as_the_same_bytes(tmp_path: Path):
    one, two = write(tmp_path / "one", 5), write(tmp_path / "two", 5)
    for name in names(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("moved", ["step_5", "step_5_train_state.pt"])
def test_files_of_two_runs_are_no_pair(tmp_path: Path, moved: str):
    one, two = write(tmp_path / "one", 3, 5), write(tmp_path / "two", 5, value=0.5)
    (two / moved).replace(one / moved)
    with pytest.raises(DamagedFileError, match=r"one/step_5 and step_5_train_state\.pt do not belong together"):
        load_pair(one, 5)


@pytest.mark.parametrize(
    ("suffixes", "expected"),
    [
        (["", "_train_state.pt"], r"step_5_train_state\.pt is of step 3"),
        ([""], r"step_5 and step_5_train_state\.pt do not belong together"),
        (["_train_state.pt"], r"step_5_train_state\.pt is of step 3"),
    ],
)
def test_files_of_two_steps_are_no_pair(tmp_path: Path, suffixes: list[str], expected: str):
    write(tmp_path, 3, 5)
    for suffix in suffixes:
        (tmp_path / f"step_3{suffix}").replace(tmp_path / f"step_5{suffix}")
    with pytest.raises(DamagedFileError, match=expected):
        load_pair(tmp_path, 5)


def test_train_states_of_earlier_versions_have_no_digest_and_are_accepted(tmp_path: Path):
    write(tmp_path, 5)
    save_train_state(tmp_path, 5, {"step": 5, "m": 1}, keep=1)
    assert load_pair(tmp_path, 5)[1] == {"version": 1, "step": 5, "m": 1}


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("suffix", ["", "_train_state.pt"])
def test_the_newest_whole_pair_is_taken_and_damaged_ones_are_kept(tmp_path: Path, damage, suffix: str):
    write(tmp_path, 3, 5, 7, 9)
    for step in (7, 9):
        damage(tmp_path / f"step_{step}{suffix}")
    before, said = {path.read_bytes() for path in tmp_path.iterdir()}, []
    found = newest_whole_pair(tmp_path, set_aside=False, say=said.append)
    assert names(tmp_path) >= {"step_9", "step_7"}
    assert found is not None
    assert found[0] == found[1]["step"] == 5

    said.clear()
    found = newest_whole_pair(tmp_path, set_aside=True, say=said.append)
    assert found is not None
    assert found[0] == 5
    for step, text in zip((9, 7), said, strict=True):
        assert f"step_{step}{suffix} is corrupted" in text
        assert f"so step 5 is taken instead of step {step}; its files are kept as step_{step}.damaged" in text
    kept = {f"step_{step}{end}.damaged" for step in (7, 9) for end in ("", "_train_state.pt")}
    assert names(tmp_path) == {f"step_{step}{end}" for step in (3, 5) for end in ("", "_train_state.pt")} | kept
    assert {path.read_bytes() for path in tmp_path.iterdir()} == before
    assert newest_whole_pair(tmp_path, set_aside=True, say=said.append) is not None
    assert len(said) == 2  # nothing more to say

    write(tmp_path, 9)
    damage(tmp_path / f"step_9{suffix}")
    assert newest_whole_pair(tmp_path, set_aside=True, say=said.append) is not None
    assert "step_9.damaged-2 and step_9_train_state.pt.damaged-2" in said[-1]


def test_without_a_whole_pair_nothing_is_renamed(tmp_path: Path):
    write(tmp_path, 3, 5)
    cut(weights_path(tmp_path, 3))
    cut(train_state_path(tmp_path, 5))
    before = names(tmp_path)
    with pytest.raises(DamagedFileError, match=r"step_5_train_state\.pt is corrupted.*None of the 2 checkpoints in "):
        newest_whole_pair(tmp_path, set_aside=True)
    assert names(tmp_path) == before


def test_another_version_is_no_damage(tmp_path: Path):
    write(tmp_path, 3, 5)
    torch.save({"version": 999, "step": 5}, train_state_path(tmp_path, 5))
    with pytest.raises(UserError, match="no train state of version 1"):
        newest_whole_pair(tmp_path, set_aside=True)


@pytest.mark.parametrize("damage", [flip, cut])
def test_the_newest_whole_weights_are_taken(tmp_path: Path, damage):
    write(tmp_path, 3, 5)
    said: list[str] = []
    assert newest_whole_weights(tmp_path, said.append)[0] == tmp_path / "step_5"
    assert said == []
    damage(tmp_path / "step_5")
    path, weights = newest_whole_weights(tmp_path, said.append)
    assert (path, weights["model.w"].tolist()) == (tmp_path / "step_3", [3.0] * 10)
    assert "step_5 is corrupted" in said[0]
    assert f"so {path} is taken" in said[0]
    damage(tmp_path / "step_3")
    with pytest.raises(DamagedFileError, match="step_5 is corrupted"):
        newest_whole_weights(tmp_path, said.append)


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path):
    others = {".step_4.safetensors.writing", ".all_config.yaml.writing", "step_4.writing"}
    for name in (*others, ".step_4.writing", ".step_12_train_state.pt.writing"):
        (tmp_path / name).touch()
    write(tmp_path, 3)
    assert names(tmp_path) == others | {"step_3", "step_3_train_state.pt"}
