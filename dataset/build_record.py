"""With which options a data set was built: recorded beside it, and compared with those that a run asks for."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from utils.atomic_file import write_json
from utils.errors import UserError
from utils.text_files import read_json

FILE = "build.json"
_PLACE = {"output_dir", "overwrite"}  # options that say where to write, and not what
Options = TypeVar("Options", bound=BaseModel)


def build_and_record(build: Callable[[Options], object], options: Options) -> None:
    """Build a data set, and write the options into its folder.

    Raises:
        UserError: see the builder.
    """
    build(options)
    record_options(options)


def record_options(options: BaseModel) -> None:
    """Write the options that a data set has been built with to `build.json` in its folder, `options.output_dir`."""
    folder = getattr(options, "output_dir", None)
    if folder is not None and Path(folder).is_dir():
        write_json(Path(folder) / FILE, _values(options))


def recorded_options(folder: Path) -> dict[str, Any] | None:
    """The options that a data set was built with; None: it does not say.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    mend = "Remove it: then the data set does not say with which options it was built."
    values = read_json(path, mend)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected an object of option -> value. {mend}")
    return values


def compare_options(folder: str, options: BaseModel, stated: Collection[str], given: Collection[str]) -> list[str]:
    """Compare the options of a run with those that a data set, which is there already, was built with.

    Args:
        folder: the folder of the data set.
        options: those of the run.
        stated: the names of those that its configuration has; the others are at their defaults.
        given: the names of those that a person has given for this run.

    Returns:
        Notes on options that the configuration has, but nobody has given.

    Raises:
        UserError: an option that was given differs.
    """
    if "overwrite" in given and getattr(options, "overwrite", False):
        raise UserError(
            f"data_builder.options.overwrite: {folder} is there already, and a run never replaces a data set. Remove "
            "the folder, or leave the option out."
        )
    before, now = recorded_options(Path(folder)), _values(options)
    given = [name for name in given if name not in _PLACE]
    if before is None:
        if not given:
            return []
        asked = ", ".join(_written(name, now.get(name)) for name in given)
        return [
            f"{folder} is used as it is. It does not say with which options it was built, so nobody knows whether "
            f"it was with {asked}. To have it built with them, remove the folder first."
        ]
    changed = [name for name in stated if name in now and name in before and before[name] != now[name]]
    refused = [name for name in changed if name in given]
    if refused:
        name = refused[0]
        other = f"{folder}-{name.replace('_', '-')}-{_plain(now[name])}"
        raise UserError(
            f"data_builder.options.{_written(name, now[name])}: {folder} is there already and was built with "
            f"{', '.join(_written(name, before[name]) for name in refused)}. An existing data set is not built again. "
            f"Have another one built, data_paths=[{other}] data_builder.options.output_dir={other}, or remove the "
            "folder, or leave the option out."
        )
    return [
        f"{folder} is used as it is: it was built with {_written(name, before[name])}, and the configuration has "
        f"{_written(name, now[name])}. To have it built with that, remove the folder first."
        for name in changed
    ]


def _values(options: BaseModel) -> dict[str, Any]:
    """The options as JSON has them, without those that say where to write."""
    return json.loads(json.dumps(options.model_dump(exclude=_PLACE), default=str))


def _written(name: str, value: object) -> str:
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def _plain(value: object) -> str:
    """A value as a part of the name of a folder."""
    return "".join(character for character in str(value).lower() if character.isalnum() or character in "._")
