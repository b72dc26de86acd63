"""The weights and the train state of a step as one checkpoint, which is whole if both are, and belong together.

The train state has the digest of the weights that were written with it, so the files of two runs or of two steps are
not taken for a pair. Train states of earlier versions have none; of them only the step is compared.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.checkpoint import (
    TRAIN_STATE_SUFFIX,
    all_weights,
    load_train_state,
    load_weights,
    save_train_state,
    steps_with_both_files,
    train_state_path,
    weights_path,
    write_weights,
)
from utils.errors import DamagedFileError
from utils.torch_file import archive_digest

WEIGHTS_DIGEST = "weights_digest"  # key of the train state
Say = Callable[[str], None]


def write_pair(folder: Path, step: int, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the weights and then the train state of `step`.

    Args:
        folder: the run folder.
        step: the step.
        weights: the weights under their published names.
        state: the rest of the state.

    Raises:
        UserError: a file cannot be written.
    """
    for unfinished in folder.glob(".step_*.writing"):  # of a process that was killed while it wrote
        if re.fullmatch(rf"\.step_\d+({re.escape(TRAIN_STATE_SUFFIX)})?\.writing", unfinished.name):
            with suppress(OSError):
                unfinished.unlink()
    write_weights(weights_path(folder, step), weights)
    digest = archive_digest(weights_path(folder, step))
    save_train_state(folder, step, {**state, WEIGHTS_DIGEST: digest})


def load_pair(folder: Path, step: int, compare_checksums: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, train state) of `step`; see `load_weights` and `load_train_state`.

    Raises:
        DamagedFileError: one of the files is corrupted, or they do not belong together.
        UserError: one of the files is missing, cannot be read, or is no weights file or no train state.
    """
    weights_file, state_file = weights_path(folder, step), train_state_path(folder, step)
    state = load_train_state(state_file, compare_checksums)
    weights = load_weights(weights_file, compare_checksums)
    if state.get("step", step) != step:
        raise DamagedFileError(
            f"{state_file} is of step {state['step']}, so it was renamed or damaged. Give it back its name, or load "
            "another step."
        )
    if state.get(WEIGHTS_DIGEST) not in (None, archive_digest(weights_file)):
        raise DamagedFileError(
            f"{weights_file} and {state_file.name} do not belong together: one of them is of another run, or was "
            "replaced. Put back the file that belongs there, or load another step."
        )
    return weights, state


def newest_whole_pair(folder: Path, set_aside: bool, say: Say = print) -> tuple[int, dict[str, Any]] | None:
    """(step, train state) of the newest whole checkpoint in `folder`; None if there is none at all.

    Args:
        folder: the run folder.
        set_aside: give newer checkpoints that are damaged other names, so that the run can write these steps again.
        say: called with each warning.

    Raises:
        DamagedFileError: there are checkpoints, but none is whole.
        UserError: a file cannot be read, or is of another version.
    """
    damaged: list[tuple[int, DamagedFileError]] = []
    for step in reversed(steps_with_both_files(folder)):
        try:
            _, state = load_pair(folder, step)
        except DamagedFileError as error:
            damaged.append((step, error))
            continue
        for bad, error in damaged:
            kept = _set_aside(folder, bad) if set_aside else None
            say(
                f"warning: {error}\nwarning: so step {step} is taken instead of step {bad}"
                + (f"; {kept}" if kept else "")
            )
        return step, state
    if damaged:
        older = "" if len(damaged) == 1 else f" None of the {len(damaged)} checkpoints in {folder} is whole."
        raise DamagedFileError(f"{damaged[0][1]}{older}")
    return None


def newest_whole_weights(folder: Path, say: Say = print) -> tuple[Path, dict[str, Tensor]]:
    """The newest weights file in `folder` that is whole, and its content (see `load_weights`).

    Raises:
        DamagedFileError: none of them is whole.
        UserError: the folder holds no weights, or a file cannot be read.
    """
    first: DamagedFileError | None = None
    for path in reversed(all_weights(folder)):
        try:
            weights = load_weights(path)
        except DamagedFileError as error:
            first = first or error
            continue
        if first is not None:
            say(f"warning: {first}\nwarning: so {path} is taken, the newest weights that are whole")
        return path, weights
    assert first is not None
    raise first


def _set_aside(folder: Path, step: int) -> str:
    """Rename both files of a step, so that nothing takes or overwrites them; what was done."""
    names = []
    for path in (weights_path(folder, step), train_state_path(folder, step)):
        number, aside = 1, path.with_name(f"{path.name}.damaged")
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.damaged-{number}")
        try:
            path.rename(aside)
        except OSError as error:
            return f"its files stay where they are ({error.strerror})"
        names.append(aside.name)
    return f"its files are kept as {' and '.join(names)}"
