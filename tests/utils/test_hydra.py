"""Which arguments of a command line are handed to the schema to judge, and which to Hydra."""

import pytest
from hydra import compose, initialize_config_dir

from utils.config import PretrainConfig, plain, validate
from utils.errors import UserError
from utils.hydra import CONFIG_DIR, _lenient


@pytest.mark.parametrize(
    "argument",
    [
        "lr=1e-3",
        "lr=1e-3,1e-4",
        "arch.L_cycles=4",
        "no_such_key=1",
        "arch.no.such.key=1",
        "data_paths=[a,b]",
        "run_name=",
        "run_name='a=b'",
        "evaluators=[{name: maze@Maze}]",
        "experimen=quickstart",
        "lr=choice(1,2)",
    ],
)
def test_values_are_added_where_they_do_not_exist(argument: str):
    assert _lenient(argument) == "++" + argument


@pytest.mark.parametrize(
    "argument",
    [
        *("arch=hrm", "experiment=quickstart", "experiment=null", "arch=hrm,trm"),  # choices of a group
        *("hydra.run.dir=x", "hydra.sweep.subdir=x", "hydra/job_logging=default", "hydra/launcher=basic"),
        *("+run_name=x", "++lr=1", "~lr", "~arch.L_cycles", "-m", "--multirun", "--config-name=x", "-cn=x"),
        *("run_name", "=x", "data_paths=[a", "load_checkpoint=a=b", "a b=c"),  # what Hydra explains
    ],
)
def test_everything_else_is_left_alone(argument: str):
    assert _lenient(argument) == argument


def test_misspelt_keys_reach_the_schema():
    overrides = [_lenient(argument) for argument in ("experiment=quickstart", "epochs=800", "epohcs=7")]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        values = plain(compose("cfg_pretrain", overrides))
    assert values["epochs"] == 800
    with pytest.raises(UserError, match="epohcs: no such key. Did you mean 'epochs'"):
        validate(PretrainConfig, values)
