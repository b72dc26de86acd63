"""Descriptions of settings classes: the type, bounds, default and meaning of each key, and the text of `--help`."""

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from utils.constants import MAX_SEED
from utils.settings import Settings

_NAMES = {
    int: "integer", float: "number", str: "text", bool: "true | false", dict: "mapping", NoneType: "null", Any: "any"
}  # fmt: skip
_BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "min_length": "at least {} long"}


def type_text(annotation: Any) -> str:
    """A type in plain words: `integer | null`, `list of text`, `auto | cuda | cpu`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = bounds_text(item for extra in arguments[1:] for item in getattr(extra, "metadata", [extra]))
        return " ".join(filter(None, (type_text(arguments[0]), limits)))
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " | ".join(type_text(argument) for argument in arguments)
    if origin in (list, tuple):
        item = type_text(arguments[0])
        return f"list of ({item})" if " | " in item else f"list of {item}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        more = ["..."] if annotation.model_config.get("extra") == "allow" else []
        return "{" + ", ".join([*annotation.model_fields, *more]) + "}"
    return _NAMES.get(origin or annotation, str(annotation))


def bounds_text(metadata: Iterable[Any]) -> str:
    """The bounds in the metadata of a field, such as `>= 0 and < 1`; empty if there are none."""
    bounds = [
        text.format(_bound(getattr(item, name)))
        for item in metadata
        for name, text in _BOUNDS.items()
        if getattr(item, name, None) is not None
    ]
    return " and ".join(bounds)


def _bound(value: float) -> str:
    if isinstance(value, int):
        return "2**63 - 1" if value == MAX_SEED else f"{value:,}"
    return f"{value:g}"


def yaml_text(value: Any) -> str:
    """A value as one line of YAML."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    elif isinstance(value, (list, tuple)):
        value = [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def default_text(field: FieldInfo) -> str:
    """The default of a field as one line of YAML, or `???` if it is required."""
    return "???" if field.is_required() else yaml_text(field.get_default(call_default_factory=True))


def meaning(schema: type[BaseModel], name: str) -> str:
    """The docstring of a field, on one line.

    Raises:
        ValueError: the field has no docstring.
    """
    description = schema.model_fields[name].description
    if not description:
        raise ValueError(f"{schema.__name__}.{name} has no docstring, which is what explains it to users.")
    return " ".join(description.split())


def sections(schema: type[Settings]) -> dict[str, list[str]]:
    """Heading -> names of fields, for all fields of `schema`, in the order in which they are shown."""
    result = {heading: names.split() for heading, names in schema.sections.items()}
    listed = [name for names in result.values() for name in names]
    rest = [name for name in schema.model_fields if name not in listed]
    return {**result, "more": rest} if rest else result


def header(path: Path) -> str:
    """The comment at the top of a YAML file."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def fill(text: str, width: int, first: str = "", following: str = "") -> str:
    """Wrap `text` at `width` characters; the first line begins with `first`, the others with `following`."""
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=following, break_on_hyphens=False)


def groups_of(path: Path) -> dict[str, str | None]:
    """Group -> default, for the configuration groups in the defaults list of a configuration."""
    entries = yaml.safe_load(path.read_text())["defaults"]
    return {group: default for entry in entries if isinstance(entry, dict) for group, default in entry.items()}


def first_sentence(text: str) -> str:
    """The first sentence of a text, on one line."""
    return " ".join(text.split()).split(". ")[0].removesuffix(".") + "."


# -- the page of --help ------------------------------------------------------------------------------------------------

_OVERRIDES = (
    "KEY=VALUE changes any of the settings below, KEY.KEY=VALUE one inside another. The keys of each architecture, and "
    "these settings as tables: docs/configuration.md."
)
_FLAGS = {
    "-m KEY=VALUE,VALUE": "run all combinations one after the other, each as a run of its own",
    "--config-name NAME": "start from another configuration of config/ (here: {})",
    "--cfg job": "print the composed configuration, and start nothing",
    "--hydra-help": "list all other flags",
}


def help_page(description: str, schema: type[Settings], config_dir: Path, config_name: str, program: str) -> str:
    """The text of `--help`: a description of the program, its flags, the choices of each group, and all settings.

    Args:
        description: what the program does.
        schema: its settings class.
        config_dir: the folder of the configurations.
        config_name: the configuration that the program starts from.
        program: the base configuration that it is derived from, whose defaults list names the groups.
    """
    width = max(60, min(120, shutil.get_terminal_size().columns))
    groups = groups_of(config_dir / f"{program}.yaml")
    paragraphs = [*description.strip("\n").split("\n\n"), _OVERRIDES]
    parts = [text if text.startswith(" ") else fill(" ".join(text.split()), width) for text in paragraphs]
    parts.append(_listing({flag: text.format(config_name) for flag, text in _FLAGS.items()}, width))
    for group, default in reversed(groups.items()):
        choices = [path for path in sorted((config_dir / group).glob("*.yaml")) if _same_data(path.stem, default)]
        parts.append(f"{group}=NAME:\n{_listing(_summaries(choices), width)}")
    derived = [path for path in sorted(config_dir.glob("cfg_*.yaml")) if _is_made_of(path, program)]
    if derived:
        parts.append(f"--config-name NAME:\n{_listing(_summaries(derived), width)}")
    for heading, names in sections(schema).items():
        settings = [_setting(schema, name, groups.get(name), width) for name in names]
        parts.append("\n".join([f"{heading}:", *settings]))
    return "\n\n".join(parts)


def _same_data(name: str, default: str | None) -> bool:
    return default is None or name.startswith("text_") == default.startswith("text_")


def _is_made_of(path: Path, program: str) -> bool:
    entries = yaml.safe_load(path.read_text()).get("defaults", [])
    return any(
        entry == program or (str(entry).startswith("cfg_") and _is_made_of(path.with_name(f"{entry}.yaml"), program))
        for entry in entries
    )


def _summaries(paths: list[Path]) -> dict[str, str]:
    return {path.stem: first_sentence(header(path)) for path in paths}


def _listing(items: dict[str, str], width: int) -> str:
    indent = max(map(len, items)) + 4
    return "\n".join(fill(text, width, f"  {name}".ljust(indent), " " * indent) for name, text in items.items())


def _setting(schema: type[Settings], name: str, default: str | None, width: int) -> str:
    field = schema.model_fields[name]
    bounds = bounds_text(field.metadata)
    facts = [type_text(field.annotation) + (f", {bounds}" if bounds else "")]
    default = default or default_text(field)
    facts.append("required" if default == "???" else f"default {default}")
    first = fill(f"{name}  ({'; '.join(facts)})", width, "  ", "      ")
    indent = " " * 6
    return f"{first}\n{fill(meaning(schema, name), width, indent, indent)}"
