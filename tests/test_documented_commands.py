"""Every command in README.md and the other documents is one that the programs accept."""

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tyro

from dataset.task_choice import give_tasks, task_overrides
from scripts.gpu_report.__main__ import command_line
from tests.published import commands, documents
from tests.runs import ROOT
from tests.tiny_recursive_model.running import run
from tiny_recursive_model import demo, predict, training
from utils.hydra import compose

PROGRAMS = {
    "pretrain.py": "cfg_pretrain",
    "pretrain_text.py": "cfg_text",
    "evaluate.py": "cfg_evaluate",
    "search.py": "cfg_search",
    "generate.py": "cfg_generate",
    "export.py": "cfg_export",
}
SHORT: dict[str, Any] = {"demo": demo.Flags, "predict": predict.Flags, "train": training.Flags}
ALL = [(document.relative_to(ROOT), words) for document in documents() for words in commands(document)]


def check(words: list[str]) -> str:
    """What kind of command it is, if its arguments are accepted."""
    return _checked(tuple(words))


@cache
def _checked(given: tuple[str, ...]) -> str:
    """Check the arguments of a command without running it."""
    words = list(given)
    if words[0] == "torchrun":
        words = ["python", *words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]]
    if words[0] == "sbatch":
        words = ["python", *words[words.index("scripts/slurm.sh") + 1 :]]
    if words[0] in ("docker", "sky", "wandb"):  # tests/scripts/test_cluster_files.py knows more of them
        assert all((ROOT / word).exists() for word in words if word.endswith(".yaml"))
        return words[0]
    if words[0] in ("pytest", "uvx", "uv", "ruff", "basedpyright", "bash", "pip"):
        paths = [word for word in words[1:] if word.endswith(".py") or word.startswith(("tests/", ".ci/"))]
        assert all((ROOT / path).exists() for path in paths)
        return words[0]
    if words[0] == "export":
        return words[0]
    if words[0] == "scripts/gpu_report.sh":
        command_line().parse_args(words[1:])
        return words[0]
    assert words[0] in ("python", "python3"), words
    if words[1:3] == ["-m", "pip"]:
        return "pip"
    if words[1] in PROGRAMS:
        rest = words[2:]
        name = PROGRAMS[words[1]]
        if "--config-name" in rest:
            at = rest.index("--config-name")
            name = rest[at + 1]
            del rest[at : at + 2]
        if rest[:1] == ["-m"]:  # a sweep: the first of its values
            rest = [word.split(",")[0] if "[" not in word else word for word in rest[1:]]
        # the files of tasks are the reader's, so another task stands for theirs
        rest = ["task=question_answer" if word.startswith("task=") else word for word in rest]
        compose(name, task_overrides(rest) if words[1] == "pretrain.py" else give_tasks(rest))
        return words[1]
    module, rest = (words[2], words[3:]) if words[1] == "-m" else (words[1].removesuffix(".py").replace("/", "."), [])
    if module == "tiny_recursive_model":
        flags = tyro.cli(SHORT[rest[0]], args=rest[1:])
        if isinstance(flags, training.Flags):
            compose("cfg_pretrain", task_overrides(training.overrides_of(flags)))
        return f"{module} {rest[0]}"
    rest = rest or words[2:]
    config = getattr(importlib.import_module(module), "Config", None)
    if config is not None:
        tyro.cli(config, args=[word for word in rest if word != "--help"])
    return module


@pytest.mark.parametrize("number", range(len(ALL)))
def test_a_documented_command_is_accepted(number: int):
    _, words = ALL[number]
    assert check(words)


def test_the_commands_are_found():
    kinds = {check(words) for _, words in ALL}
    assert kinds >= {*PROGRAMS, "pytest", "dataset.build_sudoku_dataset", "dataset.build_arc_dataset"}
    assert kinds >= {f"tiny_recursive_model {name}" for name in SHORT}
    assert len(ALL) > 40


@pytest.mark.parametrize(
    "words",
    [
        ["python", "pretrain.py", "experiment=quickstrat"],
        ["python", "evaluate.py", "load_checkpoint=x", "halt_max_step=3"],
        ["python", "-m", "dataset.build_maze_dataset", "--hight", "12"],
        ["python", "-m", "tiny_recursive_model", "predict", "--jsn"],
        ["make"],
    ],
)
def test_a_wrong_command_is_noticed(words: list[str]):
    with pytest.raises((ValueError, SystemExit, AssertionError)):
        check(words)


@pytest.mark.thorough
def test_the_commands_that_use_a_model_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As printed, except that files and checkpoints which only the reader has are left out."""
    monkeypatch.chdir(tmp_path)
    ran = 0
    for document, words in ALL:
        if str(document) != "README.md" or words[2:3] != ["tiny_recursive_model"]:
            continue
        mine = any(("..." in word and "/" in word) or word.startswith(("puzzles.", "task.")) for word in words)
        if words[3] == "train" or mine or "checkpoints/tiny/NAME" in words:
            continue
        status, output, errors = run(monkeypatch, *words[3:])
        assert status == 0, errors
        assert "\nsolved: " in output
        ran += 1
    assert ran >= 3
