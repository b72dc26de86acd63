"""From the `arch` section of a configuration to a model with its loss head."""

from collections.abc import Mapping
from typing import Any, Literal

from models.act import ACTModel
from models.losses import ACTLossHead
from models.text.loss import TextLossHead
from models.text.model import TextModel
from utils.config import ArchConfig, unknown_key, validate
from utils.errors import UserError
from utils.functions import load_model_class

PUZZLE_TABLE = "model.inner.puzzle_emb.weights"  # the name of the puzzle embedding in a state dict of a loss head

Data = Literal["puzzles", "text"]
_LOSS_HEADS: dict[Data, str] = {"puzzles": "losses@ACTLossHead", "text": "text.loss@TextLossHead"}

# filled in from the data, so not keys of a configuration
_FROM_DATA = {"vocab_size", "seq_len", "num_puzzle_identifiers", "batch_size"}


def model_class(arch: ArchConfig) -> type[ACTModel]:
    """The class that `arch.name` names.

    Raises:
        UserError: it is no architecture.
    """
    found = load_model_class(arch.name)
    if not issubclass(found, ACTModel):
        raise UserError(f"arch.name={arch.name!r} is no architecture; config/arch/ has one file for each.")
    return found


def known_arch_keys(arch: ArchConfig) -> set[str]:
    """The keys that a configuration of this architecture may have."""
    return set(model_class(arch).inner_class.config_class.model_fields) - _FROM_DATA


def check_arch(arch: ArchConfig, data: Data = "puzzles") -> None:
    """Refuse architectures for other data, keys that the class does not know, and values that it does not take.

    Raises:
        UserError: one line for each such key.
    """
    found = model_class(arch)
    if issubclass(found, TextModel) != (data == "text"):
        other, script = ("puzzles", "pretrain.py") if data == "text" else ("text", "pretrain_text.py")
        raise UserError(f"arch.name={arch.name!r} is an architecture for {other}: use it with {script}.")
    config_class = found.inner_class.config_class
    allowed = known_arch_keys(arch)
    unknown = [key for key in arch.own_keys if key not in allowed]
    if unknown:
        raise UserError("\n  ".join(unknown_key(f"arch.{key}", key, allowed) for key in unknown))
    validate(config_class, {**arch.own_keys, "vocab_size": 1, "seq_len": 1}, where="arch.")
    loss = load_model_class(arch.loss.name)
    if not issubclass(loss, ACTLossHead) or issubclass(loss, TextLossHead) != (data == "text"):
        raise UserError(f"arch.loss.name={arch.loss.name!r} is no loss head for {data}; use {_LOSS_HEADS[data]}.")
    if arch.loss.loss_type not in loss.loss_types:
        raise UserError(f"arch.loss.loss_type={arch.loss.loss_type!r}: allowed are {', '.join(loss.loss_types)}.")


def make_head(
    arch: ArchConfig, vocab_size: int, seq_len: int, num_puzzle_identifiers: int = 1, data: Data = "puzzles"
) -> ACTLossHead:
    """A freshly initialised model in its loss head, on the CPU: for text a `TextLossHead`."""
    check_arch(arch, data)
    config: Mapping[str, Any] = {
        **arch.own_keys,
        "vocab_size": vocab_size,
        "seq_len": seq_len,
        "num_puzzle_identifiers": num_puzzle_identifiers,
    }
    return load_model_class(arch.loss.name)(model_class(arch)(config), arch.loss.loss_type)
