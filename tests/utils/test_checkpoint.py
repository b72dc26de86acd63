"""Checkpoints: the published names, files that are no checkpoints, and writes that fail."""

import io
import os
import resource
import signal
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.losses import ACTLossHead
from tests.models.small import small_model
from tests.runs import different
from utils.checkpoint import (
    all_weights,
    check_fits,
    latest_step,
    load_train_state,
    load_weights,
    save_train_state,
    save_weights,
    train_state_path,
    weights_path,
)
from utils.errors import UserError

# of the small model with attention, as the published code names them
PUBLISHED_NAMES = {
    "_orig_mod.model.inner." + name
    for name in (
        *("H_init", "L_init", "embed_tokens.embedding_weight", "lm_head.weight", "q_head.weight", "q_head.bias"),
        *("puzzle_emb.weights", "L_level.layers.0.self_attn.qkv_proj.weight"),
        *("L_level.layers.0.self_attn.o_proj.weight", "L_level.layers.0.mlp.gate_up_proj.weight"),
        "L_level.layers.0.mlp.down_proj.weight",
    )
}


def small_head(**overrides: object) -> ACTLossHead:
    return ACTLossHead(small_model(**overrides))  # pyright: ignore[reportArgumentType]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


# -- weights -----------------------------------------------------------------------------------------------------------


def test_weights_are_written_under_the_published_names(tmp_path: Path):
    head = small_head()
    save_weights(tmp_path, 12, head)
    assert files(tmp_path) == {"step_12"}
    published = torch.load(tmp_path / "step_12", weights_only=True)
    assert set(published) == PUBLISHED_NAMES
    assert equal(published, {"_orig_mod." + name: value for name, value in head.state_dict().items()})


@pytest.mark.parametrize("prefix", ["_orig_mod.model.", "model.", "_orig_mod.", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_read_with_and_without_prefix(tmp_path: Path, prefix: str, zipped: bool):
    head = small_head()
    renamed = {prefix + name.removeprefix("model."): value for name, value in head.state_dict().items()}
    torch.save(renamed, tmp_path / "weights", _use_new_zipfile_serialization=zipped)
    found = load_weights(tmp_path / "weights")
    check_fits(found, head, tmp_path / "weights")
    assert equal(found, head.state_dict())


# -- files that are no checkpoints -------------------------------------------------------------------------------------


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, "content")
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.ones(3))
    return buffer.getvalue()


WEIGHTS = saved({f"w{i}": torch.arange(100.0) for i in range(4)})
FOREIGN: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"hello\n",
    "git-lfs": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "html": lambda: b"<!DOCTYPE html>\n<html></html>\n",
    "yaml": lambda: b"arch:\n  name: x\n",
    "zeros": lambda: bytes(1000),
    "zip": lambda: archive("folder/file"),
    "flat-zip": lambda: archive("file"),
    "npz": arrays,
    "a-list": lambda: saved([torch.ones(1)]),
    "a-tensor": lambda: saved(torch.ones(1)),
    "empty-dict": lambda: saved({}),
    "nested": lambda: saved({"model": {"w": torch.ones(1)}}),
    "numbered": lambda: saved({1: torch.ones(1)}),
    "a-module": lambda: saved(nn.Linear(1, 1)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_refused(tmp_path: Path, name: str):
    path = tmp_path / "step_1"
    path.write_bytes(FOREIGN[name]())
    for load in (load_weights, load_train_state):
        with pytest.raises(UserError, match="step_1 .*(is|or) no "):
            load(path)


class Call:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_without_the_advice_to_run_it(tmp_path: Path, zipped: bool):
    path = tmp_path / "step_1"
    torch.save({"w": Call(print, "run")}, path, _use_new_zipfile_serialization=zipped)
    for load in (load_weights, load_train_state):
        with pytest.raises(UserError, match="step_1 .*holds more than tensors and plain values") as caught:
            load(path)
        assert "weights_only" not in str(caught.value)
        assert "trust" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cannot_ask_for_more_memory_than_it_has_bytes(tmp_path: Path, zipped: bool):
    path = tmp_path / "step_1"
    torch.save({"w": Call(bytearray, 300 << 20)}, path, _use_new_zipfile_serialization=zipped)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="holds more than tensors and plain values, so it is not loaded"):
            load_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_compressed_archives_are_refused_before_they_are_read(tmp_path: Path):
    path = tmp_path / "step_1"
    with zipfile.ZipFile(io.BytesIO(WEIGHTS)) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in whole.namelist():
            bomb.writestr(name, bytes(300 << 20) if name.endswith("data.pkl") else whole.read(name))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"step_1 is corrupted or no checkpoint \(.*data.pkl' in it is compressed"):
        load_weights(path)


def test_archives_that_claim_more_than_they_have_are_refused(tmp_path: Path):
    path = tmp_path / "step_1"
    content = bytearray(WEIGHTS)
    entry = content.rindex(b"PK\x01\x02")  # of the last member, in the list at the end of the file
    content[entry + 24 : entry + 28] = (3_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"its parts claim 3,000,\d+,\d+ bytes, the file has \d+,\d+, so"):
        load_weights(path)


@pytest.mark.parametrize("value", [torch.ones(1).expand(10**9), torch.ones(9, device="meta")])
def test_tensors_that_lack_their_values_are_refused(tmp_path: Path, value: Tensor):
    torch.save({"w": value}, tmp_path / "step_1")
    with pytest.raises(UserError, match="step_1 is no weights file: w claims the shape"):
        load_weights(tmp_path / "step_1")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "step_1")
    for load in (load_weights, load_train_state):
        with pytest.raises(UserError, match="step_1 is a pipe, expected a regular file. Load another step"):
            load(tmp_path / "step_1")
        with pytest.raises(UserError, match="/dev/null is a device"):
            load(Path("/dev/null"))
        with pytest.raises(UserError, match="there is no file /dev/null/step_1"):
            load(Path("/dev/null/step_1"))


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, part: float):
    (tmp_path / "step_1").write_bytes(WEIGHTS[: int(part * len(WEIGHTS))])
    with pytest.raises(UserError, match="step_1 is corrupted or no checkpoint .* Load another step"):
        load_weights(tmp_path / "step_1")


def test_a_flipped_bit_loads_no_other_numbers(tmp_path: Path):
    save_weights(tmp_path, 1, small_head())
    save_train_state(tmp_path, 1, {"step": 1, "m": torch.arange(50.0)}, keep=1)
    rng = np.random.default_rng(0)
    for path, load in ((weights_path(tmp_path, 1), load_weights), (train_state_path(tmp_path, 1), load_train_state)):
        content, expected, refused = path.read_bytes(), load(path), 0
        for _ in range(60):
            flipped = bytearray(content)
            flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            path.unlink()  # because `expected` is mapped into memory
            path.write_bytes(flipped)
            try:
                found = load(path)
            except UserError:
                refused += 1
            else:  # the bit was in the padding of the archive
                assert different(expected, found) == []
        assert refused > 30


def test_files_of_random_bytes_are_refused(tmp_path: Path):
    rng = np.random.default_rng(0)
    for _ in range(100):
        (tmp_path / "step_1").write_bytes(rng.bytes(200))
        with pytest.raises(UserError, match="step_1 is corrupted or no checkpoint"):
            load_weights(tmp_path / "step_1")


def test_a_missing_file_is_answered_with_those_that_are_there(tmp_path: Path):
    for step in (10, 20):
        save_weights(tmp_path, step, nn.Linear(1, 1))
    for path in (tmp_path / "step_30", tmp_path):
        with pytest.raises(UserError, match=r"there is no file .*there are: step_10, step_20\."):
            load_weights(path)
    with pytest.raises(UserError, match="there is no file"):
        load_weights(tmp_path / "elsewhere" / "step_1")


def test_weights_and_train_state_are_not_taken_for_each_other(tmp_path: Path):
    save_weights(tmp_path, 1, nn.Linear(1, 1))
    save_train_state(tmp_path, 1, {"step": 1}, keep=1)
    with pytest.raises(UserError, match="is no weights file"):
        load_weights(train_state_path(tmp_path, 1))
    with pytest.raises(UserError, match="is no train state of version"):
        load_train_state(weights_path(tmp_path, 1))


def test_a_train_state_of_another_version_is_refused(tmp_path: Path):
    torch.save({"version": 999}, train_state_path(tmp_path, 7))
    with pytest.raises(UserError, match=r"no train state of version 1.*load_checkpoint=.*/step_7\)"):
        load_train_state(train_state_path(tmp_path, 7))


# -- another architecture ----------------------------------------------------------------------------------------------


def refusal(change: Callable[[dict[str, Tensor]], Any], skip: tuple[str, ...] = ()) -> str:
    head = small_head()
    state = dict(head.state_dict())
    change(state)
    with pytest.raises(UserError) as caught:
        check_fits(state, head, Path("run/step_5"), skip)
    return str(caught.value)


def test_what_does_not_fit_is_named():
    said = refusal(lambda state: state.pop("model.inner.lm_head.weight"))
    assert said.splitlines() == [
        "run/step_5 holds another architecture:",
        "  it lacks model.inner.lm_head.weight",
        "Set arch to what the all_config.yaml beside the checkpoint says.",
    ]
    assert "it has model.z, which the model lacks" in refusal(lambda state: state.update({"model.z": torch.ones(1)}))
    said = refusal(lambda state: state.update({"model.inner.H_init": torch.ones(3)}))
    assert "model.inner.H_init is [3], the model's [16]" in said


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.uint8, torch.complex64])
def test_values_of_another_kind_are_refused(dtype: torch.dtype):
    name = "model.inner.lm_head.weight"
    said = refusal(lambda state: state.update({name: state[name].to(dtype)}))
    assert f"{name} is {dtype}, the model's torch.float32" in said


def test_values_of_any_precision_fit():
    head = small_head()
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        check_fits({name: value.to(dtype) for name, value in head.state_dict().items()}, head, Path("x"))


def test_only_the_first_differences_are_listed():
    lines = refusal(lambda state: state.clear()).splitlines()
    assert sum("it lacks" in line for line in lines) == 4
    assert f"  and {len(PUBLISHED_NAMES) - 4} more" in lines


def test_shapes_can_be_left_to_the_caller():
    head, table = small_head(), "model.inner.puzzle_emb.weights"
    state = head.state_dict() | {table: torch.ones(99, 16)}
    check_fits(state, head, Path("x"), skip=(table,))
    assert "is [99, 16], the model's [5, 16]" in refusal(lambda own: own.update({table: state[table]}))


# -- train states ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_only_the_newest_train_states_are_kept(tmp_path: Path, keep: int):
    steps = (5, 10, 100, 1000)
    (tmp_path / "step_x_train_state.pt").touch()
    for step in steps:
        save_weights(tmp_path, step, nn.Linear(1, 1))
        save_train_state(tmp_path, step, {"step": step}, keep)
    weights = {f"step_{step}" for step in steps}
    states = {f"step_{step}_train_state.pt" for step in steps[-keep:]}
    assert files(tmp_path) == weights | states | {"step_x_train_state.pt"}
    assert load_train_state(train_state_path(tmp_path, 1000))["step"] == 1000


def test_weights_need_no_train_state_and_are_listed_in_their_order(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no step_<N> in this folder"):
        all_weights(tmp_path)
    for names, expected in (
        (("step_11_train_state.pt", ".step_12.writing", "step_x", "step_13.damaged", "model.safetensors"), "model"),
        (("step_14.safetensors", "step_8.safetensors"), "step_8.safetensors step_14"),
        (("step_10", "step_9"), "step_9 step_10"),
    ):
        for name in names:
            (tmp_path / name).touch()
        found = " ".join(path.name for path in all_weights(tmp_path))
        assert found.removesuffix(".safetensors") == expected


def test_the_latest_step_needs_both_files(tmp_path: Path):
    assert latest_step(tmp_path) is None
    assert latest_step(tmp_path / "nowhere") is None
    for step in (9, 10):
        save_weights(tmp_path, step, nn.Linear(1, 1))
    assert latest_step(tmp_path) is None
    for step in (9, 10, 11):
        save_train_state(tmp_path, step, {}, keep=9)
    assert latest_step(tmp_path) == 10
    weights_path(tmp_path, 10).unlink()
    assert latest_step(tmp_path) == 9


# -- writes that fail --------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 5_000, 40_000])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, size: int):
    module = nn.Linear(100, 100)  # 40 kB and some
    save_weights(tmp_path, 1, module)
    save_train_state(tmp_path, 1, {"x": torch.ones(10_000)}, keep=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    nn.init.zeros_(module.weight)
    for step in (1, 2):
        with largest_file(size), pytest.raises(UserError, match=f"could not write .*step_{step}: .*File too large"):
            save_weights(tmp_path, step, module)
        with largest_file(size), pytest.raises(UserError, match="could not write .*train_state"):
            save_train_state(tmp_path, step, {"x": torch.zeros(10_000)}, keep=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert latest_step(tmp_path) == 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="could not write .*nowhere/step_1: .*No such file"):
        save_weights(tmp_path / "nowhere", 1, nn.Linear(1, 1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
):
    save_weights(tmp_path, 1, nn.Linear(1, 1))
    before = (tmp_path / "step_1").read_bytes()

    def interrupted(_: object, file: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(error):
        save_weights(tmp_path, 1, nn.Linear(1, 1))
    assert files(tmp_path) == {"step_1"}
    assert (tmp_path / "step_1").read_bytes() == before
