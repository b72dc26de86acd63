"""Hydra command lines whose misspelt keys get the same kind of error as any other bad value."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from utils.distributed import launched_ranks
from utils.errors import UserError, fail

CONFIG_DIR = Path(__file__).resolve().parents[1] / "config"


def hydra_main(config_name: str, run: Callable[[DictConfig], None]) -> None:
    """Compose `config_name` with the overrides of the command line and call `run` for each job.

    A `UserError` ends the program with its message and status 2.
    """

    def job(config: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        if hydra_config.mode == RunMode.MULTIRUN:
            overrides = " ".join(override.removeprefix("++") for override in hydra_config.overrides.task)
            launched_ranks().say(f"\njob {hydra_config.job.num} of the sweep: {overrides}")
        try:
            run(config)
        except UserError as error:
            fail(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            fail(
                UserError(
                    f"the disk is full: {error}. Free some space and start again "
                    "(training goes on with load_checkpoint=latest)."
                )
            )

    sys.argv[1:] = [_lenient(argument) for argument in sys.argv[1:]]
    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(job)()


def _lenient(argument: str) -> str:
    """`key=value` as `++key=value`, so that the schema, which knows what was meant, judges unknown keys."""
    if argument.startswith(("-", "+", "~")) or "=" not in argument:
        return argument
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return argument  # Hydra says what is wrong with it
    key = override.key_or_group
    is_group = key.startswith("hydra/") or (CONFIG_DIR / key).is_dir()
    return argument if is_group or key.startswith("hydra.") else "++" + argument
