"""Composing configurations with Hydra, from the command line or from Python; only the settings class validates them."""

import errno
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from utils.config import plain, validate
from utils.distributed import launched_ranks
from utils.errors import UserError, did_you_mean, fail
from utils.settings import EvaluateConfig, GenerateConfig, PretrainConfig, Settings, TextConfig
from utils.settings_help import help_page

CONFIG_DIR = Path(__file__).resolve().parents[1] / "config"
# each program's base configuration and settings class; other configurations list one of these in their defaults
SCHEMAS: dict[str, type[Settings]] = {
    "cfg_pretrain": PretrainConfig,
    "cfg_text": TextConfig,
    "cfg_evaluate": EvaluateConfig,
    "cfg_generate": GenerateConfig,
}
SettingsT = TypeVar("SettingsT", bound=Settings)


def hydra_main(config_name: str, schema: type[SettingsT], run: Callable[[SettingsT], object]) -> None:
    """Compose `config_name` with the overrides on the command line, validate it, and call `run` for each job.

    A `UserError` ends the program with its message and status 2. `--help` prints a description of the program (the
    docstring of the module that defines `run`) and all settings of `schema`.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        description = sys.modules[run.__module__].__doc__ or ""
        print(help_page(description, schema, CONFIG_DIR, config_name, program_config(config_name)))
        return

    def job(config: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        if hydra_config.mode == RunMode.MULTIRUN:
            overrides = " ".join(override.removeprefix("++") for override in hydra_config.overrides.task)
            launched_ranks().say(f"\njob {hydra_config.job.num} of the sweep: {overrides}")
        try:
            run(validate(schema, plain(config)))
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


def compose(config_name: str, overrides: Iterable[str] = ()) -> Any:
    """The settings that a program gets from `--config-name config_name` and `overrides` on its command line.

    It can be called at any time, including inside a Hydra job.

    Args:
        config_name: a file of config/ without its suffix, such as `cfg_pretrain` or `cfg_tinystories_1m`.
        overrides: as on the command line, such as `["experiment=quickstart", "arch.L_cycles=4"]`.

    Returns:
        An instance of the program's class in `utils.settings`.

    Raises:
        UserError: there is no such configuration, or an override is invalid.
    """
    schema = SCHEMAS[program_config(config_name)]
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            composed = hydra.compose(config_name, [_lenient(override) for override in overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"the configuration does not compose: {error}") from None
    finally:
        GlobalHydra.instance().clear()
        if running is not None:
            GlobalHydra.instance().initialize(running)
    return validate(schema, plain(composed))


def program_config(config_name: str) -> str:
    """The key of `SCHEMAS` that a configuration is or is derived from.

    Raises:
        UserError: there is no such configuration, or it is not derived from any of these.
    """
    path = CONFIG_DIR / f"{config_name}.yaml"
    if not path.exists():
        known = [file.stem for file in CONFIG_DIR.glob("cfg_*.yaml")]
        raise UserError(f"config/{path.name} does not exist.{did_you_mean(config_name, known)}")
    if config_name in SCHEMAS:
        return config_name
    for entry in yaml.safe_load(path.read_text()).get("defaults", []):
        if isinstance(entry, str) and entry.startswith("cfg_"):
            return program_config(entry)
    raise UserError(f"config/{path.name}: its defaults must name one of {', '.join(SCHEMAS)}.")


def _lenient(argument: str) -> str:
    """Turn `key=value` into `++key=value`, so that unknown keys reach the schema, whose messages suggest known keys."""
    if argument.startswith(("-", "+", "~")) or "=" not in argument:
        return argument
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return argument  # Hydra reports what is wrong with it
    key = override.key_or_group
    is_group = key.startswith("hydra/") or (CONFIG_DIR / key).is_dir()
    return argument if is_group or key.startswith("hydra.") else "++" + argument
