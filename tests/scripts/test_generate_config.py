"""Configuration files and docs/configuration.md, which are written from the settings classes."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

import scripts.generate_config as generate_config
from scripts.generate_config import architecture_files, main, out_of_date, program_files, reference
from utils.hydra import CONFIG_DIR
from utils.settings import Settings

HEAD = """\
# An architecture. It is small.
name: recursive_reasoning.mine@Mine
loss:
  name: losses@ACTLossHead
  loss_type: softmax_cross_entropy
"""


class MineConfig(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)
    yaml_values: ClassVar[dict[str, Any]] = {"table": "${.size}"}

    vocab_size: int
    size: int = Field(default=8, ge=1)
    """Width."""
    table: int = 0
    """Width of the table. 0: none."""
    kind: Literal["a", "b"] = "a"
    """The kind."""
    eps: float | None = 1e-5
    """This is a sentence that is much too long to stand behind the key and its value, so it is written above both."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of config/ with one architecture, beside an empty docs/."""
    shutil.copytree(CONFIG_DIR, tmp_path / "config", ignore=shutil.ignore_patterns("arch"))
    (tmp_path / "config" / "arch").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "config" / "arch" / "mine.yaml").write_text(HEAD)
    (tmp_path / "config" / "arch" / "mine_2.yaml").write_text("# Two.\ndefaults:\n  - mine\n  - _self_\nsize: 2\n")
    monkeypatch.setattr(generate_config, "CONFIG_DIR", tmp_path / "config")
    monkeypatch.setattr(generate_config, "ROOT", tmp_path)
    inner = SimpleNamespace(config_class=MineConfig)
    monkeypatch.setattr(generate_config, "model_class", lambda arch: SimpleNamespace(inner_class=inner))
    monkeypatch.setattr(generate_config, "known_arch_keys", lambda arch: set(MineConfig.model_fields) - {"vocab_size"})
    return tmp_path


# -- the files here ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", program_files(), ids=lambda path: path.name)
def test_files_of_the_programs_are_current(path: Path):
    assert path.read_text() == program_files()[path], "run python -m scripts.generate_config"


def test_all_files_are_current():
    assert not out_of_date(), "run python -m scripts.generate_config"


def test_lines_are_of_readable_length():
    for path, text in program_files().items():
        assert max(map(len, text.splitlines())) <= 120, path


# -- an architecture of one's own --------------------------------------------------------------------------------------


def test_an_architecture_gets_the_keys_of_its_class(folder: Path):
    path = folder / "config" / "arch" / "mine.yaml"
    written = architecture_files()[path]
    marker = f"# -- written by scripts/generate_config.py from {__name__}.MineConfig: change it there"
    assert (
        written
        == f"""\
{HEAD}
{marker}

size: 8 # Width.
table: ${{.size}} # Width of the table. 0: none.
kind: a # a | b. The kind.
# This is a sentence that is much too long to stand behind the key and its value, so it is written above both.
eps: 1.0e-05
"""
    )
    assert yaml.safe_load(written)["eps"] == 1e-5
    # what is written once stays; a part below the marker that is not current is replaced
    path.write_text(written.replace("size: 8", "size: 9").replace("An arch", "The arch"))
    assert architecture_files()[path] == written.replace("An arch", "The arch")


def test_values_for_keys_that_do_not_exist_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MineConfig, "yaml_values", {"tabel": 1})
    with pytest.raises(ValueError, match=r"MineConfig\.yaml_values: tabel"):
        architecture_files()


def test_the_reference_has_every_key(folder: Path):
    text = reference()
    assert "| `size` | integer | >= 1 | `8` | Width. |" in text
    assert "| `kind` | a \\| b |  | `a` | The kind. |" in text
    assert "### mine\n\nAn architecture. It is small." in text
    assert "### mine_2\n\nTwo.\n\nAs mine, with `size: 2`." in text
    for schema in generate_config.SCHEMAS.values():
        for name, field in schema.model_fields.items():
            assert f"| `{name}` |" in text
            assert " ".join(str(field.description).split()).replace("|", "\\|") in text


# -- the command -------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr("sys.argv", ["generate_config", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert run(monkeypatch, "--check") == 1
    assert set(capsys.readouterr().out.split("\n")) == {
        "out of date: config/arch/mine.yaml", "out of date: docs/configuration.md", ""
    }  # fmt: skip
    assert not (folder / "docs" / "configuration.md").exists()
    assert run(monkeypatch) == 0
    assert run(monkeypatch, "--check") == 0

    class Silent(Settings):
        silent: int = 1

    monkeypatch.setitem(generate_config.SCHEMAS, "cfg_generate", Silent)
    with pytest.raises(ValueError, match=r"Silent\.silent has no docstring"):
        out_of_date()
