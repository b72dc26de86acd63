"""Building the data sets of an experiment that do not exist yet."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from dataset.tasks import build_commands
from utils.config import validate
from utils.errors import UserError
from utils.settings import DataBuilderConfig


def build_missing_data(
    data_paths: Sequence[str], data_paths_test: Sequence[str], builder: DataBuilderConfig | None
) -> None:
    """Build `data_paths[0]` with the builder of the experiment if it does not exist.

    Raises:
        UserError: another folder is missing, or there is no builder; the message gives a command that builds the data.
    """
    missing = [path for path in data_paths if not Path(path).exists()]
    missing_test = [path for path in data_paths_test if not Path(path).exists()]
    if missing_test or (missing and (builder is None or missing != list(data_paths[:1]))):
        key, path = ("data_paths_test", missing_test[0]) if missing_test else ("data_paths", missing[0])
        commands = build_commands(path) if builder is None else f"  python -m {builder.module} --output-dir {path}"
        raise UserError(
            f"{key}: {path} does not exist (from {Path.cwd()}). Correct the path, or build the data, for example with\n"
            f"{commands}"
        )
    if not missing or builder is None:
        return
    try:
        module = importlib.import_module(builder.module)
    except ModuleNotFoundError:
        raise UserError(f"data_builder.module={builder.module!r}: no such module; see dataset/build_*.py.") from None
    options = validate(module.Config, {**builder.options, "output_dir": missing[0]}, where="data_builder.options.")
    print(f"building {missing[0]} with {builder.module}")
    module.build(options)
