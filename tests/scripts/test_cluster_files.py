"""The files for clusters: their commands run with stand-ins for the launchers, and the programs accept them."""

import itertools
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runs import ROOT
from utils.errors import UserError
from utils.hydra import CONFIG_DIR, compose
from utils.overrides import check_overrides

SHOW = '#!/bin/bash\nprintf "%s\\0" "$(basename "$0")" "$@" >> "$SHOWN"\nprintf "\\n" >> "$SHOWN"\nexit ${STATUS:-0}\n'
SETTINGS = {"pretrain.py": "cfg_pretrain", "pretrain_text.py": "cfg_text", "evaluate.py": "cfg_evaluate"}


def show(folder: Path, *names: str) -> dict[str, str]:
    """The environment in which these commands only note their arguments."""
    for name in names:
        (folder / name).write_text(SHOW)
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "SHOWN": str(folder / "shown")}


def shown(folder: Path) -> list[list[str]]:
    """The commands that were noted."""
    lines = (folder / "shown").read_text().split("\0\n")
    return [line.split("\0") for line in lines if line]


def check_torchrun(words: list[str]) -> tuple[Any, Any]:
    """The options of torchrun, and the settings of the program that it starts, if both are accepted."""
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(words)
    assert (ROOT / options.training_script).is_file()
    return options, compose(SETTINGS[options.training_script], options.training_script_args)


def slurm(folder: Path, *arguments: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run scripts/slurm.sh with a srun that does nothing."""
    environment = show(folder, "srun")
    (folder / "scontrol").write_text("#!/bin/bash\nprintf 'node7\\nnode8\\n'\n")
    (folder / "scontrol").chmod(0o755)
    job = {"SLURM_JOB_ID": "64321", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "slurm.sh"), *arguments],
        env=environment | job | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, shown(folder) if (folder / "shown").exists() else []


def test_slurm_starts_an_agent_on_each_node(tmp_path: Path):
    done, commands = slurm(tmp_path, "pretrain.py", "experiment=maze_hard", "run_name=mine", PYTHON="py")
    assert done.returncode == 0
    assert len(commands) == 1
    at = commands[0].index("torch.distributed.run")
    assert commands[0][:at] == ["srun", "--kill-on-bad-exit=0", "py", "-m"]
    options, settings = check_torchrun(commands[0][at + 1 :])
    assert (options.nnodes, options.nproc_per_node, options.rdzv_endpoint) == ("2", "4", "node7:24321")
    assert options.signals_to_handle == "SIGTERM,SIGINT,SIGUSR1,SIGXCPU"
    assert (settings.run_name, settings.load_checkpoint) == ("mine", "latest")
    # the status of a run that ends with an error is that of the job
    assert slurm(tmp_path, "pretrain.py", STATUS="2")[0].returncode == 2
    (tmp_path / "shown").unlink()
    _, commands = slurm(
        tmp_path, "evaluate.py", "load_checkpoint=a b/step_1", NODES="1:2", RANKS="3", RDZV_CONF="last_call_timeout=9"
    )
    options, settings = check_torchrun(commands[0][commands[0].index("torch.distributed.run") + 1 :])
    assert (options.nnodes, options.nproc_per_node, options.rdzv_conf) == ("1:2", "3", "last_call_timeout=9")
    assert settings.load_checkpoint == "a b/step_1"


def test_slurm_refuses_what_is_no_job(tmp_path: Path):
    for arguments, variables, message in (
        ([], {}, "usage: sbatch"),
        (["experiment=maze_hard"], {}, "usage: sbatch"),
        (["pretrain.py"], {"SLURM_JOB_ID": ""}, "start it with sbatch"),
    ):
        done, commands = slurm(tmp_path, *arguments, **variables)
        assert (done.returncode, commands) == (2, [])
        assert message in done.stderr


def test_the_options_of_sbatch_are_ones_that_it_has():
    lines = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?", (ROOT / "scripts" / "slurm.sh").read_text(), re.MULTILINE)
    known = {"job-name", "ntasks-per-node", "cpus-per-task", "time", "requeue", "open-mode", "signal"}
    assert {name for name, _ in lines} == known
    assert dict(lines)["signal"] == "B:USR1@300"  # to the script, which passes it on


def test_skypilot(tmp_path: Path):
    content = yaml.safe_load((ROOT / "scripts" / "skypilot.yaml").read_text())
    known = {"name", "resources", "num_nodes", "workdir", "file_mounts", "envs", "setup", "run"}
    assert set(content) == known
    assert {name: set(mount) for name, mount in content["file_mounts"].items()} == {"~/checkpoints": {"name", "mode"}}
    environment = show(tmp_path, "uv", "pip", "ln") | content["envs"]
    environment |= {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SKYPILOT_TASK_ID": "sky-1"}
    environment["SKYPILOT_NODE_IPS"] = "10.0.0.1\n10.0.0.2"
    for part in ("setup", "run"):
        subprocess.run(["bash", "-euc", content[part]], env=environment, check=True, timeout=60)
    commands = shown(tmp_path)
    assert commands[:2] == [["pip", "install", "--quiet", "uv"], ["uv", "sync", "--no-dev"]]
    assert commands[2][:2] == ["ln", "-sfn"]
    assert commands[3][:4] == ["uv", "run", "--no-sync", "torchrun"]
    options, settings = check_torchrun(commands[3][4:])
    assert (options.nnodes, options.nproc_per_node, options.rdzv_endpoint) == ("2", "8", "10.0.0.1:29500")
    assert (settings.run_name, settings.load_checkpoint) == ("maze_hard", "latest")


def test_dockerfile():
    text = (ROOT / "Dockerfile").read_text()
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    order = ["FROM", "RUN", "WORKDIR", "COPY", "RUN", "COPY", "STOPSIGNAL", "ENTRYPOINT", "CMD"]
    assert [word for word, _ in lines] == order
    values = dict(lines)
    assert re.fullmatch(r"python:3\.\d+-slim", lines[0][1])
    minimum = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert minimum is not None
    assert int(lines[0][1].split(".")[1].split("-")[0]) >= int(minimum[1])
    for word, rest in lines:
        if word == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1])
        if word == "RUN":
            subprocess.run(["sh", "-nc", rest], check=True, timeout=60)
    assert "pip install --no-cache-dir --requirement requirements.txt" in lines[4][1]
    command = json.loads(values["ENTRYPOINT"]) + json.loads(values["CMD"])
    assert command[0] == "python"
    assert (ROOT / command[1]).is_file()
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "checkpoints", "data"} <= set(ignored)
    # the commands in its header
    for line in re.sub(r"\\\n#\s*", "", text).splitlines():
        found = re.match(r"#\s+docker run .* reasoner (.*)", line)
        if found is None:
            continue
        words = shlex.split(found[1])
        if words[:2] == ["-m", "torch.distributed.run"]:
            check_torchrun(words[2:])
        else:
            assert compose(SETTINGS[words[0]], words[1:]).project_name is None


def combinations(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the choices, and of both ends of each range."""
    values = {key: given.get("values") or [given["min"], given["max"]] for key, given in parameters.items()}
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


@pytest.mark.parametrize("file", sorted((CONFIG_DIR / "sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_each_combination_of_a_sweep_of_wandb_composes(file: Path):
    content = yaml.safe_load(file.read_text())
    assert set(content) == {"program", "method", "metric", "parameters", "command", "early_terminate"}
    assert content["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    found = combinations(content["parameters"])
    assert len(found) == 24
    for number, chosen in enumerate(found):
        # as W&B writes them for ${args_no_hyphens}
        args = [f"{key}={value}" for key, value in chosen.items()]
        words = [word for part in content["command"][3:] for word in (args if part == "${args_no_hyphens}" else [part])]
        check_overrides(words, CONFIG_DIR)
        if number in (0, len(found) - 1):
            settings = compose(SETTINGS[content["program"]], words)
            assert settings.lr == chosen["lr"]
            assert settings.arch.own_keys["hidden_size"] == chosen["arch.hidden_size"]
            assert settings.wandb_mode == "online"
    with pytest.raises(UserError, match="no hyphens"):
        check_overrides([f"--{args[0]}"], CONFIG_DIR)
