"""The configuration files against the published defaults, and what is said about values that do not fit."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from models.factory import check_arch
from utils.config import plain, read_yaml, validate, write_yaml
from utils.errors import UserError
from utils.hydra import CONFIG_DIR
from utils.machine import choose_dtype
from utils.settings import EvaluateConfig, PretrainConfig

EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))
ARCHITECTURES = sorted(path.stem for path in (CONFIG_DIR / "arch").glob("*.yaml"))

PUBLISHED: dict[str, Any] = {
    "data_paths": ["data/arc-aug-1000"],
    "data_paths_test": [],
    "evaluators": [{"name": "arc@ARC"}],
    "global_batch_size": 768,
    "epochs": 100000,
    "eval_interval": 10000,
    "checkpoint_every_eval": True,
    "lr": 1e-4,
    "lr_min_ratio": 1.0,
    "lr_warmup_steps": 2000,
    "beta1": 0.9,
    "beta2": 0.95,
    "weight_decay": 0.1,
    "puzzle_emb_weight_decay": 0.1,
    "puzzle_emb_lr": 1e-2,
    "seed": 0,
    "min_eval_interval": 0,
    "ema": False,
    "ema_rate": 0.999,
    "freeze_weights": False,
    "project_name": None,
    "run_name": None,
    "load_checkpoint": None,
    "checkpoint_path": None,
    "eval_save_outputs": [],
}
SHARED_BY_ALL = {
    "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
    "halt_exploration_prob": 0.1,
    "halt_max_steps": 16,
    "hidden_size": 512,
    "puzzle_emb_ndim": 512,
    "expansion": 4,
    "pos_encodings": "rope",
    "forward_dtype": "bfloat16",
}
TRM = {
    **SHARED_BY_ALL,
    "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
    "num_heads": 8,
    "H_layers": 0,
    "L_layers": 2,
    "H_cycles": 3,
    "L_cycles": 6,
    "puzzle_emb_len": 16,
    "mlp_t": False,
    "no_ACT_continue": True,
}
EQR = {
    **{key: value for key, value in TRM.items() if key not in ("puzzle_emb_ndim", "puzzle_emb_len")},
    "name": "recursive_reasoning.eqr@EqRModel",
    "puzzle_emb_ndim": 0,
    "lambda_": 0.95,
    "noise_scale": 0.01,
    "H_init_std": 1.0,
    "L_init_std": 1.0,
}
SE_RRM = {
    **SHARED_BY_ALL,
    "name": "recursive_reasoning.se_rrm@SERRM",
    "puzzle_emb_ndim": 0,
    "hidden_size": 256,
    "num_heads": 4,
    "num_heads_t": 2,
    "head_dim": 64,
    "head_dim_t": 64,
    "L_layers": 2,
    "H_cycles": 3,
    "L_cycles": 4,
    "pos_encodings": "rope2d",
    "equivariant_symbols": True,
    "add_tokens": 0,
    "dropout": 0,
}
FPRM = {
    **TRM,
    "name": "recursive_reasoning.fprm@FixedPointReasoningModel_ACTV1",
    "halt_max_steps": 12,
    "n_backwards_L": 6,
    "fp_thresh": 0.1,
    "stepsize": 1.0,
    "stepsize_decay_train": 0.9,
    "stepsize_decay_eval": 0.99,
    "decay_patience": 5,
    "init_std": 6.0,
    "conv_type": "conv2d",
    "conv_kernel_size": 3,
    "alpha_1_init": 0.75,
    "alpha_2_init": 0.25,
    "norm_type": "pre-norm",
    "norm_placement": "none",
}
PUBLISHED_ARCHITECTURES = {
    "urm": {
        **SHARED_BY_ALL,
        "name": "recursive_reasoning.urm@URM",
        "num_heads": 8,
        "L_layers": 4,
        "H_cycles": 2,
        "L_cycles": 6,
    },
    "eqr": EQR,
    "eqr_mlp": {**EQR, "mlp_t": True, "pos_encodings": "none"},
    "eqr_maze": {**EQR, "hidden_size": 128, "L_layers": 1, "L_cycles": 4},
    "se_rrm": SE_RRM,
    "se_rrm_arc": {**SE_RRM, "puzzle_emb_ndim": 1},
    "se_rrm_sudoku": {**SE_RRM, "L_cycles": 6, "add_tokens": 4, "dropout": 0.2, "halt_exploration_prob": 0.05},
    "fprm": FPRM,
    "fprm_maze": {
        **FPRM,
        "conv_type": "conv1d",
        "conv_kernel_size": 4,
        "norm_placement": "output",
        "halt_max_steps": 24,
    },
    "trm_wta": {**TRM, "name": "recursive_reasoning.trm_wta@WinnerTakesAllModel", "num_chains": 4},
    "trm": TRM,
    "trm_l4": {**TRM, "L_cycles": 4},
    "trm_mlp": {**TRM, "mlp_t": True, "pos_encodings": "none"},
    "trm_singlez": {**TRM, "name": "recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1"},
    "trm_hier6": {**TRM, "name": "recursive_reasoning.trm_hier6@TinyRecursiveReasoningModel_ACTV1"},
    "hrm": {
        **SHARED_BY_ALL,
        "name": "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1",
        "num_heads": 8,
        "H_layers": 4,
        "L_layers": 4,
        "H_cycles": 2,
        "L_cycles": 2,
    },
    "transformers_baseline": {
        **SHARED_BY_ALL,
        "name": "recursive_reasoning.transformers_baseline@Model_ACTV2",
        "num_heads": 12,
        "H_layers": 8,
        "act_enabled": True,
        "act_inference": False,
    },
    "ldt": {
        "name": "recursive_reasoning.ldt@LatticeDeductionTransformer",
        "hidden_size": 128,
        "num_heads": 4,
        "L_layers": 4,
        "n_loops": 16,
        "dropout": 0.1,
        "halt_max_steps": 100,
        "kill_threshold": 0.1,
        "conflict_threshold": 0.5,
        "temperature": 1.5,
        "conflict_loss_weight": 0.1,
    },
}


def composed(*overrides: str, config: str = "cfg_pretrain") -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        return plain(compose(config, list(overrides)))


def checked(values: dict[str, Any]) -> PretrainConfig:
    """Validated as pretrain.py does on a CPU."""
    config = validate(PretrainConfig, values)
    dtype, _ = choose_dtype(config.arch.own_keys["forward_dtype"], torch.device("cpu"))
    config.arch.forward_dtype = dtype  # pyright: ignore[reportAttributeAccessIssue]
    check_arch(config.arch)
    return config


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return composed()


def message(values: dict[str, Any], schema: Any = PretrainConfig) -> str:
    with pytest.raises(UserError) as caught:
        validate(schema, values)
    return str(caught.value)


# -- the files ---------------------------------------------------------------------------------------------------------


def test_defaults_are_the_published_ones(defaults: dict[str, Any]):
    assert {key: defaults[key] for key in PUBLISHED} == PUBLISHED
    assert set(defaults) == set(PretrainConfig.model_fields)
    checked(defaults)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.startswith("text_")])
def test_architectures_have_the_published_sizes(name: str):
    arch = composed(f"arch={name}")["arch"]
    published = PUBLISHED_ARCHITECTURES[name]
    assert {key: arch.get(key) for key in published} == published


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("arch", [None, "hrm", "transformers_baseline"])
def test_experiments_compose_and_fit(experiment: str, arch: str | None):
    values = composed(f"experiment={experiment}", *([f"arch={arch}"] if arch else []))
    config = checked(values)
    assert set(values) == set(PretrainConfig.model_fields)
    if arch:
        assert config.arch.name == PUBLISHED_ARCHITECTURES[arch]["name"]


@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("sudoku_extreme_mlp", {"epochs": 50000, "eval_interval": 5000, "weight_decay": 1.0, "puzzle_emb_lr": 1e-4}),
        ("sudoku_extreme_att", {"epochs": 50000, "eval_interval": 5000, "weight_decay": 1.0, "puzzle_emb_lr": 1e-4}),
        ("maze_hard", {"epochs": 50000, "eval_interval": 5000, "weight_decay": 1.0, "puzzle_emb_lr": 1e-4}),
        ("arc1", {"epochs": 100000, "eval_interval": 10000, "weight_decay": 0.1, "puzzle_emb_lr": 1e-2}),
        ("arc2", {"epochs": 100000, "eval_interval": 10000, "weight_decay": 0.1, "puzzle_emb_lr": 1e-2}),
    ],
)
def test_published_experiments_have_the_published_settings(experiment: str, settings: dict[str, Any]):
    values = composed(f"experiment={experiment}")
    settings |= {"puzzle_emb_weight_decay": settings["weight_decay"], "global_batch_size": 768, "lr": 1e-4}
    settings |= {"lr_warmup_steps": 2000, "ema": True, "ema_rate": 0.999, "lr_min_ratio": 1.0}
    assert {key: values[key] for key in settings} == settings
    assert values["arch"]["L_cycles"] == (6 if "sudoku" in experiment else 4)
    assert values["arch"]["mlp_t"] == (experiment == "sudoku_extreme_mlp")


def test_an_experiment_can_be_changed_on_the_command_line():
    values = composed("experiment=quickstart", "lr=0.5", "+run_name=x", "arch.L_cycles=5")
    assert (values["lr"], values["run_name"], values["arch"]["L_cycles"]) == (0.5, "x", 5)
    assert values["epochs"] == composed("experiment=quickstart")["epochs"]


def test_the_file_of_evaluation_fits():
    values = composed("load_checkpoint=x", config="cfg_evaluate")
    assert set(values) == set(EvaluateConfig.model_fields)
    assert validate(EvaluateConfig, values).model_dump() == values
    with pytest.raises(UserError, match="load_checkpoint"):
        composed(config="cfg_evaluate")


# -- messages ----------------------------------------------------------------------------------------------------------


def test_unknown_keys_are_answered_with_the_nearest_one(defaults: dict[str, Any]):
    said = message(defaults | {"globl_batch_size": 3})
    assert "globl_batch_size: no such key. Did you mean 'global_batch_size'? Allowed are activation_" in said


def test_unknown_keys_far_from_any_get_the_list_alone(defaults: dict[str, Any]):
    said = message(defaults | {"zzzzzz": 3})
    assert "zzzzzz: no such key. Allowed are activation_checkpointing, adamw_lr_ratio, arch," in said
    assert "Did you mean" not in said


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        (
            "arch",
            {"name": "x", "loss": {"name": "x", "loss_typ": "y", "loss_type": "y"}},
            "arch.loss.loss_typ: no such key. Did you mean 'loss_type'? Allowed are loss_type, name.",
        ),
        (
            "arch",
            {"name": "x", "loss": {"name": "x"}},
            "arch.loss.loss_type: missing; set it with arch.loss.loss_type=...",
        ),
        (
            "data_builder",
            {"modul": "x"},
            "data_builder.modul: no such key. Did you mean 'module'? Allowed are given, module, options.",
        ),
        ("evaluators", [{}], "evaluators.0.name: missing"),
    ],
)
def test_nested_keys_are_named_in_full(defaults: dict[str, Any], section: str, values: Any, expected: str):
    assert expected in message(defaults | {section: values})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lr", "fast", "lr='fast': input should be a valid number"),
        ("epochs", 1.5, "epochs=1.5: input should be a valid integer"),
        ("epochs", 0, "epochs=0: input should be greater than or equal to 1"),
        ("beta1", 1.0, "beta1=1.0: input should be less than 1"),
        ("optimizer", "adm", "optimizer='adm': input should be 'adam_atan2',"),
        ("device", "gpu", "device='gpu': input should be 'auto', 'cuda', 'mps' or 'cpu'"),
        ("data_paths", 1, "data_paths=1: input should be a valid list"),
        ("data_paths", "", "data_paths='': input should be a valid list"),
        ("ema", "perhaps", "ema='perhaps': input should be a valid boolean"),
        ("activation_checkpointing", "some", "activation_checkpointing='some': input should be a valid boolean"),
        ("compile", "perhaps", "compile='perhaps': "),
    ],
)
def test_wrong_values_are_shown_with_what_is_allowed(defaults: dict[str, Any], key: str, value: Any, expected: str):
    assert expected in message(defaults | {key: value})


def test_every_error_has_its_line(defaults: dict[str, Any]):
    values = {key: value for key, value in defaults.items() if key != "arch"} | {"epohs": 1, "seed": -1}
    lines = message(values).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["seed=-1", "arch", "epohs"]


@pytest.mark.parametrize(
    ("epochs", "interval", "proposed"), [(10, 4, 2), (7, 5, 1), (100000, 30000, 25000), (12, 20, 12)]
)
def test_an_interval_that_does_not_divide_the_epochs(
    defaults: dict[str, Any], epochs: int, interval: int, proposed: int
):
    said = message(defaults | {"epochs": epochs, "eval_interval": interval})
    assert (
        f"eval_interval {interval} does not divide epochs {epochs}: use for example eval_interval={proposed}," in said
    )
    for good in (proposed, epochs, None):
        validate(PretrainConfig, defaults | {"epochs": epochs, "eval_interval": good})


def test_micro_batches_divide_the_batch(defaults: dict[str, Any]):
    said = message(defaults | {"global_batch_size": 10, "grad_accum_steps": 4})
    assert "grad_accum_steps 4 does not divide global_batch_size 10" in said


# -- YAML --------------------------------------------------------------------------------------------------------------


def test_a_configuration_written_is_read_back(tmp_path: Path, defaults: dict[str, Any]):
    changes = {"lr": 1e-7, "run_name": "null", "project_name": "1e-3", "data_paths": ["a: b", "yes"], "ema": True}
    config = validate(PretrainConfig, defaults | changes)
    write_yaml(tmp_path / "all_config.yaml", config)
    values = read_yaml(tmp_path / "all_config.yaml")
    assert values == config.model_dump()
    assert validate(PretrainConfig, values) == config


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"a: \x00", "is not YAML"),
        (b"- 1\n", "expected keys and values, got list"),
        (b"", "expected keys and values, got NoneType"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: bytes, expected: str):
    path = tmp_path / "all_config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"all_config.yaml.*{expected}"):
        read_yaml(path)


def test_equal_lists_are_written_out(tmp_path: Path, defaults: dict[str, Any]):
    config = validate(PretrainConfig, defaults)
    shared = ["x"] * 3
    config = config.model_copy(update={"data_paths": shared, "data_paths_test": shared})
    write_yaml(tmp_path / "all_config.yaml", config)
    assert "&" not in (tmp_path / "all_config.yaml").read_text()
    assert read_yaml(tmp_path / "all_config.yaml") == config.model_dump()


def test_a_few_aliases_are_read(tmp_path: Path):
    (tmp_path / "all_config.yaml").write_text("a: &a [1, 2]\nb: *a\nc: &c {d: 1}\ne: {<<: *c, f: 2}\n")
    assert read_yaml(tmp_path / "all_config.yaml") == {"a": [1, 2], "b": [1, 2], "c": {"d": 1}, "e": {"d": 1, "f": 2}}


def laughs(form: str, last: str) -> str:
    """Thirty lines, each of which names the one before nine times."""
    lines = ["l0: &l0 " + last]
    lines += [f"l{i}: &l{i} " + form.format(", ".join([f"*l{i - 1}"] * 9)) for i in range(1, 30)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "content",
    [laughs("[{}]", "[x]"), laughs("{{<<: [{}]}}", "{x: 1}"), "a: &a [*a]", "a: &a {b: *a}"],
    ids=["lists", "merged", "itself", "key-itself"],
)
def test_aliases_without_end_are_refused(tmp_path: Path, content: str):
    (tmp_path / "all_config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"all_config\.yaml: with its aliases .* more than 100,000 values"):
        read_yaml(tmp_path / "all_config.yaml")


@pytest.mark.parametrize(
    "content",
    [
        "a: 2020-13-45",
        "a: " + "[" * 5000,
        "a: " + "9" * 5000,
        "? [a]\n: 1",
        "a: !!python/name:os.system",
        "a: 1\n---\nb: 2",
    ],
)
def test_values_that_cannot_be_read_are_refused(tmp_path: Path, content: str):
    (tmp_path / "all_config.yaml").write_text(content)
    with pytest.raises(UserError, match="all_config.yaml is not YAML"):
        read_yaml(tmp_path / "all_config.yaml")


def test_a_configuration_that_is_no_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "all_config.yaml")
    for path, kind in ((tmp_path / "all_config.yaml", "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(UserError, match=f"{path} is {kind}, expected a regular file"):
            read_yaml(path)
