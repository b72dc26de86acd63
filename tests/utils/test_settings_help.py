"""Settings in words."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from utils.hydra import CONFIG_DIR
from utils.settings import ArchConfig, EvaluatorConfig, LossConfig, PretrainConfig, Settings
from utils.settings_help import (
    bounds_text,
    default_text,
    first_sentence,
    groups_of,
    header,
    help_page,
    meaning,
    sections,
    type_text,
    yaml_text,
)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "integer"),
        (float | None, "number | null"),
        (bool | Literal["auto"], "true | false | auto"),
        (Literal["a", "b"] | None, "a | b | null"),
        (list[str], "list of text"),
        (list[Annotated[int, Field(ge=1)] | None], "list of (integer >= 1 | null)"),
        (tuple[Literal["x", "y"], ...], "list of (x | y)"),
        (dict[str, Any], "mapping"),
        (LossConfig, "{name, loss_type}"),
        (list[ArchConfig] | None, "list of {name, loss, ...} | null"),
    ],
)
def test_types(annotation: Any, text: str):
    assert type_text(annotation) == text


def test_bounds_and_defaults():
    class Some(BaseModel):
        ratio: float = Field(default=0.5, gt=0, le=1)
        count: int | None = Field(default=None, ge=1)
        rate: float = 1e-5
        name: str
        names: list[EvaluatorConfig] = [EvaluatorConfig(name="a@B")]
        several: list[int] = Field(default_factory=lambda: [1, 2], min_length=1)

    fields = Some.model_fields
    bounds = {name: bounds_text(field.metadata) for name, field in fields.items()}
    assert bounds == {"ratio": "> 0 and <= 1", "count": ">= 1", "rate": "", "name": "", "names": "",
                      "several": "at least 1 long"}  # fmt: skip
    assert {name: default_text(field) for name, field in fields.items()} == {
        "ratio": "0.5", "count": "null", "rate": "1.0e-05", "name": "???", "names": "[{name: a@B}]",
        "several": "[1, 2]",
    }  # fmt: skip


def test_yaml_in_one_line():
    assert yaml_text("${.hidden_size}") == "${.hidden_size}"
    assert yaml_text("null") == "'null'"
    assert yaml_text({}) == "{}"
    assert yaml_text(["a b" * 100]) == f"[{'a b' * 100}]"


def test_a_field_without_docstring_is_refused():
    class Some(Settings):
        explained: int = 1
        """It is
        explained."""
        silent: int = 2

    assert meaning(Some, "explained") == "It is explained."
    with pytest.raises(ValueError, match="Some.silent has no docstring"):
        meaning(Some, "silent")
    with pytest.raises(ValueError, match="Some.silent has no docstring"):
        help_page("", Some, CONFIG_DIR, "cfg_evaluate", "cfg_evaluate")


def test_fields_in_no_section_come_last():
    class More(PretrainConfig):
        repeats: int = 5

    assert sections(More) == sections(PretrainConfig) | {"more": ["repeats"]}


def test_headers(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "# @package _global_\n# A model of\n# 1.5M parameters (arXiv 2510.04871). And more.\n#\n#   a\nb: 1\n# c"
    )
    assert header(path) == "A model of\n1.5M parameters (arXiv 2510.04871). And more.\n\n  a"
    assert first_sentence(header(path)) == "A model of 1.5M parameters (arXiv 2510.04871)."


def test_groups():
    assert groups_of(CONFIG_DIR / "cfg_pretrain.yaml") == {"arch": "trm", "experiment": None}
    assert groups_of(CONFIG_DIR / "cfg_generate.yaml") == {}
