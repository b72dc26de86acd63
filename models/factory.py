"""Builds a model with its loss head from the `arch` section of a configuration."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from torch import nn

from models.act import ACTModel
from models.inner import RecursionConfig
from models.lattice.board import Board
from models.lattice.loss_head import LatticeLossHead
from models.lattice.network import LatticeConfig
from models.losses import ACTLossHead
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from models.text.loss import TextLossHead
from models.text.model import TextModel
from utils.config import unknown_key, validate
from utils.distributed import Ranks
from utils.errors import UserError
from utils.functions import canonical_name, load_class
from utils.machine import Machine, choose_machine
from utils.settings import ArchConfig, TrainingConfig

PUZZLE_TABLE = "model.inner.puzzle_emb.weights"  # the name of the puzzle embedding in a state dict of a loss head

Data = Literal["puzzles", "text"]
ConfigT = TypeVar("ConfigT", bound=TrainingConfig)
_LOSS_HEADS: dict[Data, str] = {"puzzles": "losses@ACTLossHead", "text": "text.loss@TextLossHead"}
_LATTICE_HEAD = "lattice.loss_head@LatticeLossHead"

# filled in from the data and the run, so they are not configuration keys
_FILLED_IN = {"vocab_size", "seq_len", "num_puzzle_identifiers", "batch_size", "recompute"}


def model_class(arch: ArchConfig) -> type[ACTModel]:
    """The class that `arch.name` names.

    Raises:
        UserError: it is not an architecture.
    """
    cls = load_class(arch.name)
    if not issubclass(cls, ACTModel):
        raise UserError(f"arch.name={arch.name!r} is no architecture; config/arch/ has one file for each.")
    return cls


def model_config(arch: ArchConfig) -> RecursionConfig:
    """The keys of the architecture's class as an instance of its settings, with sizes of the data of 1."""
    return model_class(arch).inner_class.config_class(**{**_without_auto(arch), "vocab_size": 1, "seq_len": 1})


def known_arch_keys(arch: ArchConfig) -> set[str]:
    """The keys that a configuration of this architecture may have, under their names here and under published ones."""
    schema = model_class(arch).inner_class.config_class
    return {*schema.model_fields, *schema.published_names} - _FILLED_IN


def check_arch(arch: ArchConfig, data: Data = "puzzles") -> None:
    """Check that the architecture is for this kind of data and that its class accepts every key and value.

    Raises:
        UserError: it is not; one line for each key that is not accepted.
    """
    cls = model_class(arch)
    if issubclass(cls, TextModel) != (data == "text"):
        other, script = ("puzzles", "pretrain.py") if data == "text" else ("text", "pretrain_text.py")
        raise UserError(f"arch.name={arch.name!r} is an architecture for {other}: use it with {script}.")
    config_class = cls.inner_class.config_class
    allowed = known_arch_keys(arch)
    unknown = [key for key in arch.own_keys if key not in allowed]
    if unknown:
        raise UserError("\n  ".join(unknown_key(f"arch.{key}", key, allowed) for key in unknown))
    validate(config_class, {**_without_auto(arch), "vocab_size": 1, "seq_len": 1}, where="arch.")
    loss = load_class(arch.loss.name)
    if not issubclass(loss, ACTLossHead) or issubclass(loss, TextLossHead) != (data == "text"):
        raise UserError(f"arch.loss.name={arch.loss.name!r} is no loss head for {data}; use {_LOSS_HEADS[data]}.")
    if issubclass(cls, LatticeDeductionTransformer) != issubclass(loss, LatticeLossHead):
        raise UserError(
            f"arch.loss.name={arch.loss.name!r} does not fit arch.name={arch.name!r}: the LDT, and no other "
            f"architecture, needs {_LATTICE_HEAD}."
        )
    if arch.loss.loss_type not in loss.loss_types:
        raise UserError(f"arch.loss.loss_type={arch.loss.loss_type!r}: allowed are {', '.join(loss.loss_types)}.")


def resolve_arch(config: ConfigT, ranks: Ranks, data: Data = "puzzles") -> tuple[Machine, ConfigT]:
    """The machine that a run uses, with the dtype of its recursion, and the configuration with all keys of `arch`.

    An `arch.forward_dtype=auto` stays in the configuration, because the run may go on on another machine; the dtype
    that this machine computes in is `Machine.dtype`.

    Raises:
        UserError: a key or a value of the architecture is not accepted, or the device is not available.
    """
    check_arch(config.arch, data)
    dtype = config.arch.own_keys.get("forward_dtype") or _default_dtype(config.arch)
    precision, deterministic = config.matmul_precision, config.deterministic
    machine = choose_machine(config.device, dtype, config.compile, ranks.local_rank, precision, deterministic)
    return machine, config.model_copy(update={"arch": complete_arch(config.arch, data)})


def complete_arch(arch: ArchConfig, data: Data = "puzzles") -> ArchConfig:
    """`arch` with every key of its class; missing keys get their defaults.

    Args:
        arch: the architecture; it is checked (`check_arch`).
        data: the kind of data that the architecture must be for.

    Raises:
        UserError: a key or a value is not accepted.
    """
    check_arch(arch, data)
    return ArchConfig(name=arch.name, loss=arch.loss, **_all_keys(arch))


def with_board(config: ConfigT, board_of_data: Callable[[], Mapping[str, Any] | None]) -> ConfigT:
    """The configuration with the boards of the task, for an architecture that needs to know them (the LDT).

    Args:
        config: a configuration with all keys of its architecture.
        board_of_data: the keys of `models.lattice.board.Board`; None: the task of the data is unknown.

    Raises:
        UserError: the task does not have what the architecture needs.
    """
    if not issubclass(model_class(config.arch).inner_class.config_class, LatticeConfig):
        return config
    values, own_keys = board_of_data(), config.arch.own_keys
    if values is None:
        return config
    board = Board.model_validate(values)
    keys: dict[str, Any] = {"symmetries": own_keys["symmetries"]}
    if keys["symmetries"] == "auto":
        keys["symmetries"] = board.has_symmetries
    # a Sudoku follows from the sizes, so that its configurations stay those that they were
    plain = board.follows_from_sizes and own_keys["pos_encodings"] != "relations"
    keys["board"] = None if plain else board.model_dump()
    arch = config.arch
    return config.model_copy(update={"arch": ArchConfig(name=arch.name, loss=arch.loss, **{**own_keys, **keys})})


def comparable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved configuration in the current form, for comparison: its architecture complete and under current names.

    A configuration that this code cannot read is returned unchanged, so that the comparison finds a difference.
    """
    try:
        arch = ArchConfig.model_validate(config["arch"])
        complete = _all_keys(arch)
    except (KeyError, ValueError):
        return dict(config)
    renamed = model_class(arch).inner_class.config_class.published_names
    values = {key: value for key, value in {**arch.model_dump(), **complete}.items() if key not in renamed}
    values["name"] = canonical_name(arch.name)
    values["loss"] = {**arch.loss.model_dump(), "name": canonical_name(arch.loss.name)}
    return {**config, "arch": values}


def _all_keys(arch: ArchConfig) -> dict[str, Any]:
    """The keys that are given, and the defaults of the other keys of the architecture's class."""
    own_keys = _without_auto(arch)
    kept = {"forward_dtype": "auto"} if own_keys != arch.own_keys else {}
    return model_config(arch).model_dump(exclude=_FILLED_IN) | kept


def _without_auto(arch: ArchConfig) -> dict[str, Any]:
    """The keys that are given, without forward_dtype=auto, which is no dtype of a model."""
    return {key: value for key, value in arch.own_keys.items() if (key, value) != ("forward_dtype", "auto")}


def make_head(
    arch: ArchConfig,
    vocab_size: int,
    seq_len: int,
    num_puzzle_identifiers: int = 1,
    data: Data = "puzzles",
    recompute: bool = False,
    dtype: str | None = None,
) -> ACTLossHead:
    """A newly initialised model in its loss head (for text a `TextLossHead`), on the CPU.

    Args:
        arch: the architecture.
        vocab_size, seq_len, num_puzzle_identifiers: sizes of the data.
        data: the kind of data that the architecture must be for.
        recompute: recompute activations in the backward pass (activation_checkpointing).
        dtype: dtype of the recursion (`Machine.dtype`); None: the configured one, which must not be `auto`.

    Raises:
        UserError: a key or a value is not accepted.
    """
    check_arch(arch, data)
    if dtype is None and arch.own_keys.get("forward_dtype") == "auto":
        raise UserError("arch.forward_dtype=auto depends on the machine: see models.factory.resolve_arch.")
    config: Mapping[str, Any] = {
        **arch.own_keys,
        **({} if dtype is None else {"forward_dtype": dtype}),
        "vocab_size": vocab_size,
        "seq_len": seq_len,
        "num_puzzle_identifiers": num_puzzle_identifiers,
        "recompute": recompute,
    }
    return load_class(arch.loss.name)(model_class(arch)(config), arch.loss.loss_type)


def count_parameters(module: nn.Module) -> int:
    """Number of scalars in all parameters. Buffers, such as the puzzle embedding, do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def _default_dtype(arch: ArchConfig) -> str:
    return model_class(arch).inner_class.config_class.model_fields["forward_dtype"].default
