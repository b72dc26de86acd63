"""The schema of the configuration files, and errors that say how to mend them.

A configuration is YAML composed by Hydra, turned into plain values once and checked here with unknown keys refused.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from utils.device import DeviceName
from utils.errors import UserError, did_you_mean
from utils.optimizers import OptimizerName

ModelT = TypeVar("ModelT", bound=BaseModel)
WandbMode = Literal["online", "offline", "disabled"]


class LossConfig(BaseModel):
    """arch.loss"""

    model_config = ConfigDict(extra="forbid")
    name: str
    loss_type: str


class ArchConfig(BaseModel):
    """arch: the class and its loss; all else belongs to the class, which checks it (models.factory)."""

    model_config = ConfigDict(extra="allow")
    name: str
    loss: LossConfig

    @property
    def own_keys(self) -> dict[str, Any]:
        """The keys that belong to the class."""
        return dict(self.model_extra or {})


class EvaluatorConfig(BaseModel):
    """One entry of evaluators: the class and its options."""

    model_config = ConfigDict(extra="allow")
    name: str


class DataBuilderConfig(BaseModel):
    """How to make data_paths[0] where it is missing: a module with `Config` and `build`, and its options."""

    model_config = ConfigDict(extra="forbid")
    module: str
    options: dict[str, Any] = {}


class RunConfig(BaseModel):
    """What training and evaluation share."""

    model_config = ConfigDict(extra="forbid")

    load_checkpoint: str | None = None
    data_paths: list[str]
    data_paths_test: list[str] = []
    eval_max_examples: int | None = Field(default=None, ge=1)
    eval_save_outputs: list[str] = []
    seed: int = Field(default=0, ge=0)
    device: DeviceName = "auto"
    compile: bool | Literal["auto"] = "auto"


class DenseOptimization(BaseModel):
    """How the weights are trained; every training program has these keys."""

    global_batch_size: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    lr: float = Field(ge=0)
    lr_min_ratio: float = Field(ge=0, le=1)
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    ema: bool = False
    ema_rate: float = Field(default=0.999, ge=0, lt=1)
    optimizer: OptimizerName = "adam_atan2"
    grad_accum_steps: int = Field(default=1, ge=1)
    activation_checkpointing: bool = False
    grad_clip_norm: float | None = Field(default=None, gt=0)


class OptimizationConfig(DenseOptimization):
    """What `models.training.TrainState` needs to know."""

    lr_warmup_steps: int = Field(ge=0)
    puzzle_emb_lr: float = Field(ge=0)
    puzzle_emb_weight_decay: float = Field(ge=0)
    freeze_weights: bool = False


class TrainingConfig(DenseOptimization):
    """What every training program needs to know of the run itself: names, checkpoints, logs, the machine."""

    model_config = ConfigDict(extra="forbid")

    arch: ArchConfig
    project_name: str | None = None
    run_name: str | None = None
    checkpoint_path: str | None = None
    load_checkpoint: str | None = None
    checkpoint_every_eval: bool = False
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    keep_train_states: int = Field(default=2, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    eval_halt_max_steps: int | None = Field(default=None, ge=1)
    wandb_mode: WandbMode | None = None
    device: DeviceName = "auto"
    compile: bool | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> "TrainingConfig":
        if self.global_batch_size % self.grad_accum_steps:
            raise ValueError(
                f"grad_accum_steps {self.grad_accum_steps} does not divide global_batch_size {self.global_batch_size}"
            )
        return self


class PretrainConfig(RunConfig, TrainingConfig, OptimizationConfig):
    """cfg_pretrain.yaml: the published keys with their defaults, and ours."""

    evaluators: list[EvaluatorConfig] = []
    epochs: int = Field(ge=1)
    eval_interval: int | None = Field(default=None, ge=1)
    min_eval_interval: int | None = Field(default=0, ge=0)
    eval_halt_max_steps: int | None = Field(default=None, ge=1)
    eval_early_halting: bool = False
    eval_halt_threshold: float = Field(default=0.5, ge=0, lt=1)
    eval_halt_unchanged: bool = True
    eval_batch_size: int | None = Field(default=None, ge=1)
    augmentation: str | None = None
    data_builder: DataBuilderConfig | None = None
    show_example: bool = True
    data_on_device: bool | Literal["auto"] = "auto"
    num_workers: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "PretrainConfig":
        interval = self.eval_interval
        if interval is not None and self.epochs % interval:
            divisor = max(d for d in range(1, min(interval, self.epochs) + 1) if self.epochs % d == 0)
            raise ValueError(
                f"eval_interval {interval} does not divide epochs {self.epochs}: use for example "
                f"eval_interval={divisor}, or eval_interval=null to evaluate at the end only"
            )
        return self


class EvaluateConfig(RunConfig):
    """cfg_evaluate.yaml."""

    load_config: str | None = None
    arch: dict[str, Any] = {}
    force: bool = False
    evaluators: list[EvaluatorConfig] | None = None
    split: Literal["train", "test"] = "test"
    halt_max_steps: int | None = Field(default=None, ge=1)
    early_halting: bool = False
    halt_threshold: float = Field(default=0.5, ge=0, lt=1)
    halt_unchanged: bool = True
    global_batch_size: int | None = Field(default=None, ge=1)
    save_path: str | None = None
    show_example: bool = False


class TextConfig(TrainingConfig):
    """cfg_text.yaml and the cfg_tinystories_*.yaml made of it."""

    # data
    data_files: list[str] = []
    data_files_test: list[str] = []
    data_name: str
    data_cache: str | None = None
    held_out: float = Field(gt=0, lt=1)
    streaming: bool = False
    seq_len: int = Field(ge=2)
    num_workers: int | None = Field(default=None, ge=0)

    # tokenizer
    tokenizer: str
    vocab_file: str | None = None
    merges_file: str | None = None
    max_vocab: int | None = Field(default=None, ge=1)
    cap: Literal["frequency", "lowest_ids"] = "frequency"
    cap_sample: int = Field(ge=1)

    # length and evaluation, in sequences
    max_sequences: int = Field(ge=1)
    eval_interval: int | None = Field(default=None, ge=1)
    eval_batches: int = Field(ge=1)

    # optimization
    lr_warmup_ratio: float = Field(ge=0, le=1)

    def optimization(self, total_steps: int) -> OptimizationConfig:
        """What the training state needs; the warm-up is a share of `total_steps`. No puzzle embedding to train."""
        shared = {name: getattr(self, name) for name in DenseOptimization.model_fields}
        return OptimizationConfig(
            **shared,
            lr_warmup_steps=round(self.lr_warmup_ratio * total_steps),
            puzzle_emb_lr=0.0,
            puzzle_emb_weight_decay=0.0,
        )


class GenerateConfig(BaseModel):
    """cfg_generate.yaml."""

    model_config = ConfigDict(extra="forbid")

    load_checkpoint: str
    prompts: list[str] = []
    prompts_file: str | None = None
    temperature: list[Annotated[float, Field(ge=0)]] = Field(min_length=1)
    top_k: list[Annotated[int, Field(ge=1)] | None] = Field(min_length=1)
    seed: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    max_new_tokens: int = Field(ge=1)
    halting: bool = False
    halt_max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(ge=1)
    output: str | None = None
    device: DeviceName = "auto"

    @field_validator("temperature", "top_k", "seed", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @field_validator("prompts", mode="before")
    @classmethod
    def _prompts_are_text(cls, value: Any) -> Any:
        return [str(prompt) for prompt in value] if isinstance(value, list) else value


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain Python values, interpolations resolved."""
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
    """`schema` filled with `values`.

    Args:
        schema: the pydantic model.
        values: plain values.
        where: prefix of the keys in messages, such as `arch.`.

    Raises:
        UserError: one line for each key that is unknown, missing or of another kind.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(schema, dict(item), where) for item in error.errors()]
        raise UserError("the configuration does not fit:\n  " + "\n  ".join(lines)) from None


def _explain(schema: type[BaseModel], item: dict[str, Any], where: str) -> str:
    # the parts that name a member of a union are no keys
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
    """The message for a key that nothing reads."""
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


def write_yaml(path: Path, config: BaseModel) -> None:
    """Write a configuration in the form of the published all_config.yaml."""
    path.write_text(yaml.safe_dump(config.model_dump(), sort_keys=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read an all_config.yaml."""
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values
