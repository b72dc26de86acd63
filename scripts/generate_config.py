"""Write the keys of config/cfg_*.yaml and config/arch/*.yaml, and docs/configuration.md, from the settings classes.

    uv run python -m scripts.generate_config            # update the files that are out of date
    uv run python -m scripts.generate_config --check    # only list them

In each YAML file, the part above `MARKER` is written by hand: what the file is for, its defaults list and, for an
architecture, its class and loss. The part below is generated from the settings class: one of `utils.settings` for a
program, or the `config_class` of the architecture for a file in config/arch without a defaults list.

A `config_class` may have three class attributes: `yaml_values`, the values of keys whose value in the file differs from
the default of the class, such as interpolations; `unused`, the keys that have no effect; and `refused`, the recipes
(`models.recipes.config`) that the architecture cannot take, which are left out. The other recipes come last.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from models.factory import known_arch_keys, model_class
from models.recipes.config import RecipeConfig
from utils.config import validate
from utils.errors import exit_on_user_error
from utils.hydra import CONFIG_DIR, SCHEMAS
from utils.settings import ArchConfig
from utils.settings_help import (
    bounds_text,
    default_text,
    fill,
    groups_of,
    header,
    meaning,
    sections,
    type_text,
    yaml_text,
)

ROOT = CONFIG_DIR.parent
MARKER = "# -- written by scripts/generate_config.py from {}: change it there"
WIDTH = 120
PROGRAMS = {
    "cfg_pretrain": "pretrain.py",
    "cfg_text": "pretrain_text.py",
    "cfg_evaluate": "evaluate.py",
    "cfg_search": "search.py",
    "cfg_generate": "generate.py",
    "cfg_export": "export.py",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    check = parser.parse_args().check
    stale = out_of_date()
    for path, content in stale.items():
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(content)
    sys.exit(check and bool(stale))


def out_of_date() -> dict[Path, str]:
    """path -> expected content, for each file whose content differs from it."""
    expected = program_files() | architecture_files() | {ROOT / "docs" / "configuration.md": reference()}
    return {path: text for path, text in expected.items() if not path.exists() or path.read_text() != text}


# -- YAML --------------------------------------------------------------------------------------------------------------


def program_files() -> dict[Path, str]:
    """path -> expected content, for the configuration of each program."""
    files: dict[Path, str] = {}
    for name, schema in SCHEMAS.items():
        path = CONFIG_DIR / f"{name}.yaml"
        groups = groups_of(path)
        lines: list[str] = []
        for heading, names in sections(schema).items():
            keys = [_key(schema, key, default_text(schema.model_fields[key])) for key in names if key not in groups]
            lines += ["", f"# {heading}", *keys] if keys else []
        files[path] = _with_keys(path, f"utils.settings.{schema.__name__}", lines)
    return files


def architecture_files() -> dict[Path, str]:
    """path -> expected content, for each architecture; variants, which have a defaults list, are written by hand."""
    files: dict[Path, str] = {}
    for path in architectures():
        schema, values = architecture(path)
        lines = ["", *(_key(schema, key, value) for key, value in values.items())]
        files[path] = _with_keys(path, f"{schema.__module__}.{schema.__name__}", lines)
    return files


def architectures() -> list[Path]:
    """The files of config/arch that are generated from a class."""
    paths = sorted((CONFIG_DIR / "arch").glob("*.yaml"))
    return [path for path in paths if "defaults" not in yaml.safe_load(path.read_text())]


def architecture(path: Path) -> tuple[type[BaseModel], dict[str, str]]:
    """(settings class, key -> value as YAML) of an architecture, without the keys that are taken from the data.

    Raises:
        ValueError: `yaml_values` has an unknown key.
    """
    written = yaml.safe_load(path.read_text())
    arch = validate(ArchConfig, {key: written.get(key) for key in ("name", "loss")}, where=f"{path.name}: ")
    schema, known = model_class(arch).inner_class.config_class, known_arch_keys(arch)
    values: dict[str, Any] = getattr(schema, "yaml_values", {})
    shown = [*(key for key in schema.model_fields if key not in RecipeConfig.model_fields), *RecipeConfig.model_fields]
    if unknown := values.keys() - known:
        raise ValueError(f"{schema.__name__}.yaml_values: {', '.join(sorted(unknown))} are no keys of a configuration.")
    return schema, {
        key: yaml_text(values[key]) if key in values else default_text(schema.model_fields[key])
        for key in shown
        if key in known and key not in getattr(schema, "refused", ())
    }


def _with_keys(path: Path, source: str, lines: list[str]) -> str:
    """The handwritten part of a file, followed by `lines`."""
    handwritten: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith(MARKER.split("{", maxsplit=1)[0]):
            break
        handwritten.append(line)
    return "\n".join(["\n".join(handwritten).rstrip(), "", MARKER.format(source), *lines]) + "\n"


def _key(schema: type[BaseModel], name: str, value: str) -> str:
    """`key: value # meaning`, with the meaning on lines above if it does not fit."""
    annotation = schema.model_fields[name].annotation
    choices = type_text(annotation).removesuffix(" | null") + ". " if _has_choices(annotation) else ""
    line, comment = f"{name}: {value}", choices + meaning(schema, name)
    if name in getattr(schema, "unused", ()):
        comment = "Not used."
    if len(line) + len(comment) + 3 <= WIDTH:
        return f"{line} # {comment}"
    return fill(comment, WIDTH, "# ", "#   ") + f"\n{line}"


def _has_choices(annotation: Any) -> bool:
    return get_origin(annotation) is Literal or any(get_origin(option) is Literal for option in get_args(annotation))


# -- Markdown ----------------------------------------------------------------------------------------------------------


def reference() -> str:
    """The content of docs/configuration.md."""
    parts = [
        "# Settings",
        "Generated by `python -m scripts.generate_config` from the classes that check the settings. Each program\n"
        "prints its settings with `--help`, and the values that it would use with `--cfg job`.",
    ]
    for name, schema in SCHEMAS.items():
        groups = groups_of(CONFIG_DIR / f"{name}.yaml")
        parts += [f"## {PROGRAMS[name]}", _code(header(CONFIG_DIR / f"{name}.yaml"))]
        for heading, names in sections(schema).items():
            rows = [(key, groups.get(key) or default_text(schema.model_fields[key])) for key in names]
            parts += [f"### {heading}", _table(schema, rows)]
    parts += ["## Architectures", "The keys of `arch`, on the command line `arch.KEY=VALUE`."]
    for path in sorted((CONFIG_DIR / "arch").glob("*.yaml")):
        parts += [f"### {path.stem}", header(path)]
        if path in architectures():
            schema, values = architecture(path)
            parts.append(_table(schema, values.items()))
        else:
            changed = yaml.safe_load(path.read_text())
            bases = [entry for entry in changed.pop("defaults") if entry != "_self_"]
            keys = [f"`{key}: {yaml_text(value)}`" for key, value in changed.items()]
            parts.append(f"As {', '.join(bases)}, with {', '.join(keys)}.")
    return "\n\n".join(parts) + "\n"


def _code(text: str) -> str:
    return f"```\n{text}\n```"


def _table(schema: type[BaseModel], rows: Iterable[tuple[str, str]]) -> str:
    lines = ["| key | type | bounds | default | meaning |", "|---|---|---|---|---|"]
    for name, default in rows:
        field = schema.model_fields[name]
        shown = "required" if default == "???" else f"`{default}`"
        description = "Not used." if name in getattr(schema, "unused", ()) else meaning(schema, name)
        cells = [f"`{name}`", type_text(field.annotation), bounds_text(field.metadata), shown, description]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    exit_on_user_error(main)
