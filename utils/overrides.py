"""Overrides on the command line: what Hydra would refuse, or silently take for something else, in plain words."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from utils.errors import UserError

# Hydra's own flags, which may be abbreviated
_FLAGS = (
    "help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion",
    "config-path", "config-name", "config-dir", "experimental-rerun", "info",
)  # fmt: skip

_NONE = re.compile(r"(?<![^\[{,:])None(?![^\]},])")  # as a value or as an item of a list
_LONGEST_KEY = 200  # Hydra looks for a file of this name, and the names of files are limited


def check_overrides(arguments: Sequence[str], config_dir: Path) -> None:
    """Check the arguments that Hydra will get.

    Args:
        arguments: the command line without the name of the program.
        config_dir: the folder of the configurations, with a folder for each group.

    Raises:
        UserError: an argument is not KEY=VALUE, its value cannot be read, or it cannot mean what it says.
    """
    multirun = any(item in ("-m", "--multirun") or item.startswith("hydra.mode=") for item in arguments)
    values_follow = False
    for argument in arguments:
        if argument.startswith("-"):
            _check_flag(argument)
            values_follow = "=" not in argument and argument not in ("-m", "--multirun", "-r", "--run")
        elif not values_follow or "=" in argument:
            values_follow = False
            _check_override(argument, config_dir, multirun)


def composition_error(error: HydraException | OmegaConfBaseException) -> UserError:
    """A refusal of Hydra or OmegaConf as a `UserError`."""
    text = str(error)
    if isinstance(error.__cause__, OmegaConfBaseException):
        text += f"\n{error.__cause__}"
    for end in ("Config search path:", "See https://hydra.cc", "Or add a second +"):
        text = text.split(end)[0]
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("    full_key:", "    object_type=")))
    text = text.replace("++", "")  # which `utils.hydra` put there
    return UserError(f"the configuration does not compose: {text.strip()}")


def _check_flag(argument: str) -> None:
    found = re.match(r"--([A-Za-z_][\w.-]*)(=.*)?$", argument, re.DOTALL)
    if found and not any(flag.startswith(found[1]) for flag in _FLAGS):
        setting = found[1].replace("-", "_") + (found[2] or "=VALUE")
        raise UserError(
            f"{argument}: settings have no hyphens before them: write {setting}; in a W&B sweep use "
            "${args_no_hyphens} in place of ${args}."
        )


def _check_override(argument: str, config_dir: Path, multirun: bool) -> None:
    key, equals, value = argument.partition("=")
    if not argument.startswith("~") and (not equals or not key.strip("+ ")):
        raise UserError(f"{argument}: a setting is written KEY=VALUE, for example lr=1e-3.")
    if len(key) > _LONGEST_KEY:
        raise UserError(f"{key[:60]}...: no such key.")
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        raise _unreadable(key, value, str(error)) from None
    except ValueError:
        raise UserError(f"{key}={value[:40]}...: a number of {len(value):,} digits is too long.") from None
    if override.is_delete():
        return
    key = override.key_or_group
    group = config_dir / key
    if override.is_sweep_override() and not multirun:
        as_list = "" if group.is_dir() else f"; a list is written {key}=[{value}]"
        raise UserError(f"{key}={value}: these are several values. Add -m to run them one after the other{as_list}.")
    if _NONE.search(value) and not re.search("[\"']", value):
        raise UserError(f"{key}={value}: write null, or in quotes '{key}=\"None\"' for the text None.")
    if group.is_dir():
        for choice in _choices(override):
            if not isinstance(choice, str) or not choice:
                names = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
                raise UserError(
                    f"{key}={value}: this names a file in config/{key}/, one of {names}. To keep the default, leave "
                    f"{key} out."
                )


def _choices(override: Override) -> list[object]:
    """The values of a sweep over a list, or the one value; none of a sweep of another kind."""
    if override.is_sweep_override():
        sweep = override.value()
        return list(sweep.list) if isinstance(sweep, ChoiceSweep) else []
    return [override.value()]


def _unreadable(key: str, value: str, reason: str) -> UserError:
    """The error for a value that Hydra's grammar refuses, with the value in quotes."""
    # a lexer's message repeats the argument, and points below it
    why = "" if "LexerNoViableAlt" in reason else f" ({reason.splitlines()[0]})"
    key = key.lstrip("+")
    if any(value.startswith(left) and not value.endswith(right) for left, right in ("[]", "{}")):
        advice = "Lists are written [a,b], and mappings {a:1}."
    else:
        is_list = value.startswith("[")
        items = [_in_quotes(item) for item in (value[1:-1].split(",") if is_list else [value])]
        quoted = f"[{','.join(items)}]" if is_list else items[0]
        advice = f"Put it in quotes, once for the shell and once within: {shlex.quote(f'{key}={quoted}')}"
    return UserError(f"{key}={value}: this value cannot be read{why}. {advice}")


def _in_quotes(text: str) -> str:
    return '"' + text.strip().replace('"', '\\"') + '"'
