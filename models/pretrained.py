"""Loads a model, ready to use, from a checkpoint or a run folder. All programs load their models here.

checkpoint = open_checkpoint("checkpoints/Sudoku/mine")            # or a file step_<N> in it
head = load_model(checkpoint, choose_machine("auto", "auto"))
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from models.factory import PUZZLE_TABLE, Data, check_arch, comparable_config, known_arch_keys, make_head
from models.losses import ACTLossHead
from utils.checkpoint import (
    check_fits,
    has_checksum,
    load_train_state,
    load_weights,
    steps_with_both_files,
    train_state_path,
)
from utils.checkpoint_pair import newest_whole_weights
from utils.config import read_yaml, validate
from utils.data_record import read_sizes
from utils.errors import DamagedFileError, UserError
from utils.machine import Machine
from utils.settings import RESOLVED, ArchConfig

TOKEN_TABLE = "model.inner.embed_tokens.embedding_weight"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoint:
    """A weights file, and what is known about the run that wrote it.

    Attributes:
        path: the weights file.
        weights: its tensors by name, memory-mapped.
        config: the configuration of the run, from its all_config.yaml: what was asked for.
        arch: its architecture.
    """

    path: Path
    weights: dict[str, Tensor]
    config: dict[str, Any]
    arch: ArchConfig

    @property
    def folder(self) -> Path:
        """The folder with the other files of the run."""
        return self.path.parent

    @property
    def puzzle_rows(self) -> int | None:
        """Rows of the puzzle embedding; None: the model has none."""
        return len(self.weights[PUZZLE_TABLE]) if PUZZLE_TABLE in self.weights else None

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary that the model was trained with: that of its token embedding, or as recorded.

        Raises:
            UserError: the weights have no token embedding, and the run recorded no size.
        """
        if TOKEN_TABLE not in self.weights:
            if (known := read_sizes(self.folder).get("vocab_size")) is not None:
                return known
            raise UserError(f"{self.path} has no {TOKEN_TABLE}, so these are no weights of a model of this program.")
        return len(self.weights[TOKEN_TABLE])

    @property
    def seq_len(self) -> int:
        """Tokens per example, as recorded by the run.

        Raises:
            UserError: the run did not record it; published runs do not.
        """
        known = self.config.get("seq_len") or read_sizes(self.folder).get("seq_len")
        if known is None:
            raise UserError(f"{self.folder} does not say how long an example is: give seq_len.")
        return known


def open_checkpoint(
    path: Path | str,
    config_file: Path | str | None = None,
    arch: Mapping[str, Any] | None = None,
    force: bool = False,
    say: Say = print,
) -> Checkpoint:
    """Open one of our checkpoints or a published one.

    Args:
        path: a weights file step_<N> or *.safetensors, or a run folder, whose newest whole weights file is opened.
        config_file: the configuration of its run; None: the all_config.yaml beside it.
        arch: keys of the architecture, which must have the values of the checkpoint unless `force`.
        force: use the values in `arch` even if they differ.
        say: called with each note and warning.

    Raises:
        UserError: the file, or the configuration, is missing or broken, or `arch` differs from it.
    """
    path = Path(path)
    path, weights = newest_whole_weights(path, say) if path.is_dir() else (path, load_weights(path))
    _say_if_unchecked(path, say)
    config_path = Path(config_file) if config_file else path.parent / "all_config.yaml"
    if not config_path.exists():
        raise UserError(
            f"{config_path} is missing: it says what the checkpoint's architecture is. Put the run's all_config.yaml "
            "beside the checkpoint, or give load_config=FILE."
        )
    saved = read_yaml(config_path) if config_file else _read_config(config_path, say)
    config = {key: value for key, value in saved.items() if key != RESOLVED}
    if not isinstance(config.get("arch"), dict):
        raise UserError(f"{config_path} has no section arch, so it does not say what the checkpoint's architecture is.")
    return Checkpoint(path, weights, config, _choose_arch(config["arch"], arch or {}, force, say))


def load_model(
    checkpoint: Checkpoint,
    machine: Machine,
    seq_len: int | None = None,
    vocab_size: int | None = None,
    data: Data = "puzzles",
) -> ACTLossHead:
    """The model of a checkpoint in its loss head, on the device, in evaluation mode and without gradients.

    Args:
        checkpoint: what to load.
        machine: the device and the dtype.
        seq_len: tokens per example; None: as recorded by the run.
        vocab_size: size of the vocabulary; None: that of the weights.
        data: the kind of data that the model must be for.

    Raises:
        UserError: the weights do not fit this architecture and these sizes.
    """
    vocab_size, seq_len = vocab_size or checkpoint.vocab_size, seq_len or checkpoint.seq_len
    head = make_head(checkpoint.arch, vocab_size, seq_len, checkpoint.puzzle_rows or 1, data, dtype=machine.dtype)
    check_fits(checkpoint.weights, head, checkpoint.path)
    dtypes = {name: value.dtype for name, value in head.state_dict().items()}
    weights = {name: value.to(dtypes[name]) for name, value in checkpoint.weights.items()}
    head.load_state_dict(weights, assign=True)  # without a copy of a large table, which stays memory-mapped
    return head.to(machine.device).requires_grad_(False).eval()


def start_from_weights(
    head: ACTLossHead, path: Path, arch: ArchConfig, same_puzzles: bool | None = True, say: Say = print
) -> None:
    """Start a new run from the weights of another one.

    Args:
        head: a new model, which receives the weights.
        path: the weights file.
        arch: the architecture of the new run; differences from that of the weights are reported.
        same_puzzles: whether the rows of the puzzle embedding belong to the same puzzles; None: unknown. If they do
            not, or their number differs, all rows start at the mean of the trained rows.
        say: called with each note and warning.

    Raises:
        UserError: the weights do not fit this architecture.
    """
    weights = load_weights(path)
    _say_if_unchecked(path, say)
    warn_of_other_arch(path.parent / "all_config.yaml", arch, say)
    check_fits(weights, head, path, skip=(PUZZLE_TABLE,))
    if PUZZLE_TABLE in weights:
        rows, width = head.state_dict()[PUZZLE_TABLE].shape
        loaded = weights[PUZZLE_TABLE]
        if loaded.shape[1] != width:
            raise UserError(f"{path}: puzzle embeddings of width {loaded.shape[1]}, arch.puzzle_emb_ndim is {width}.")
        if len(loaded) != rows or same_puzzles is False:
            say(f"puzzle table: {len(loaded)} rows in the checkpoint, {rows} of other puzzles here: all rows start at "
                "the mean of it")  # fmt: skip
            weights[PUZZLE_TABLE] = loaded.mean(0, keepdim=True).expand(rows, -1)
    head.load_state_dict(weights)


def warn_of_other_arch(trained_config: Path, arch: ArchConfig, say: Say = print) -> None:
    """Report the architecture keys that differ from those of the weights, since not all of them change a shape."""
    if not trained_config.exists():
        say(f"note: there is no {trained_config}, so the architecture cannot be compared with that of the weights")
        return
    before = comparable_config(read_yaml(trained_config)).get("arch") or {}
    now = comparable_config({"arch": arch.model_dump()})["arch"]
    for key in sorted({*before, *now} - {"forward_dtype"}):
        if before.get(key) != now.get(key):
            say(f"warning: the weights were trained with arch.{key}={before.get(key)!r}, here it is {now.get(key)!r}")


def _read_config(path: Path, say: Say) -> dict[str, Any]:
    """The configuration in a run folder; if its file is damaged, as the newest train state beside it has it."""
    try:
        return read_yaml(path)
    except DamagedFileError as error:
        steps = steps_with_both_files(path.parent)
        if not steps:
            raise
        state = train_state_path(path.parent, steps[-1])
        config = load_train_state(state).get("config")
        if not isinstance(config, dict):
            raise
        say(f"warning: {error}\nwarning: so the configuration is taken from {state}")
        return config


def _say_if_unchecked(path: Path, say: Say) -> None:
    if not has_checksum(path):
        say(f"note: {path} has no checksum, so damage to it would not be noticed")


def _choose_arch(own: dict[str, Any], wanted: Mapping[str, Any], force: bool, say: Say) -> ArchConfig:
    """The checkpoint's architecture with the wanted values; one that differs is refused unless forced."""
    changed = {key: value for key, value in wanted.items() if key not in own or own[key] != value}
    if changed and not force:
        lines = [f"arch.{key}={value!r}, the checkpoint has {own.get(key)!r}" for key, value in changed.items()]
        raise UserError(
            "the checkpoint was trained with another architecture:\n  " + "\n  ".join(lines) + "\n"
            "Its weights would run, and give wrong answers. Leave arch out, or add force=true if you mean it."
        )
    for key, value in changed.items():
        say(f"warning: forced arch.{key}={value!r}; the checkpoint was trained with {own.get(key)!r}")
    arch = validate(ArchConfig, {**own, **wanted}, where="arch.")
    foreign = sorted(set(arch.own_keys) - known_arch_keys(arch))
    if foreign:
        if any(key in wanted for key in foreign):
            check_arch(arch)  # says what is allowed
        say(f"dropped unknown architecture keys: {', '.join(f'arch.{key}' for key in foreign)}")
        kept = {key: value for key, value in arch.own_keys.items() if key not in foreign}
        arch = ArchConfig(name=arch.name, loss=arch.loss, **kept)
    return arch
