"""Building a model from the arch section of a configuration, and the errors for sections that are wrong."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from models.factory import check_arch, complete_arch, known_arch_keys, make_head, model_class, resolve_arch
from models.losses import softmax_cross_entropy
from tests.models.small import ARCHITECTURES, CONFIG
from utils.config import validate
from utils.distributed import Ranks
from utils.errors import UserError
from utils.functions import load_model_class
from utils.settings import ArchConfig, PretrainConfig

FROM_DATA = ("vocab_size", "seq_len", "num_puzzle_identifiers")
OWN_KEYS = {key: value for key, value in CONFIG.items() if key not in FROM_DATA}


def arch(architecture: str = "trm", loss: Mapping[str, Any] | None = None, **own_keys: Any) -> ArchConfig:
    return ArchConfig.model_validate(
        {
            "name": f"recursive_reasoning.{ARCHITECTURES.get(architecture, architecture)}",
            "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy", **(loss or {})},
            **OWN_KEYS,
            **own_keys,
        }
    )


def refusal(config: ArchConfig) -> str:
    with pytest.raises(UserError) as caught:
        check_arch(config)
    return str(caught.value)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_made_is_the_one_its_class_makes(architecture: str):
    config = arch(architecture, {"loss_type": "softmax_cross_entropy"})
    torch.manual_seed(0)
    head = make_head(config, CONFIG["vocab_size"], CONFIG["seq_len"], CONFIG["num_puzzle_identifiers"])
    torch.manual_seed(0)
    plain = load_model_class(config.name)(CONFIG)
    assert type(head.model) is type(plain) is model_class(config)
    assert head.loss_fn is softmax_cross_entropy
    assert head.model.config == plain.config
    mine, theirs = head.model.state_dict(), plain.state_dict()
    assert set(mine) == set(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unknown_keys_are_answered_with_the_nearest_one(architecture: str):
    lines = refusal(arch(architecture, L_cycle=4, hiden_size=8)).splitlines()
    assert lines[0].startswith("arch.L_cycle: no such key. Did you mean 'L_cycles'? Allowed are H_cycles, ")
    assert lines[1].startswith("  arch.hiden_size: no such key. Did you mean 'hidden_size'? Allowed are H_cycles, ")


@pytest.mark.parametrize("key", [*FROM_DATA, "batch_size"])
def test_sizes_of_the_data_are_no_keys(key: str):
    assert key not in known_arch_keys(arch())
    assert f"arch.{key}: no such key." in refusal(arch("trm", None, **{key: 5}))


def test_keys_of_one_architecture_are_unknown_to_another():
    check_arch(arch("transformers_baseline", act_inference=True))
    assert "arch.act_inference: no such key." in refusal(arch("trm", act_inference=True))
    check_arch(arch("hrm", puzzle_emb_len=16))  # published configurations hold it


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("L_cycles", 0, "arch.L_cycles=0: input should be greater than or equal to 1"),
        ("hidden_size", "wide", "arch.hidden_size='wide': input should be a valid integer"),
        ("pos_encodings", "sine", "arch.pos_encodings='sine': input should be 'rope', 'learned' or 'none'"),
        ("forward_dtype", "bf16", "arch.forward_dtype='bf16': input should be 'bfloat16', 'float32' or 'float16'"),
        ("halt_exploration_prob", 1.5, "arch.halt_exploration_prob=1.5: input should be less than or equal to 1"),
        ("mlp_t", "maybe", "arch.mlp_t='maybe': input should be a valid boolean"),
    ],
)
def test_wrong_values_are_shown_with_what_is_allowed(key: str, value: Any, expected: str):
    assert expected in refusal(arch(**{key: value}))


@pytest.mark.parametrize(
    ("own_keys", "expected"),
    [
        ({"num_heads": 32}, "num_heads 32: at most hidden_size, 16"),
        ({"num_heads": 5}, "hidden_size 16 // num_heads 5 is odd"),
        ({"puzzle_emb_ndim": 64, "puzzle_emb_len": 3}, "puzzle_emb_ndim 64 does not fit in puzzle_emb_len 3 tokens"),
    ],
)
def test_values_that_do_not_go_together(own_keys: dict[str, Any], expected: str):
    assert expected in refusal(arch(**own_keys))


def test_a_message_that_belongs_to_no_single_key_names_none():
    assert "arch.:" not in refusal(arch(num_heads=32))


def test_six_latents_have_at_most_six_cycles():
    check_arch(arch("trm_hier6", L_cycles=6))
    assert "L_cycles" in refusal(arch("trm_hier6", L_cycles=7))


@pytest.mark.parametrize("name", ["losses@ACTLossHead", "layers@Block"])
def test_a_class_that_is_no_architecture(name: str):
    config = arch()
    config.name = name
    assert f"arch.name='{name}' is no architecture" in refusal(config)


def test_classes_that_do_not_exist():
    assert "there is no module models.recursive_reasoning.tmr. Did you mean 'trm'?" in refusal(arch("tmr@X"))
    assert "has no class TinyRecursiveModl. Did you mean 'TinyRecursiveModel'?" in refusal(
        arch("trm@TinyRecursiveModl")
    )


@pytest.mark.parametrize("name", ["losses@Score", "ema@EMA", "recursive_reasoning.trm@TinyRecursiveModel"])
def test_a_class_that_is_no_loss(name: str):
    assert f"arch.loss.name='{name}' is no loss head for puzzles; use losses@ACTLossHead" in refusal(
        arch(loss={"name": name})
    )


def test_losses_that_do_not_exist():
    said = refusal(arch(loss={"loss_type": "cross_entropy"}))
    assert said == ("arch.loss.loss_type='cross_entropy': allowed are stablemax_cross_entropy, softmax_cross_entropy.")
    assert "Did you mean 'ACTLossHead'" in refusal(arch(loss={"name": "losses@ACTLosHead"}))


def test_a_head_is_not_made_from_what_does_not_fit():
    with pytest.raises(UserError, match="no such key"):
        make_head(arch(L_cycle=4), 5, 5, 1)


def test_a_dtype_that_depends_on_the_machine_is_settled_before_a_model_is_made():
    check_arch(arch(forward_dtype="auto"))
    with pytest.raises(UserError, match=r"arch\.forward_dtype=auto depends on the machine"):
        make_head(arch(forward_dtype="auto"), 7, 6)
    head = make_head(arch(forward_dtype="auto"), 7, 6, dtype="float32")
    assert head.model.inner.dtype == torch.float32
    config = validate(PretrainConfig, {"arch": arch(forward_dtype="auto"), "device": "cpu"})
    machine, settled = resolve_arch(config, Ranks())
    assert machine.dtype in ("bfloat16", "float32")
    assert settled.arch.own_keys["forward_dtype"] == "auto"  # what was asked for
    assert set(settled.arch.own_keys) == known_arch_keys(arch())


def test_a_settled_architecture_has_every_key():
    settled = complete_arch(arch())
    assert set(settled.own_keys) == known_arch_keys(arch())
    assert complete_arch(settled) == settled
