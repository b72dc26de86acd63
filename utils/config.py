"""Configurations as plain values: validating them against a settings class, and reading and writing them as YAML.

Errors name each invalid key and say how to fix it.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from utils.atomic_file import write_text
from utils.errors import DamagedFileError, UserError, did_you_mean
from utils.files import read_bytes
from utils.text_checksum import check_line, with_checksum_line

_LARGEST_CONFIG = 100_000  # values; ours have about 100
ModelT = TypeVar("ModelT", bound=BaseModel)


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain Python values, with interpolations resolved.

    Raises:
        UserError: a mandatory key has no value, or an interpolation cannot be resolved.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key or "a key"
        raise UserError(f"{key} must be given, for example on the command line: {key}=...") from None
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration does not resolve: {error}") from None
    assert isinstance(values, dict)
    values.pop("experiment", None)
    return {str(key): value for key, value in values.items()}


def validate(schema: type[ModelT], values: Mapping[str, Any], where: str = "") -> ModelT:
    """An instance of `schema` with the given values.

    Args:
        schema: the pydantic model.
        values: plain values.
        where: the prefix of the keys in error messages, such as `arch.`.

    Raises:
        UserError: with one line for each key that is unknown, missing or invalid.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(schema, dict(item), where) for item in error.errors()]
        raise UserError("the configuration does not fit:\n  " + "\n  ".join(lines)) from None


def _explain(schema: type[BaseModel], item: dict[str, Any], where: str) -> str:
    # pydantic also lists the members of unions, which are not keys
    loc = [part for part in item["loc"] if not (isinstance(part, str) and (part in ("bool", "str") or "[" in part))]
    key = (where + ".".join(str(part) for part in loc)).rstrip(".")
    match item["type"]:
        case "extra_forbidden":
            *parents, last = item["loc"]
            fields = sorted(_fields_at(schema, parents))
            return unknown_key(key, str(last), fields)
        case "missing":
            return f"{key}: missing; set it with {key}=..."
        case "value_error":
            return (f"{key}: " if key else "") + str(item["ctx"]["error"])
        case _:
            return f"{key}={item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"


def unknown_key(key: str, name: str, allowed: Iterable[str]) -> str:
    """The error message for a key that does not exist."""
    allowed = sorted(allowed)
    return f"{key}: no such key.{did_you_mean(name, allowed)} Allowed are {', '.join(allowed)}."


def _fields_at(schema: type[BaseModel], parents: list[Any]) -> Iterable[str]:
    for parent in parents:
        field = schema.model_fields.get(str(parent))
        if field is None:
            return []
        options = get_args(field.annotation) if isinstance(field.annotation, UnionType) else [field.annotation]
        models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if not models:
            return []
        schema = models[0]
    return schema.model_fields


class _Dumper(yaml.SafeDumper):
    """Writes equal lists out again instead of referring to the first one, which `read_yaml` need not resolve then."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_yaml(path: Path, config: BaseModel, more: Mapping[str, Any] | None = None) -> None:
    """Write a configuration, and the keys in `more`, in the format of the published all_config.yaml."""
    text = yaml.dump(config.model_dump() | dict(more or {}), Dumper=_Dumper, sort_keys=True)
    write_text(path, with_checksum_line(text))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read an all_config.yaml.

    Raises:
        DamagedFileError: the file is not YAML, does not hold a mapping, or has another checksum than it says.
        UserError: the file cannot be read, or is too large with its aliases written out.
    """
    content = read_bytes(path, "Give the all_config.yaml of a run.")
    loader = None
    try:
        text = content.decode("utf-8")
        check_line(text, path)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        size = _size(node, {})
        if size > _LARGEST_CONFIG:
            raise UserError(
                f"{path}: with its aliases (*name) written out it has more than {_LARGEST_CONFIG:,} values, so it is "
                "not read. Write the values themselves."
            )
        values = None if node is None else loader.construct_document(node)
    except UserError:
        raise
    except Exception as error:  # besides YAMLError, of values such as 2020-13-01 or of unhashable keys
        what = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DamagedFileError(f"{path} is not YAML: {what}") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        raise DamagedFileError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def _size(node: yaml.Node | None, known: dict[int, float]) -> float:
    """The number of values in `node` with all aliases written out; infinite if it holds itself."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = math.inf  # what an alias to a node inside itself finds
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        nodes = (part for item in parts for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_size(part, known) for part in nodes)
    return known[id(node)]
