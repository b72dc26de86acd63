"""Building the data set of an experiment if it does not exist yet."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dataset.build_record import FILE, compare_options, record_options
from dataset.shards import FolderTaken
from dataset.tasks import build_commands, task_packages
from utils.config import validate
from utils.errors import UserError, did_you_mean
from utils.settings import DataBuilderConfig


def builder_modules() -> list[str]:
    """The modules that build data sets: dataset.build_*, and dataset.tasks.TASK.build of every task."""
    commands = [f"dataset.{file.stem}" for file in sorted(Path(__file__).parent.glob("build_*.py"))]
    tasks = [f"dataset.tasks.{name}.build" for name in task_packages()]
    return commands + [module for module in tasks if importlib.util.find_spec(module) is not None]


def build_missing_data(
    data_paths: Sequence[str], data_paths_test: Sequence[str], builder: DataBuilderConfig | None
) -> None:
    """Build the folder that the builder names in its options as output_dir, if it is missing and wanted.

    If another process builds it, wait for that and use its data set. No other folder is built, so that a misspelt path
    is an error and not a new data set. If it is there, it is used as it is, whatever options the builder has; a note
    says where it was built with others (`dataset.build_record`).

    Raises:
        UserError: another folder is missing; the message says how to build it. Or the builder is none of
            `builder_modules`: a configuration must not have any other module imported. Or the folder was built with
            another option than a person has given.
    """
    wanted = [("data_paths", path) for path in data_paths] + [("data_paths_test", path) for path in data_paths_test]
    missing = [(key, path) for key, path in wanted if not Path(path).exists()]
    built = str(builder.options.get("output_dir", "")) if builder is not None else ""
    for key, path in missing:
        if not built or Path(path).resolve() != Path(built).resolve():
            raise UserError(
                f"{key}: {path} does not exist (from {Path.cwd()}).{did_you_mean(path, _near(path, built))} "
                f"Correct the path, or {_how_to_build(path, built)}"
            )
    if builder is None:
        return
    if not missing:
        if any(Path(path).resolve() == Path(built).resolve() for _, path in wanted):
            _compare(built, builder)
        elif builder.given:
            print(f"note: data_builder.options: {built} is not among data_paths, so it is not built and not used")
        return
    if builder.module not in builder_modules():
        raise UserError(
            f"data_builder.module={builder.module!r}: no such module of builders. There are "
            f"{', '.join(builder_modules())}.{did_you_mean(builder.module, builder_modules())}"
        )
    module, options = _options(builder)
    print(f"building {built} with {builder.module}")
    try:
        module.build(options)
    except FolderTaken:
        print(f"{built} has been built by another process in the meantime: it is used")
        return
    record_options(_full(module, options))


def _options(builder: DataBuilderConfig) -> tuple[Any, BaseModel]:
    """The module of a builder, and its options as an instance of its `Config`."""
    module = importlib.import_module(builder.module)
    return module, validate(module.Config, builder.options, where="data_builder.options.")


def _full(module: Any, options: BaseModel) -> BaseModel:
    """The options of the builder that does the work; that of any task may leave it to the task's own."""
    return module.options_of(options) if hasattr(module, "options_of") else options


def _compare(built: str, builder: DataBuilderConfig) -> None:
    """Refuse options that a person has given and an existing data set was not built with; say which others differ."""
    if builder.module not in builder_modules() or not (builder.given or (Path(built) / FILE).exists()):
        return
    try:
        options = _full(*_options(builder))
    except UserError:
        if builder.given:
            raise
        return  # the data are there, so nobody needs these options
    for note in compare_options(built, options, list(builder.options), builder.given):
        print(f"note: {note}")


def _near(path: str, built: str) -> list[str]:
    """The folders that may have been meant: those beside `path`, and the one that can be built."""
    parent = Path(path).parent
    beside = [str(folder) for folder in parent.iterdir() if folder.is_dir()] if parent.is_dir() else []
    return [*beside, built] if built else beside


def _how_to_build(path: str, built: str) -> str:
    if not built:
        return f"build the data, for example with\n{build_commands(path)}"
    return (
        f"add data_builder.options.output_dir={path} to build the data of this experiment there "
        f"(as it is, only {built} is built)."
    )
