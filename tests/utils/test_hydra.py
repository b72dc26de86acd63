"""Command lines and compositions in Python, and which arguments are left to the schema to judge, which to Hydra."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from tests.runs import PROGRAMS, command, outcome, start_process
from utils.config import plain, validate
from utils.errors import UserError
from utils.hydra import CONFIG_DIR, SCHEMAS, _lenient, compose, hydra_main, program_config
from utils.settings import PretrainConfig
from utils.settings_help import type_text


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
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        values = plain(hydra.compose("cfg_pretrain", overrides))
    assert values["epochs"] == 800
    with pytest.raises(UserError, match="epohcs: no such key. Did you mean 'epochs'"):
        validate(PretrainConfig, values)


# -- composed in Python ------------------------------------------------------------------------------------------------

COMMAND_LINES = [
    ("cfg_pretrain", []),
    ("cfg_pretrain", ["experiment=quickstart", "lr=1e-3", "arch.L_cycles=5", "+run_name=x", "evaluators=[]"]),
    ("cfg_pretrain", ["arch=hrm", "experiment=arc2", "data_paths=[a,b]"]),
    ("cfg_text", ["max_sequences=130"]),
    *((path.stem, ["seed=1"]) for path in sorted(CONFIG_DIR.glob("cfg_tinystories_*.yaml"))),
    ("cfg_evaluate", ["load_checkpoint=step_1", "arch.L_cycles=3"]),
    ("cfg_generate", ["load_checkpoint=step_1", "top_k=[40,null]", "temperature=0.5"]),
]


def command_line(
    monkeypatch: pytest.MonkeyPatch, config_name: str, overrides: list[str], run: Callable[[Any], object]
) -> None:
    """A program with settings of `config_name`, started with `overrides`."""
    monkeypatch.setattr("sys.argv", ["program", *overrides])
    hydra_main(config_name, SCHEMAS[program_config(config_name)], run)


@pytest.mark.parametrize(("config_name", "overrides"), COMMAND_LINES)
def test_python_composes_what_the_command_line_does(
    monkeypatch: pytest.MonkeyPatch, config_name: str, overrides: list[str]
):
    jobs: list[Any] = []
    before = compose(config_name, overrides)
    command_line(monkeypatch, config_name, overrides, jobs.append)
    assert jobs == [before]
    assert compose(config_name, overrides) == before
    assert type(before) is SCHEMAS[program_config(config_name)]


def test_composing_inside_a_job_leaves_the_job_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen: list[tuple[int, float, int]] = []

    def run(config: PretrainConfig) -> None:
        inner = compose("cfg_pretrain", ["experiment=quickstart"])
        assert compose("cfg_text").seed == 42
        assert GlobalHydra.instance().is_initialized()
        seen.append((HydraConfig.get().job.num, config.lr, inner.epochs))

    command_line(monkeypatch, "cfg_pretrain", ["-m", "lr=1,2", f"hydra.sweep.dir={tmp_path}"], run)
    epochs = compose("cfg_pretrain", ["experiment=quickstart"]).epochs
    assert seen == [(0, 1.0, epochs), (1, 2.0, epochs)]
    assert not GlobalHydra.instance().is_initialized()
    compose("cfg_text")
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("config_name", "overrides", "expected"),
    [
        ("cfg_pretrain", ["epohcs=7"], "epohcs: no such key. Did you mean 'epochs'"),
        ("cfg_pretrain", ["lr=-1"], "lr=-1: input should be greater than or equal to 0"),
        ("cfg_pretrain", ["arch=lstm"], "arch/lstm"),
        ("cfg_pretrain", ["data_paths=[a"], "no viable alternative at input '[a'"),
        ("cfg_text", ["epochs=1"], "epochs: no such key"),
        ("cfg_evaluate", [], "load_checkpoint must be given"),
        ("cfg_pretrian", [], "config/cfg_pretrian.yaml does not exist. Did you mean 'cfg_pretrain'?"),
        ("hydra_settings", [], "config/hydra_settings.yaml: its defaults must name one of cfg_pretrain, cfg_text"),
    ],
)
def test_what_does_not_fit_is_a_user_error(config_name: str, overrides: list[str], expected: str):
    with pytest.raises(UserError) as caught:
        compose(config_name, overrides)
    assert expected in str(caught.value)
    assert not GlobalHydra.instance().is_initialized()


# -- sweeps ------------------------------------------------------------------------------------------------------------


def sweep(monkeypatch: pytest.MonkeyPatch, folder: Path, run: Callable[[Any], object], *overrides: str) -> int:
    """The exit status of a sweep over seeds 1, 2, 3."""
    with pytest.raises(SystemExit) as end:
        command_line(monkeypatch, "cfg_pretrain", ["-m", "seed=1,2,3", f"hydra.sweep.dir={folder}", *overrides], run)
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.thorough
@pytest.mark.parametrize(("crashes", "status"), [(False, 2), (True, 1)])
def test_a_failed_job_does_not_end_the_sweep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], crashes: bool, status: int
):
    seen: list[int] = []

    def run(config: PretrainConfig) -> None:
        seen.append(config.seed)
        if config.seed == 1:
            raise UserError("the first is wrong")
        if config.seed == 2 and crashes:
            raise ZeroDivisionError("the second too")

    assert sweep(monkeypatch, tmp_path, run) == status
    assert seen == [1, 2, 3]
    said = capsys.readouterr().err
    assert "\nerror: the first is wrong\n" in said
    assert ("Traceback" in said) == crashes
    listed = said[said.index("failed jobs of the sweep") :].splitlines()
    expected = ["  job 0 of the sweep: seed=1: error: the first is wrong"]
    if crashes:
        expected.append("  job 1 of the sweep: seed=2: ZeroDivisionError: the second too")
    assert listed == [f"failed jobs of the sweep: {len(expected)}", *expected]


def test_with_several_ranks_it_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen: list[int] = []

    def run(config: PretrainConfig) -> None:
        seen.append(config.seed)
        raise UserError("wrong")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert sweep(monkeypatch, tmp_path, run) == 2
    assert seen == [1]


@pytest.mark.thorough
def test_hydra_is_told_of_a_failed_job_of_a_sweep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    told: list[str] = []
    monkeypatch.setattr(Callbacks, "on_job_end", lambda self, config, job_return: told.append(job_return.status.name))

    def run(config: PretrainConfig) -> None:
        if config.seed != 2:
            raise UserError("wrong")

    for full in ("0", "1"):
        monkeypatch.setenv("HYDRA_FULL_ERROR", full)
        with pytest.raises(SystemExit) as end:
            command_line(monkeypatch, "cfg_pretrain", ["seed=1"], run)
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\nerror: wrong\n") == 1
        assert "Traceback" not in said
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert sweep(monkeypatch, tmp_path, run) == 2
    assert told == ["FAILED", "COMPLETED", "FAILED"]


class Doubling(torch.nn.Module):
    """Torch 2.11 compiles no module of its own by itself, so this one is ours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.thorough
@pytest.mark.parametrize("shapes", [5, 10])
def test_jobs_do_not_share_the_limit_of_the_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], shapes: int
):
    compiled: list[int] = []

    def run(config: PretrainConfig) -> None:
        graphs: list[int] = []

        def backend(graph: Any, inputs: list[Any]) -> Any:
            graphs.append(len(inputs))
            return graph.forward

        layer = Doubling()
        layer.compile(dynamic=False, backend=backend)
        for rows in range(2, 2 + shapes):
            layer(torch.zeros(rows, 1))
        compiled.append(len(graphs))

    command_line(monkeypatch, "cfg_pretrain", ["-m", "seed=1,2,3", f"hydra.sweep.dir={tmp_path}"], run)
    assert compiled == [min(shapes, 8)] * 3
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("compiler: 5 graphs made") == (3 if shapes == 5 else 0)
    notes = [line for line in lines if "ran uncompiled" in line]
    assert len(notes) == (0 if shapes < 8 else 3)
    assert all("made 8 graphs" in note for note in notes)


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("width", [70, 110])
def test_help_shows_every_setting_and_choice(monkeypatch: pytest.MonkeyPatch, program: str, flag: str, width: int):
    monkeypatch.setenv("COLUMNS", str(width))
    status, page = outcome(program, [flag, "lr=no-number"])
    assert status == 0
    config_name, schema, run = PROGRAMS[program]
    summary = (sys.modules[run.__module__].__doc__ or "").split("\n")[0]
    flat = " ".join(page.split())
    assert flat.startswith(summary)
    for name, field in schema.model_fields.items():
        assert f" {name} ({type_text(field.annotation)}" in flat
        assert " ".join(str(field.description).split()) in flat
    assert f"here: {config_name}" in flat
    settings = page[page.index("KEY=VALUE changes") :].splitlines()
    assert all(len(line) <= width for line in settings)
    choices = [path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")]
    assert all((f"\n  {choice} " in page) == (program == "pretrain") for choice in choices)
    assert ("\n  trm_mlp " in page) == (program == "pretrain")
    assert ("\n  text_moeut " in page) == (program == "pretrain_text")
    assert ("\n  cfg_tinystories_10m_moeut " in page) == (program == "pretrain_text")


@pytest.mark.thorough
def test_hydras_own_pages_are_still_there():
    output, status = start_process(command("pretrain.py", ["--cfg", "job", "lr=3"]), CONFIG_DIR)
    assert status == 0
    assert "\nlr: 3\n" in output
    output, status = start_process(command("pretrain.py", ["--hydra-help"]), CONFIG_DIR)
    assert status == 0
    assert "--multirun" in output


def test_a_key_too_long_for_a_file_name_is_refused_as_any_other():
    with pytest.raises(UserError, match="no such key"):
        compose("cfg_pretrain", ["x" * 5000 + "=1"])
