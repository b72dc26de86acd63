"""The settings classes: what a subclass inherits, what every field must have, and that YAML files agree."""

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from pydantic import Field, ValidationError

import utils.settings
from bench.train_step import BenchConfig
from utils.config import plain, validate
from utils.errors import UserError
from utils.hydra import CONFIG_DIR, SCHEMAS
from utils.settings import OptimizationConfig, PretrainConfig, Settings, TextConfig, TrainingConfig

ALL = [
    found
    for found in (*vars(utils.settings).values(), BenchConfig)
    if isinstance(found, type) and issubclass(found, Settings)
]
ARCH = {"name": "trm@Model", "loss": {"name": "losses@Head", "loss_type": "softmax_cross_entropy"}}
OVERRIDDEN = [
    ("global_batch_size", 64, 0),
    ("seed", 42, -1),
    ("optimizer", "adamw", "sgd"),
    ("lr", 1e-2, -1e-3),
    ("lr_min_ratio", 0.01, 1.5),
    ("weight_decay", 0.0, -0.1),
    ("grad_clip_norm", 1.0, 0.0),
]


@pytest.mark.parametrize("config_name", SCHEMAS)
def test_defaults_of_the_class_are_those_of_the_yaml_file(config_name: str):
    schema, required = SCHEMAS[config_name], {"load_checkpoint": "step_1"}
    overrides = ["load_checkpoint=step_1"] if schema.model_fields["load_checkpoint"].is_required() else []
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        composed = plain(compose(config_name, overrides))
    given = {name: (required | composed)[name] for name, field in schema.model_fields.items() if field.is_required()}
    assert set(given) < {"arch", "load_checkpoint"}
    assert schema.model_validate(given).model_dump() == composed


@pytest.mark.parametrize("schema", ALL)
def test_every_field_has_its_own_docstring(schema: type[Settings]):
    for name, field in schema.model_fields.items():
        assert field.description, f"{schema.__name__}.{name}"
        assert field.description.endswith("."), f"{schema.__name__}.{name}"
        assert field.description.isascii()


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), BenchConfig])
def test_sections_name_every_field_once(schema: type[Settings]):
    named = [name for names in schema.sections.values() for name in names.split()]
    assert sorted(named) == sorted(schema.model_fields)


@pytest.mark.parametrize(("name", "value", "bad"), OVERRIDDEN)
def test_text_states_values_alone(name: str, value: Any, bad: Any):
    shared, own = TrainingConfig.model_fields[name], TextConfig.model_fields[name]
    assert own.default == value
    assert shared.default != value
    assert (own.annotation, own.metadata, own.description) == (shared.annotation, shared.metadata, shared.description)
    assert getattr(TextConfig.model_validate({"arch": ARCH}), name) == value
    with pytest.raises(UserError, match=f"{name}="):
        validate(TextConfig, {"arch": ARCH, name: bad})


def test_all_other_defaults_are_shared():
    differ = {
        name for name, field in OptimizationConfig.model_fields.items() if TextConfig.model_fields[name] is not field
        and TextConfig.model_fields[name].default != field.default
    }  # fmt: skip
    assert differ == {name for name, _, _ in OVERRIDDEN}


def test_a_class_below_keeps_the_defaults():
    class More(PretrainConfig, defaults={"beta1": 0.5}):
        """One field more."""

        repeats: int = Field(default=5, ge=1)
        """How often."""

    settings = More.model_validate({"arch": ARCH})
    assert (settings.lr, settings.global_batch_size, settings.beta1, settings.repeats) == (1e-4, 768, 0.5, 5)
    assert PretrainConfig.model_validate({"arch": ARCH}).beta1 == 0.9
    with pytest.raises(ValidationError, match="beta1"):
        More.model_validate({"arch": ARCH, "beta1": 1.0})


def test_defaults_are_for_fields_that_exist_and_are_validated():
    with pytest.raises(KeyError, match="learning_rate"):

        class Unknown(OptimizationConfig, defaults={"learning_rate": 1.0}): ...

    class Bad(OptimizationConfig, defaults={"lr": -1.0}): ...

    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Bad.model_validate({"global_batch_size": 1})


def test_defaults_are_not_shared_between_instances():
    first, second = (PretrainConfig.model_validate({"arch": ARCH}) for _ in range(2))
    first.data_paths.append("data/more")
    first.evaluators.clear()
    assert second.data_paths == ["data/arc-aug-1000"]
    assert [evaluator.name for evaluator in second.evaluators] == ["arc@ARC"]
