"""The settings classes: what a subclass inherits, what every field must have, and that YAML files agree."""

from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from pydantic import Field, ValidationError

import utils.settings
from bench.train_step import BenchConfig
from models.factory import check_arch
from utils.config import plain, validate
from utils.constants import MAX_SEED
from utils.counter_random import seed_of
from utils.errors import UserError
from utils.functions import load_class
from utils.hydra import CONFIG_DIR, SCHEMAS
from utils.hydra import compose as compose_settings
from utils.schema import Schema
from utils.settings import OptimizationConfig, PretrainConfig, Settings, TextConfig, TrainingConfig
from utils.settings_help import type_text

ALL = [
    found
    for found in (*vars(utils.settings).values(), BenchConfig)
    if isinstance(found, type) and issubclass(found, Settings)
]
ARCHS = sorted(path for path in (CONFIG_DIR / "arch").glob("*.yaml") if not path.stem.startswith("text_"))
TEXT_ARCHS = sorted((CONFIG_DIR / "arch").glob("text_*.yaml"))
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


def architectures() -> list[type[Schema]]:
    names = {compose_settings("cfg_pretrain", [f"arch={path.stem}"]).arch.name for path in ARCHS} | {
        compose_settings("cfg_text", [f"arch={path.stem}"]).arch.name for path in TEXT_ARCHS
    }
    return [load_class(name).inner_class.config_class for name in sorted(names)]


@pytest.mark.parametrize("schema", [*ALL, *architectures()])
def test_numbers_are_finite_and_true_is_no_number(schema: type[Schema]):
    """Of every field of every class, wherever its type is one of numbers."""
    for name, field in schema.model_fields.items():
        described = type_text(field.annotation)
        if "number" not in described and "integer" not in described:
            continue
        for value in (True, False, float("inf"), float("nan"), float("-inf")):
            for given in (value, [value]):
                with pytest.raises(ValidationError) as caught:
                    schema.model_validate({name: given})
                assert name in {item["loc"][0] for item in caught.value.errors()}, (name, given)


@pytest.mark.parametrize(
    "values",
    [
        *({"seed": 2**63}, {"lr": 3e38}, {"puzzle_emb_lr": 1e9}, {"weight_decay": 1e9}, {"global_batch_size": 1e11}),
        *({"eval_halt_max_steps": 1e11}, {"num_workers": 1e11}, {"epochs": 1e13}),
    ],
)
def test_numbers_beyond_any_use_are_refused_with_the_bound(values: dict[str, Any]):
    with pytest.raises(UserError, match=f"{next(iter(values))}=.*input should be less than or equal to"):
        validate(PretrainConfig, {"arch": ARCH} | values)


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_heads", "H_layers", "L_layers", "H_cycles", "L_cycles", "halt_max_steps", "expansion"]
)
def test_sizes_of_an_architecture_beyond_any_use_are_refused_with_the_bound(key: str):
    with pytest.raises(UserError, match=f"arch.{key}=.*input should be less than or equal to"):
        check_arch(compose_settings("cfg_pretrain", ["arch=hrm", f"arch.{key}=100000000000"]).arch)


def test_the_largest_seed_serves_every_generator():
    assert validate(PretrainConfig, {"arch": ARCH, "seed": MAX_SEED}).seed == MAX_SEED
    torch.manual_seed(MAX_SEED)
    torch.Generator().manual_seed(MAX_SEED)
    np.random.default_rng((MAX_SEED, 1, 2))
    seed_of(MAX_SEED, 1, 2)


def test_an_interval_for_very_many_epochs_is_found_at_once():
    with pytest.raises(UserError, match="use for example eval_interval=5000000000"):
        validate(PretrainConfig, {"arch": ARCH, "epochs": 10**10, "eval_interval": 7 * 10**9})


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
