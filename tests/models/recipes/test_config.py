"""Which architecture takes which recipe, and what the others say."""

from typing import Any

import pytest

from models.factory import check_arch
from scripts.generate_config import architecture, architectures
from tests.models.small import CONFIG, small_model
from utils.errors import UserError
from utils.hydra import CONFIG_DIR
from utils.hydra import compose as compose_settings

CURRICULUM = [{"until": 0.3, "H_cycles": 1, "L_cycles": 2}, {"until": 0.6, "H_cycles": 2, "L_cycles": 4}]
RECIPES: dict[str, Any] = {
    "gated_unit": "rms_gate",
    "latent_noise": 0.01,
    "depth_curriculum": CURRICULUM,
    "stop_probability": 0.1,
    "deep_improvement": True,
    "label_smoothing": 0.2,
    "supervision_decay": 0.7,
    "halt_loss_weight": 0.05,
}
NOT_TAKEN = {
    "transformers_baseline": {"depth_curriculum"},
    "eqr": {"latent_noise"},
    "se_rrm": {"stop_probability", "halt_loss_weight"},
    "fprm": {"depth_curriculum"},
    "trm_wta": {"deep_improvement"},
    "ldt": {*RECIPES},
    "text_trm": {"stop_probability", "deep_improvement"},
    "text_moeut": {"stop_probability", "deep_improvement", "gated_unit"},
    "text_flat": {*RECIPES} - {"gated_unit", "label_smoothing"},
}
FILES = {path.stem: path for path in architectures()}


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_is_taken_or_refused_with_a_way_out(name: str):
    text = name.startswith("text")
    arch = compose_settings("cfg_text" if text else "cfg_pretrain", [f"arch={name}"]).arch
    steps = {"halt_max_steps": 1 if name == "text_flat" else 4}
    for recipe, value in RECIPES.items():
        changed = type(arch).model_validate(arch.model_dump() | steps | {recipe: value})
        if recipe not in NOT_TAKEN.get(name, ()):
            check_arch(changed, "text" if text else "puzzles")
            continue
        with pytest.raises(UserError, match=rf"arch: {recipe}: .*(leave|set)") as caught:
            check_arch(changed, "text" if text else "puzzles")
        assert name.removeprefix("trm_").split("_")[0].rstrip("s") in str(caught.value).lower()


def test_what_is_refused_is_not_offered():
    for name, path in FILES.items():
        schema, values = architecture(path)
        assert set(RECIPES) - set(values) == set(getattr(schema, "refused", ())) == NOT_TAKEN.get(name, set())
        assert [*values][-1] in RECIPES or name == "ldt"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"depth_curriculum": CURRICULUM[::-1]}, "the stage until 0.3 comes after that until 0.6"),
        ({"depth_curriculum": [{"until": 1.0, "H_cycles": 1, "L_cycles": 1}]}, "should be less than 1"),
        ({"depth_curriculum": [{"until": 0.5, "H_cycle": 1, "L_cycles": 1}]}, "H_cycles"),
        ({"stop_probability": 0.1, "deep_improvement": True}, "leave stop_probability null, or deep_improvement false"),
        ({"deep_improvement": True, "halt_max_steps": 1}, "halt_max_steps of at least 2"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: input should be less than 1"),
        ({"supervision_decay": 0.0}, "supervision_decay=0.0: input should be greater than 0"),
        ({"gated_unit": "gelu"}, "gated_unit='gelu': input should be 'swiglu' or 'rms_gate'"),
    ],
)
def test_values_that_do_not_go_together(keys: dict[str, Any], expected: str):
    arch = compose_settings("cfg_pretrain", ["arch=trm"]).arch
    with pytest.raises(UserError, match=expected):
        check_arch(type(arch).model_validate(arch.model_dump() | keys))


def test_other_combinations_of_one_architecture():
    with pytest.raises(ValueError, match="act_enabled=false every example takes"):
        small_model("transformers_baseline", act_enabled=False, stop_probability=0.1)
    with pytest.raises(ValueError, match="L_cycles 7: at most 6"):
        small_model("trm_hier6", depth_curriculum=[{"until": 0.5, "H_cycles": 1, "L_cycles": 7}])


def test_a_recipe_can_be_given_on_the_command_line():
    assert (CONFIG_DIR / "arch" / "trm.yaml").exists()
    stages = "arch.depth_curriculum=[{until: 0.5, H_cycles: 1, L_cycles: 2}]"
    arch = compose_settings("cfg_pretrain", ["arch=trm", stages, "arch.stop_probability=0.1"]).arch
    check_arch(arch)
    assert arch.own_keys["depth_curriculum"] == [{"until": 0.5, "H_cycles": 1, "L_cycles": 2}]
    assert (
        small_model(**{key: arch.own_keys[key] for key in ("depth_curriculum",)}).config.H_cycles == CONFIG["H_cycles"]
    )
