"""Arguments that cannot mean what they say are refused in plain words, and all others are left to Hydra."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from tests.runs import outcome, refused
from utils.errors import UserError
from utils.hydra import CONFIG_DIR
from utils.overrides import check_overrides, composition_error


@pytest.mark.parametrize(
    "arguments",
    [
        *("lr=1e-3", "run_name=a b", "run_name=", "run_name=a:b", "data_paths=[a,b]", "~lr", "+run_name=x", "++lr=1"),
        *("run_name='\u00e9'", 'run_name="None"', "top_k=[40,null]", "evaluators=[{name: maze@Maze}]", "arch=hrm"),
        *("-m lr=1,2 arch=hrm,trm", "-m lr=choice(1,2)", "--multirun lr=1,2", "hydra.mode=MULTIRUN lr=1,2"),
        *("--cfg job", "-c job", "--config-name cfg_text", "-cn cfg_text", "--config-name=x", "--multi", "--info all"),
        *("experiment=quickstart", "~experiment", "hydra/launcher=basic", "hydra.run.dir=x", "-m lr=range(1,3)"),
    ],
)
def test_what_hydra_understands_passes(arguments: str):
    given = [arguments] if arguments.startswith(("run_name", "evaluators")) else arguments.split()
    check_overrides(given, CONFIG_DIR)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("--lr=1", ["--lr=1: settings have no hyphens", "write lr=1;", "${args_no_hyphens} in place of ${args}"]),
        ("--max-steps", ["write max_steps=VALUE"]),
        ("--arch.L_cycles=2", ["write arch.L_cycles=2"]),
        ("lr", ["lr: a setting is written KEY=VALUE"]),
        ("=3", ["=3: a setting is written KEY=VALUE"]),
        ("-m lr", ["lr: a setting is written KEY=VALUE"]),
        ("run_name=None", ["run_name=None: write null", "'run_name=\"None\"'"]),
        ("++top_k=[40,None]", ["top_k=[40,None]: write null"]),
        ("-m lr=1,None", ["lr=1,None: write null"]),
        ("epochs=1,2", ["epochs=1,2: these are several values. Add -m", "epochs=[1,2]"]),
        ("arch=trm,hrm", ["arch=trm,hrm: these are several values. Add -m to run them one after the other."]),
        ("seed=" + "9" * 5000, ["seed=9999", "9...: a number of 5,000 digits is too long"]),
        ("data_paths=[a", ["data_paths=[a: this value cannot be read", "Lists are written [a,b]"]),
        *((f"{key}={value}", [f"{key}={value}: this names a file in config/{key}/", "one of ", "leave " + key])
          for key in ("arch", "experiment") for value in ("null", "1", "true", "[1]", "{a:1}", "''")),
        ("-m arch=null,trm", ["arch=null,trm: this names a file"]),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(arguments: str, parts: list[str]):
    with pytest.raises(UserError) as caught:
        check_overrides(arguments.split(), CONFIG_DIR)
    for part in parts:
        assert part in str(caught.value)
    assert "++" not in str(caught.value)


@pytest.mark.parametrize("value", ["\u00e9", "~/x", "a=b", "a#b", "a(b", "/a/{b}", "it's", 'say "x"', "'", "a]", "x!&"])
def test_a_value_that_cannot_be_read_is_shown_in_quotes_with_which_it_can(value: str):
    with pytest.raises(UserError) as caught:
        check_overrides([f"run_name={value}"], CONFIG_DIR)
    text = str(caught.value)
    assert text.startswith(f"run_name={value}: this value cannot be read")
    (argument,) = shlex.split(text.split("once within: ")[1])
    assert OverridesParser.create().parse_override(argument).value() == value


def test_the_items_of_a_list_are_shown_in_quotes():
    with pytest.raises(UserError) as caught:
        check_overrides(["data_paths=[~/x,data/y]"], CONFIG_DIR)
    (argument,) = shlex.split(str(caught.value).split("once within: ")[1])
    assert OverridesParser.create().parse_override(argument).value() == ["~/x", "data/y"]


def test_refusals_of_hydra_lose_what_says_nothing():
    error = HydraException("Could not append.\nEither remove + prefix: 'lr=1'\nOr add a second + to add: '++lr=1'")
    said = str(composition_error(error))
    assert said == "the configuration does not compose: Could not append.\nEither remove + prefix: 'lr=1'"
    said = str(composition_error(HydraException("No 'x'\n    full_key: x\n\nConfig search path:\n\tprovider=main")))
    assert said == "the configuration does not compose: No 'x'"


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("arch=lstm", "Could not find 'arch/lstm'"),
        ("--config-name=nope", "Cannot find primary config 'nope'"),
        ("~nokey", "'nokey' does not exist"),
        ("hydra.foo=3", "Key 'foo' not in 'HydraConf'"),
        ("+arch=hrm", "Multiple values for arch"),
        ("arch=null", "this names a file"),
        ("--lr=1", "write lr=1"),
        ("lr=3e38", "lr=3e+38: input should be less than"),
        ("arch.expansion=inf", "arch.expansion=inf: input should be a finite number"),
    ],
)
def test_the_program_ends_with_status_2_and_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, part: str
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    refused("pretrain", [argument], part)
    status, output = outcome("pretrain", [argument])
    assert status == 2
    assert output.strip().startswith("error: ")
    assert "HYDRA_FULL_ERROR" not in output
