"""Train a small model with a few flags, each of which is an override of pretrain.py."""

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from coolname import generate_slug

import pretrain
from dataset.task_choice import choose_task, data_folder, task_overrides
from evaluators.loading import load
from evaluators.reasoner import Reasoner
from utils.errors import UserError
from utils.hydra import compose, hydra_main
from utils.settings import PretrainConfig

_SUDOKUS = {4: "sudoku_4x4", 6: "quickstart", 9: "sudoku_9x9"}  # cells per side -> experiment
# the tasks with recipes of their own -> experiment, of Sudokus that of the usual size
_EXPERIMENTS = {"sudoku": _SUDOKUS[6], "maze": "maze_10x10", "arithmetic": "arithmetic", "arc": "arc1"}


@dataclass
class Flags:
    """Train a small model. Every flag becomes an override of pretrain.py, and the equivalent command is printed."""

    task: str = "sudoku"
    """What to train on: sudoku, maze, arithmetic or arc; or a task of your own, as for task=... of pretrain.py: a file
    such as examples/futoshiki.py, a generator such as reasoning_gym:chain_sum, or questions.jsonl."""
    epochs: int | None = None
    """Length of training; an epoch takes each training puzzle once. Evaluated is at the end only."""
    n_train: int | None = None
    """Number of training puzzles."""
    n_augmentations: int | None = None
    """Stored copies of each training puzzle, in place of symmetries drawn anew for every example: any number of a
    Sudoku; 0 or 7, all rotations and flips, of a maze."""
    grid_size: int | None = None
    """Cells per side of a Sudoku (4, 6 or 9) or a maze; of an addition, the digits of a number."""
    batch_size: int | None = None
    """Puzzles in a batch."""
    lr: float | None = None
    """Peak learning rate."""
    seed: int | None = None
    """Seed of the data and of the training."""
    output: str | None = None
    """The run folder. By default a new one in checkpoints/tiny/."""
    overrides: Annotated[list[str], tyro.conf.Positional] = field(default_factory=list)
    """Further overrides of pretrain.py, such as arch.hidden_size=64 device=cpu."""


def overrides_of(flags: Flags) -> list[str]:
    """The overrides of pretrain.py that `flags` stand for.

    Raises:
        UserError: a flag does not fit the task.
    """
    if flags.task in _EXPERIMENTS:
        found, name = [f"experiment={_experiment(flags)}", *_data_overrides(flags)], flags.task
    else:
        found, name = _own_task(flags)
    if flags.epochs is not None:
        found += [f"epochs={flags.epochs}", "eval_interval=null"]
    plain = {"global_batch_size": flags.batch_size, "lr": flags.lr, "seed": flags.seed}
    found += [f"{key}={value}" for key, value in plain.items() if value is not None]
    output = flags.output or f"checkpoints/tiny/{name}-{generate_slug(2)}"
    return [*found, f"checkpoint_path={output}", *flags.overrides]


def _experiment(flags: Flags) -> str:
    """The experiment of a task with a recipe of its own."""
    if flags.task != "sudoku" or flags.grid_size is None:
        return _EXPERIMENTS[flags.task]
    if flags.grid_size not in _SUDOKUS:
        raise UserError(f"--grid-size {flags.grid_size}: Sudokus have 4, 6 or 9 cells per side.")
    return _SUDOKUS[flags.grid_size]


def _own_task(flags: Flags) -> tuple[list[str], str]:
    """The overrides for a task that has no recipe of its own, and a name for files."""
    _refuse(
        flags,
        ("grid_size", "n_augmentations"),
        "the task itself says how large its questions are, and its symmetries are drawn anew for every example.",
    )
    name = Path(data_folder(choose_task(flags.task, "--task"))).name
    options = {"train_size": flags.n_train, "seed": flags.seed}
    return [f"task={flags.task}", "experiment=own_task", *_built_with(name, options)], name


def _data_overrides(flags: Flags) -> list[str]:
    """The overrides that change what data are built."""
    size, n_train, copies = flags.grid_size, flags.n_train, flags.n_augmentations
    name, options = flags.task, dict[str, Any]()
    if flags.task == "arc":
        _refuse(
            flags,
            ("grid_size", "n_train", "n_augmentations"),
            "data sets of ARC are built by a command of their own: python -m dataset.build_arc_dataset --help.",
        )
        return []
    if flags.task == "arithmetic":
        options |= {"digits": size, "train_size": n_train}
        if copies:
            raise UserError(f"--n-augmentations {copies}: additions have no symmetries. Leave the flag out.")
    else:
        options |= {"generate": n_train}
    if flags.task == "maze":
        options |= {"height": size, "width": size}
        if copies not in (None, 0, 7):
            raise UserError(f"--n-augmentations {copies}: a maze has 7 other rotations and flips: give 0 or 7.")
        options |= {"aug": True if copies == 7 else None}
    if flags.task == "sudoku":
        options |= {"num_aug": copies or None}
        name = f"sudoku-{size or 6}"
    stored = [] if copies is None or flags.task == "arithmetic" else ["augmentation=null"]
    return [*_built_with(name, options | {"seed": flags.seed}), *stored]


def _refuse(flags: Flags, names: Sequence[str], why: str) -> None:
    """Refuse the flags of these names, with the reason."""
    for name in names:
        if getattr(flags, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: {why} Leave the flag out.")


def _built_with(name: str, options: Mapping[str, Any]) -> list[str]:
    """The overrides for data built with options of the builder in a folder called after them; None: left as it is."""
    given = {key: str(value).lower() for key, value in options.items() if value is not None}
    if not given:
        return []
    folder = "-".join([f"data/tiny/{name}", *(f"{key.replace('_', '-')}-{value}" for key, value in given.items())])
    written = [f"data_builder.options.{key}={value}" for key, value in given.items()]
    return [f"data_paths=[{folder}]", f"data_builder.options.output_dir={folder}", *written]


def command(overrides: Sequence[str]) -> str:
    """The command line of pretrain.py with these overrides."""
    return shlex.join(["python", "pretrain.py", *overrides])


def train(task: str = "sudoku", *, overrides: Sequence[str] = (), **flags: Any) -> Reasoner:
    """Train a small model, as the command `train` does, and load it.

    Args:
        task: what to train on; see `Flags`.
        overrides: further overrides of pretrain.py.
        flags: the other fields of `Flags`: epochs, n_train, n_augmentations, grid_size, batch_size, lr, seed, output.

    Returns:
        The trained model. The files of the run lie in `reasoner.origin.path.parent`.

    Raises:
        UserError: a flag or an override does not fit.
    """
    unknown = sorted(set(flags) - set(Flags.__dataclass_fields__))
    if unknown:
        raise UserError(f"train: there is no flag {unknown[0]}; there are {', '.join(Flags.__dataclass_fields__)}.")
    found = overrides_of(Flags(task, overrides=list(overrides), **flags))
    print(f"the same as: {command(found)}")
    config = compose("cfg_pretrain", task_overrides(found))
    pretrain.train(config)
    assert config.checkpoint_path is not None
    return load(Path(config.checkpoint_path), task=None if task in _EXPERIMENTS else task)


def main(arguments: list[str]) -> int:
    """Run the command: its exit status."""
    flags = tyro.cli(Flags, prog="python -m tiny_recursive_model train", args=arguments)
    found = overrides_of(flags)
    print(f"the same as: {command(found)}", flush=True)
    with _arguments(["pretrain.py", *found]):  # Hydra reads the command line itself
        hydra_main("cfg_pretrain", PretrainConfig, pretrain.run, task_overrides)
    return 0


@contextlib.contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    before = sys.argv.copy()
    sys.argv[:] = arguments
    try:
        yield
    finally:
        sys.argv[:] = before
