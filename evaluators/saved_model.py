"""A model in a folder of its own, without a run: weights, configuration and vocabulary, and nothing that is executed.

model.safetensors   the weights, with the names of a loss head's state dict
config.json         the architecture, the task, its sizes and its vocabulary (see `SavedConfig`)
puzzles.json        names by puzzle id, if the model has an embedding for each puzzle and they are known
README.md           the model card
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field
from torch import Tensor

from models.pretrained import Checkpoint
from utils.atomic_file import write_text
from utils.config import validate
from utils.constants import MAX_ACT_STEPS
from utils.errors import UserError
from utils.files import writing_to
from utils.safetensors_file import load_tensors, save_tensors
from utils.schema import Schema
from utils.settings import ArchConfig
from utils.text_files import read_json

WEIGHTS, CONFIG, PUZZLES, CARD = "model.safetensors", "config.json", "puzzles.json", "README.md"
_MEND = "Take another copy of the folder."


class SavedTask(Schema):
    """The task of a saved model."""

    model_config = ConfigDict(extra="forbid")

    name: str
    """The name of the task, a folder of dataset/tasks/."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options, such as the height of boards that are not square."""


class SavedConfig(Schema):
    """config.json of a saved model."""

    model_config = ConfigDict(extra="ignore")

    format_version: int = Field(default=1, ge=1, le=1)
    """The version of the format."""
    arch: ArchConfig
    """The architecture, as in the configuration of a run."""
    task: SavedTask
    """What the model does."""
    seq_len: int = Field(ge=1)
    """Tokens per puzzle."""
    vocab_size: int = Field(ge=1)
    """Number of tokens."""
    vocabulary: str = ""
    """The character of each token, for other programs; the task itself knows them."""
    max_steps: int | None = Field(default=None, ge=1, le=MAX_ACT_STEPS)
    """ACT steps of an answer. null: halt_max_steps of the architecture."""


def is_saved_model(folder: Path) -> bool:
    """Whether `folder` holds a saved model."""
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def write_model(
    folder: Path, weights: Mapping[str, Tensor], config: SavedConfig, puzzles: list[str] | None, card: str
) -> None:
    """Write a model; a README.md that is there is kept.

    Raises:
        UserError: the folder cannot be written.
    """
    with writing_to(folder, "Choose another folder."):
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / WEIGHTS, weights)
        write_text(folder / CONFIG, json.dumps(config.model_dump(), indent=2) + "\n")
        if puzzles is not None:
            write_text(folder / PUZZLES, json.dumps(puzzles) + "\n")
        if not (folder / CARD).exists():
            (folder / CARD).write_text(card)


def read_model(folder: Path) -> tuple[Checkpoint, SavedConfig, list[str] | None]:
    """The weights, the configuration, and the names of the puzzles by id, if they are known.

    Raises:
        UserError: a file is missing or damaged.
    """
    content = read_json(folder / CONFIG, _MEND)
    if not isinstance(content, dict):
        raise UserError(f"{folder / CONFIG}: expected an object, got {type(content).__name__}. {_MEND}")
    try:
        config = validate(SavedConfig, content)
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: {error} {_MEND}") from None
    path = folder / WEIGHTS
    try:
        weights = load_tensors(path, _MEND)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). {_MEND}") from None
    checkpoint = Checkpoint(path, weights, {"arch": config.arch.model_dump()}, config.arch)
    return checkpoint, config, read_puzzles(folder / PUZZLES)


def read_puzzles(path: Path) -> list[str] | None:
    """The names of puzzles by id; None if there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return None
    names = read_json(path, _MEND)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a list of names. {_MEND}")
    return names
