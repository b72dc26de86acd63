"""The files of a checkpoint: `step_<N>` has the weights in the published format, `step_<N>_train_state.pt` the rest.

Resuming needs both (`utils.checkpoint_pair`); evaluation and a new run from the weights need only the weights, which
may also be a safetensors file.

A file is written under a temporary name and then renamed, so a checkpoint is either complete or absent. The train state
is written after the weights, so if it exists, the weights exist too.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.atomic_file import replacing
from utils.errors import UserError
from utils.safetensors_file import CHECKSUM, SUFFIX, load_tensors, read_metadata
from utils.torch_file import has_checksums, load_torch_file

COMPILED_PREFIX = "_orig_mod."  # published weights come from a compiled model; the published code expects this
TRAIN_STATE_SUFFIX = "_train_state.pt"
TRAIN_STATE_VERSION = 1


def weights_path(folder: Path, step: int) -> Path:
    """The path of the weights of `step`."""
    return folder / f"step_{step}"


def train_state_path(folder: Path, step: int) -> Path:
    """The path of the train state of `step`."""
    return folder / f"step_{step}{TRAIN_STATE_SUFFIX}"


def published_weights(head: nn.Module) -> dict[str, Tensor]:
    """Copies of the current weights of `head`, on the CPU, under their published names."""
    return {COMPILED_PREFIX + name: value.to("cpu", copy=True) for name, value in head.state_dict().items()}


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write weights, under their published names, to a file in the published format.

    Raises:
        UserError: the file cannot be written.
    """
    _save(weights, path)


def save_weights(folder: Path, step: int, head: nn.Module) -> None:
    """Write the current weights of `head` under their published names."""
    write_weights(weights_path(folder, step), published_weights(head))


def save_train_state(folder: Path, step: int, state: dict[str, Any], keep: int | None = None) -> None:
    """Write the train state of `step`, then delete all but the `keep` newest train states (None: delete none)."""
    _save({"version": TRAIN_STATE_VERSION, **state}, train_state_path(folder, step))
    if keep is not None:
        for old in train_state_steps(folder)[:-keep]:
            train_state_path(folder, old).unlink()


def load_weights(path: Path, compare_checksums: bool = True) -> dict[str, Tensor]:
    """The state dict of a weights file, memory-mapped, with the names of an uncompiled `ACTLossHead`.

    Args:
        path: a file of torch.save, or of safetensors if it has this suffix.
        compare_checksums: see `load_torch_file`.

    Raises:
        DamagedFileError: the file is corrupted.
        UserError: the file is missing, cannot be read, or does not hold weights.
    """
    content = _load(path, compare_checksums)
    state = content.get("model_state_dict", content)  # URM keeps weights and the state of its optimizers in one file
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        raise UserError(f"{path} is no weights file: expected a dictionary of tensors.{_train_state_hint(path)}")
    for name, value in state.items():
        if not _holds_its_values(value):
            raise UserError(
                f"{path} is no weights file: {name} claims the shape {list(value.shape)}, and the file does not hold "
                "as many values. Load another step."
            )
    names = {name: name.removeprefix(COMPILED_PREFIX) for name in state if not _masks_nothing(state, name)}
    return {new if new.startswith("model.") else f"model.{new}": state[old] for old, new in names.items()}


def has_checksum(path: Path) -> bool:
    """Whether `load_weights` can notice that a bit of the weights file has changed.

    All files of this program can be checked, and of others those that torch wrote since version 1.6.
    """
    return CHECKSUM in read_metadata(path) if path.suffix == SUFFIX else has_checksums(path)


def load_train_state(path: Path, compare_checksums: bool = True) -> dict[str, Any]:
    """Read a train state.

    Args:
        path: the file.
        compare_checksums: see `load_torch_file`.

    Raises:
        DamagedFileError: the file is corrupted.
        UserError: the file is missing, cannot be read, or has another version.
    """
    state = _load(path, compare_checksums)
    if state.get("version") != TRAIN_STATE_VERSION:
        raise UserError(
            f"{path} is no train state of version {TRAIN_STATE_VERSION}. Load the weights beside it instead "
            f"(load_checkpoint={str(path).removesuffix(TRAIN_STATE_SUFFIX)}), which starts a new run from them."
        )
    return state


def steps_with_both_files(folder: Path) -> list[int]:
    """The steps in `folder` of which there are the weights and the train state, the oldest first."""
    return [step for step in train_state_steps(folder) if weights_path(folder, step).exists()]


def latest_step(folder: Path) -> int | None:
    """The newest step in `folder` of which there are both files, or None if there is none."""
    return max(steps_with_both_files(folder), default=None)


def all_weights(folder: Path) -> list[Path]:
    """The weights files in `folder`, the best to load last: the steps `step_<N>` in their order.

    Without any of them, the safetensors files of steps, and else `model.safetensors`.

    Raises:
        UserError: the folder holds no weights.
    """
    for suffix in ("", SUFFIX):
        names = [path.name.removeprefix("step_").removesuffix(suffix) for path in folder.glob(f"step_*{suffix}")]
        if steps := sorted(int(name) for name in names if name.isdigit()):
            return [folder / f"step_{step}{suffix}" for step in steps]
    if (folder / f"model{SUFFIX}").exists():
        return [folder / f"model{SUFFIX}"]
    raise UserError(f"load_checkpoint={folder}: there is no step_<N> in this folder, nor model{SUFFIX}.")


def check_fits(state: dict[str, Tensor], module: nn.Module, path: Path, skip: tuple[str, ...] = ()) -> None:
    """Refuse weights of another architecture.

    Args:
        state: the weights, as `load_weights` returns them.
        module: the module that is to load them.
        path: the file that they come from, for the message.
        skip: names whose shapes may differ.

    Raises:
        UserError: names or shapes differ, or values are of another kind, such as whole numbers where the model has
            floating point, of whatever precision; the message lists the first few differences.
    """
    mine = module.state_dict()
    missing = [name for name in mine if name not in state]
    foreign = [name for name in state if name not in mine]
    shapes = [
        f"{name} is {list(state[name].shape)}, the model's {list(value.shape)}"
        for name, value in mine.items()
        if name in state and name not in skip and state[name].shape != value.shape
    ]
    dtypes = [
        f"{name} is {state[name].dtype}, the model's {value.dtype}"
        for name, value in mine.items()
        if name in state and not _may_be_cast(state[name].dtype, value.dtype)
    ]
    differences = [
        *(f"it lacks {name}" for name in missing),
        *(f"it has {name}, which the model lacks" for name in foreign),
        *shapes,
        *dtypes,
    ]
    if differences:
        more = f"\n  and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise UserError(
            f"{path} holds another architecture:\n  " + "\n  ".join(differences[:4]) + more + "\n"
            "Set arch to what the all_config.yaml beside the checkpoint says."
        )


def _may_be_cast(given: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether weights of one dtype may be loaded into another: floating point of any precision is the same kind."""
    return given == wanted or (given.is_floating_point and wanted.is_floating_point)


def _masks_nothing(state: dict[str, Tensor], name: str) -> bool:
    """Whether an entry is a mask of ones for a weight beside it, as FPRM writes one for each linear layer."""
    weight = state.get(f"{name.removesuffix('.mask')}.weight") if name.endswith(".mask") else None
    return weight is not None and weight.shape == state[name].shape and bool((state[name] == 1).all())


def _holds_its_values(value: Tensor) -> bool:
    """Whether a tensor is an ordinary one with all its values, not a few of them repeated by its strides."""
    if value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def weights_steps(folder: Path) -> list[int]:
    """The steps of the weights in `folder`, in order."""
    return sorted(int(path.name[5:]) for path in folder.glob("step_*") if path.name[5:].isdigit())


def train_state_steps(folder: Path) -> list[int]:
    """The steps of the train states in `folder`, in order."""
    pattern = re.compile(rf"step_(\d+){re.escape(TRAIN_STATE_SUFFIX)}")
    matches = (pattern.fullmatch(path.name) for path in folder.glob("step_*"))
    return sorted(int(match[1]) for match in matches if match)


def _save(content: object, path: Path) -> None:
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError that wraps the operating system's error
        causes = [error, error.__context__, error.__cause__]
        cause = next((e for e in causes if isinstance(e, OSError)), error)
        raise UserError(
            f"could not write the checkpoint {path}: {cause}. The checkpoints written before are untouched. "
            "Free some space or choose another checkpoint_path, then go on with load_checkpoint=latest."
        ) from error


def _load(path: Path, compare_checksums: bool) -> dict[str, Any]:
    mend = "Load another step."
    try:
        if path.is_dir():
            raise FileNotFoundError
        content: Any
        if path.suffix == SUFFIX:
            content = load_tensors(path, mend)
        else:
            content = load_torch_file(path, mend, compare_checksums)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"load_checkpoint: there is no file {path}.{_train_state_hint(path)}") from None
    except OSError as error:
        raise UserError(f"load_checkpoint: {path} cannot be read ({error}). Load another step.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}.")
    return content


def _train_state_hint(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    names = sorted(file.name for file in folder.glob("step_*")) if folder.is_dir() else []
    return f" In {folder} there are: {', '.join(names[:8])}." if names else ""
