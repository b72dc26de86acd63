"""A checkpoint loads as exactly the model that was saved, and mismatches are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from models.factory import comparable_config, complete_arch, make_head
from models.losses import ACTLossHead
from models.pretrained import load_model, open_checkpoint, start_from_weights
from tests.models.small import small_batch
from tests.runs import different
from utils.checkpoint import load_weights, published_weights, save_weights
from utils.checkpoint_pair import write_pair
from utils.config import read_yaml, validate
from utils.errors import UserError
from utils.machine import choose_machine
from utils.safetensors_file import save_tensors
from utils.settings import RESOLVED, ArchConfig

ARCH: dict[str, Any] = {
    "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
    "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
    "hidden_size": 16,
    "num_heads": 2,
    "L_layers": 1,
    "L_cycles": 2,
    "H_cycles": 2,
    "halt_max_steps": 3,
    "puzzle_emb_ndim": 16,
    "forward_dtype": "float32",
}
VOCAB, SEQ_LEN, PUZZLES = 7, 6, 5
MACHINE = choose_machine("cpu", "float32")


def arch(**own: Any) -> ArchConfig:
    return validate(ArchConfig, {**ARCH, **own})


def write_run(folder: Path, steps: tuple[int, ...] = (3, 10), **config: Any) -> ACTLossHead:
    """A run folder with weights of `steps`; the head that was saved."""
    torch.manual_seed(0)
    head = make_head(arch(), VOCAB, SEQ_LEN, PUZZLES)
    assert head.model.puzzle_emb is not None
    head.model.puzzle_emb.weights.normal_()
    folder.mkdir()
    for step in steps:
        save_weights(folder, step, head)

    (folder / "all_config.yaml").write_text(yaml.safe_dump({"arch": ARCH, **config}))
    return head


def test_the_model_is_the_one_that_was_saved(tmp_path: Path):
    saved = write_run(tmp_path / "run").eval()
    loaded = load_model(open_checkpoint(tmp_path / "run" / "step_3"), MACHINE, SEQ_LEN)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    batch = small_batch(4)
    with torch.inference_mode():
        for (_, mine), (_, theirs) in zip(
            loaded.model.answer_steps(batch), saved.model.answer_steps(batch), strict=True
        ):
            for name, value in theirs.items():
                assert torch.equal(mine[name], value), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_cast_to_the_models(tmp_path: Path, dtype: torch.dtype):
    wanted = write_run(tmp_path / "run", steps=(3,)).state_dict()
    path = tmp_path / "run" / "step_3"
    torch.save({name: value.to(dtype) for name, value in torch.load(path, weights_only=True).items()}, path)
    loaded = load_model(open_checkpoint(path), MACHINE, SEQ_LEN).state_dict()
    for name, value in wanted.items():
        assert loaded[name].dtype == value.dtype == torch.float32
        assert torch.equal(loaded[name], value.to(dtype).to(torch.float32)), name


def test_of_a_run_folder_the_newest_step_is_taken(tmp_path: Path):
    write_run(tmp_path / "run")
    assert open_checkpoint(tmp_path / "run").path.name == "step_10"


def test_sizes_come_from_the_weights_and_from_what_the_run_recorded(tmp_path: Path):
    write_run(tmp_path / "run")
    checkpoint = open_checkpoint(tmp_path / "run")
    assert (checkpoint.vocab_size, checkpoint.puzzle_rows) == (VOCAB, PUZZLES)
    with pytest.raises(UserError, match="does not say how long an example is: give seq_len"):
        load_model(checkpoint, MACHINE)
    (tmp_path / "run" / "train_data.json").write_text(f'{{"seq_len": {SEQ_LEN}, "identifiers_sha256": {{}}}}')
    assert load_model(checkpoint, MACHINE).model.config.seq_len == SEQ_LEN


@pytest.mark.parametrize(("own", "message"), [({"L_cycles": 9}, "L_cycles=9, the checkpoint has 2")])
def test_another_architecture_is_refused_unless_forced(tmp_path: Path, own: dict[str, Any], message: str):
    write_run(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        open_checkpoint(tmp_path / "run", arch=own)
    said: list[str] = []
    checkpoint = open_checkpoint(tmp_path / "run", arch=own, force=True, say=said.append)
    assert checkpoint.arch.own_keys["L_cycles"] == 9
    assert "forced arch.L_cycles=9" in said[0]


def test_keys_of_forks_are_dropped_and_named(tmp_path: Path):
    write_run(tmp_path / "run", arch={**ARCH, "entity": "me"})
    said: list[str] = []
    assert "entity" not in open_checkpoint(tmp_path / "run", say=said.append).arch.own_keys
    assert said == ["dropped unknown architecture keys: arch.entity"]


def test_a_missing_configuration_is_named(tmp_path: Path):
    write_run(tmp_path / "run")
    (tmp_path / "run" / "all_config.yaml").unlink()
    with pytest.raises(UserError, match="all_config.yaml is missing"):
        open_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("same_puzzles", [True, None, False])
def test_rows_of_other_puzzles_start_at_the_mean(tmp_path: Path, same_puzzles: bool | None):
    saved = write_run(tmp_path / "run")
    new = make_head(arch(), VOCAB, SEQ_LEN, PUZZLES)
    start_from_weights(new, tmp_path / "run" / "step_3", arch(), same_puzzles, say=lambda text: None)
    assert saved.model.puzzle_emb is not None
    assert new.model.puzzle_emb is not None
    table = saved.model.puzzle_emb.weights
    expected = table.mean(0, keepdim=True).expand_as(table) if same_puzzles is False else table
    torch.testing.assert_close(new.model.puzzle_emb.weights, expected)
    assert torch.equal(new.model.inner.q_head.weight, saved.model.inner.q_head.weight)


def test_a_configuration_saved_before_is_comparable_with_todays():
    """It lacks keys that have been stated since, and may hold earlier names and whole numbers for fractions."""
    complete = complete_arch(arch(expansion=4)).model_dump()
    assert complete["rope_theta"] == 10000.0
    before = comparable_config({"arch": ARCH, "lr": 1})
    assert before == comparable_config({"arch": complete, "lr": 1})
    other = comparable_config({"arch": {**ARCH, "rope_theta": 500.0}})
    assert other["arch"] != before["arch"]


def test_what_cannot_be_read_stays_different():
    foreign = {"arch": {"name": "no.such@Thing", "loss": ARCH["loss"]}}
    assert comparable_config(foreign) == foreign


def test_the_published_configuration_is_read(tmp_path: Path):
    write_run(tmp_path / "run", seq_len=SEQ_LEN)
    assert read_yaml(tmp_path / "run" / "all_config.yaml")["arch"] == ARCH
    assert open_checkpoint(tmp_path / "run").seq_len == SEQ_LEN


# -- safetensors -------------------------------------------------------------------------------------------------------


def test_safetensors_are_opened_like_the_published_format(tmp_path: Path):
    run = tmp_path / "run"
    head = write_run(run)
    path = run / "model.safetensors"
    save_tensors(path, load_weights(run / "step_10"))
    said: list[str] = []
    checkpoint = open_checkpoint(path, say=said.append)
    assert different(checkpoint.weights, open_checkpoint(run / "step_10").weights) == []
    assert different(load_model(checkpoint, MACHINE, SEQ_LEN).state_dict(), head.state_dict()) == []
    new = make_head(arch(), VOCAB, SEQ_LEN, PUZZLES)
    start_from_weights(new, path, arch(), say=said.append)
    assert different(new.state_dict(), head.state_dict()) == []
    assert said == []

    for step in (3, 10):
        (run / f"step_{step}").unlink()
    assert open_checkpoint(run).path == path
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="model.safetensors is corrupted .*Load another step"):
        open_checkpoint(path)


def test_weights_without_a_checksum_are_loaded_and_named(tmp_path: Path):
    run = tmp_path / "run"
    head = write_run(run)
    save_file(dict(head.state_dict()), run / "model.safetensors")
    torch.save(head.state_dict(), run / "old", _use_new_zipfile_serialization=False)
    for name in ("model.safetensors", "old"):
        said: list[str] = []
        assert different(open_checkpoint(run / name, say=said.append).weights, head.state_dict()) == []
        assert said == [f"note: {run / name} has no checksum, so damage to it would not be noticed"]


# -- damage ------------------------------------------------------------------------------------------------------------


def test_a_run_folder_gives_its_newest_whole_weights(tmp_path: Path):
    write_run(tmp_path / "run")
    content = (tmp_path / "run" / "step_10").read_bytes()
    (tmp_path / "run" / "step_10").write_bytes(content[: len(content) // 2])
    said: list[str] = []
    assert open_checkpoint(tmp_path / "run", say=said.append).path.name == "step_3"
    assert "step_10 is corrupted" in said[0]
    with pytest.raises(UserError, match="step_10 is corrupted"):
        open_checkpoint(tmp_path / "run" / "step_10")


@pytest.mark.parametrize("damage", [b"arch: [", b"", b"# crc32 00000000 of the lines below\narch: {}\n"])
def test_a_damaged_configuration_is_taken_from_the_train_state(tmp_path: Path, damage: bytes):
    run = tmp_path / "run"
    head = write_run(run, seed=5)
    (run / "all_config.yaml").write_bytes(damage)
    with pytest.raises(UserError, match="all_config.yaml"):
        open_checkpoint(run)
    config = {"arch": ARCH, "seed": 5, RESOLVED: {"device": "cpu"}}
    write_pair(run, 12, published_weights(head), {"step": 12, "config": config})
    said: list[str] = []
    checkpoint = open_checkpoint(run / "step_3", say=said.append)
    assert checkpoint.config == {"arch": ARCH, "seed": 5}
    assert "all_config.yaml" in said[0]
    assert "so the configuration is taken from" in said[0]
    assert "step_12_train_state.pt" in said[0]
