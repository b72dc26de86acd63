"""Composing configurations with Hydra, from the command line or from Python; only the settings class validates them."""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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

from utils.compiling import compiling_note, forget_compiled
from utils.config import plain, validate
from utils.console import safe_console
from utils.distributed import launched_ranks
from utils.errors import UserError, did_you_mean, error_message, fail
from utils.exit_status import STOPPED
from utils.overrides import check_overrides, composition_error
from utils.settings import (
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    PretrainConfig,
    SearchConfig,
    Settings,
    TextConfig,
)
from utils.settings_help import help_page
from utils.sweep import (
    Failure,
    Failures,
    JobFailedError,
    check_launcher,
    lost_job,
    report,
    stopped,
    submitted,
    take_rank,
)

CONFIG_DIR = Path(__file__).resolve().parents[1] / "config"
# each program's base configuration and settings class; other configurations list one of these in their defaults
SCHEMAS: dict[str, type[Settings]] = {
    "cfg_pretrain": PretrainConfig,
    "cfg_text": TextConfig,
    "cfg_evaluate": EvaluateConfig,
    "cfg_search": SearchConfig,
    "cfg_generate": GenerateConfig,
    "cfg_export": ExportConfig,
}
# a full disk, an exhausted quota, a limit on files, a disk that has become read-only, a network folder that is gone
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ESTALE)
_FULL_ERROR = "HYDRA_FULL_ERROR"  # the variable with which Hydra shows tracebacks
SettingsT = TypeVar("SettingsT", bound=Settings)


def hydra_main(
    config_name: str,
    schema: type[SettingsT],
    run: Callable[[SettingsT], object],
    expand: Callable[[list[str]], list[str]] = list,
) -> None:
    """Compose `config_name` with the overrides on the command line, validate it, and call `run` for each job.

    A `UserError`, or a refusal of Hydra, ends the program with its message and status 2. If a job of a sweep fails, the
    other jobs still run; at the end the failed ones are listed, and the status is 2, or 1 if a job failed with anything
    but a `UserError`. With several ranks a failed job ends the sweep, because the ranks may be at different places.
    A job that was asked to stop ends the sweep with status `STOPPED`. Jobs that submitit starts in processes of their
    own (`utils.sweep`) end for themselves, whether they fail or are stopped.
    `expand` may replace arguments of the command line, before anything else looks at them.
    `--help` prints a description of the program (the docstring of the module that defines `run`) and all settings of
    `schema`.
    """
    with safe_console():
        if {"-h", "--help"} & set(sys.argv[1:]):
            description = sys.modules[run.__module__].__doc__ or ""
            print(help_page(description, schema, CONFIG_DIR, config_name, program_config(config_name)))
            return
        failures, was_stopped = Failures(), False

        def job(config: DictConfig) -> None:
            take_rank()
            _run_job(lambda: run(validate(schema, plain(config))), failures)

        try:
            sys.argv[1:] = expand(sys.argv[1:])
            check_launcher(sys.argv[1:])
            check_overrides(sys.argv[1:], CONFIG_DIR)
            sys.argv[1:] = [_lenient(argument) for argument in sys.argv[1:]]
            with _hydra_raises():
                hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(job)()
        except JobFailedError as error:
            failures.collect(error)  # it has printed its message, and is listed below
        except UserError as error:
            fail(error)
        except (HydraException, OmegaConfBaseException) as error:
            if _FULL_ERROR in os.environ:
                raise
            fail(composition_error(error))
        except SystemExit as ended:
            was_stopped = ended.code == STOPPED
            if not failures.by_name:
                raise
        except Exception as error:
            lost = lost_job(error)
            if lost is None:
                raise
            failures.by_name["a job of the sweep"] = lost
        if failures.by_name:
            report(failures.by_name)
            statuses = [failure.status for failure in failures.by_name.values()]
            sys.exit(STOPPED if was_stopped else min(statuses))


def _run_job(run: Callable[[], object], failures: Failures) -> None:
    """Run one Hydra job, and note in `failures` how it failed, by the name of the job (empty without a sweep).

    Raises:
        JobFailedError: a job of a sweep failed, and its message is in `failures`.
        SystemExit: the only job failed, or one of several ranks.
    """
    hydra_config, name = HydraConfig.get(), ""
    if hydra_config.mode == RunMode.MULTIRUN:
        overrides = " ".join(override.removeprefix("++") for override in hydra_config.overrides.task)
        name = f"job {hydra_config.job.num} of the sweep: {overrides}"
        launched_ranks().say(f"\n{name}")
    forget_compiled()
    failure = _failure_of(run, in_sweep=bool(name))
    note = compiling_note()
    if note is not None:
        launched_ranks().say(note)
    if failure is None:
        return
    failures.add(name, failure, launched_ranks().is_main)
    print(failure.message, file=sys.stderr, flush=True)
    if not name or (launched_ranks().world_size > 1 and not submitted()):
        sys.exit(failure.status)
    # raised here, where no traceback keeps the model of the failed job in memory for the rest of the sweep
    raise JobFailedError(str(hydra_config.sweep.dir))


def _failure_of(run: Callable[[], object], in_sweep: bool) -> Failure | None:
    """Run `run`: how it failed, or None. Outside a sweep, exceptions other than those of the user pass."""
    try:
        run()
    except UserError as error:
        return Failure(error_message(error), 2)
    except SystemExit as ended:
        if not submitted():
            raise
        return stopped(ended)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            full = UserError(
                f"nothing can be written: {error}. Free some space, or make it writable, and start again "
                "(training goes on with load_checkpoint=latest)."
            )
            return Failure(error_message(full), 2)
        if not in_sweep:
            raise
        traceback.print_exc()
        return Failure(f"{type(error).__name__}: {error}", 1)
    return None


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Within the block Hydra raises its errors, instead of printing them and ending the program."""
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        del os.environ[_FULL_ERROR]
        if before is not None:
            os.environ[_FULL_ERROR] = before


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
    schema, overrides = SCHEMAS[program_config(config_name)], list(overrides)
    check_overrides(overrides, CONFIG_DIR)
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            composed = hydra.compose(config_name, [_lenient(override) for override in overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise composition_error(error) from None
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
    except (HydraException, ValueError):
        return argument  # Hydra reports what is wrong with it
    key = override.key_or_group
    is_group = key.startswith("hydra/") or (CONFIG_DIR / key).is_dir()
    return argument if is_group or key.startswith("hydra.") else "++" + argument
