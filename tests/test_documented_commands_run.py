"""The commands of README.md and the other documents run to their end, each as a process, in a folder of the reader's.

What a reader would have is supplied: trained models, puzzles, data sets in place of downloads. Trainings are shortened
by settings behind the printed ones; nothing else is changed. `NOT_RUN` says which commands are left out, and why; that
they are accepted is checked in tests/test_documented_commands.py.
"""

import json
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from dataset.build_arc_dataset import Config as ArcConfig
from dataset.build_arc_dataset import build as build_arc
from dataset.build_maze_dataset import Config as MazeConfig
from dataset.build_maze_dataset import build as build_mazes
from dataset.build_sudoku_dataset import Config as SudokuConfig
from dataset.build_sudoku_dataset import build as build_sudokus
from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.paths import label_mazes
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import parse_box
from tests.dataset.tasks.arc.test_build import write_folders, write_kaggle
from tests.dataset.tasks.maze.test_build import write_csv as write_mazes
from tests.dataset.tasks.sudoku.test_build import csv_rows, text, write_csv
from tests.published import commands, documents
from tests.runs import ROOT, environment, start, tiny, write_sudoku
from tests.text_runs import tiny_text, write_text

# a command is left out if one of these is among its words
NOT_RUN = {
    "pytest": "it is what runs this",
    "http.server": "it serves until somebody ends it",
    "--nnodes": "several machines",
    "sbatch": "a Slurm cluster",
    "hydra/launcher=submitit_slurm": "a Slurm cluster",
    "sky": "a cloud account",
    "docker": "Docker",
    "wandb": "an account at W&B",
    "task=hf:owner/name": "a data set on the Hub, whose name is the reader's",
    "scripts.wheels": "a package registry",
    "pip": "the wheels of another machine",
    "export": "a setting of the shell, not a program",
    "scripts/gpu_report.sh": "a GPU; tests/scripts/gpu_report rehearses it",
    "config/study/cpu.yaml": "hours; tests/test_study.py runs a small study",
    "--only": "hours on a GPU; tests/test_study.py runs parts of a small study",
}
QUICK = {"--list", "--dry-run", "--table", "--commands", "--rehearse"}  # with these it takes a minute at most
TRAINING = [
    "max_steps=2", "eval_max_examples=4", "eval_halt_max_steps=2", "device=cpu", "wandb_mode=disabled",
    "show_example=false",
]  # fmt: skip
NARROW = ["arch.hidden_size=64", "arch.num_heads=1", "global_batch_size=4", "compile=false"]
TEXT = [
    "max_sequences=32", "global_batch_size=8", "eval_batches=1", "eval_interval=null", "compile=false", "device=cpu",
    "wandb_mode=disabled",
]  # fmt: skip
SMALL = {"experiment=quickstart", "experiment=own_task", "tiny_recursive_model"}  # trainings that are small as printed
SUDOKU_4X4 = "1..4.41.2..3.32."
FUTOSHIKI = "".join(("1 . . .", "       ", ". . . .", "       ", ". . . 2", "       ", ". 3 . ."))
NUMBERS = {
    "--subsample-size": "6", "--num-aug": "3", "--trials": "1", "--steps": "2", "--examples": "30",
    "--generate": "12", "--test-size": "4", "--processes": "2", "--nproc-per-node": "2",
}  # fmt: skip
STUDIES = {"cpu": "cpu", "paper_ablations": "paper_ablations-gpu"}  # name -> folder of the study


def is_run(words: list[str]) -> bool:
    """Whether `NOT_RUN` does not leave a command out, and the package is there that it needs besides."""
    if any(word.startswith("task=reasoning_gym:") for word in words) and find_spec("reasoning_gym") is None:
        return False
    return not NOT_RUN.keys() & set(words) or bool(QUICK & set(words))


RUN = {
    document.relative_to(ROOT).as_posix(): [words for words in commands(document) if is_run(words)]
    for document in documents()
}


@pytest.fixture(scope="module")
def belongings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What only the reader has: puzzles, texts, ARC tasks, questions, and three trained models."""
    folder = tmp_path_factory.mktemp("belongings")
    boards = list(generate_puzzles(14, parse_box("3x3"), np.random.default_rng(0), min_clues=30))
    write_csv(folder / "FOLDER", "train", csv_rows(boards[4:]))
    write_csv(folder / "FOLDER", "test", csv_rows(boards[:4]))
    mazes = np.array(list(generate_mazes(6, 30, 30, np.random.default_rng(0))))
    for split, part in (("train", mazes[2:]), ("test", mazes[:2])):
        write_mazes(folder / "MAZES", split, part, label_mazes(part))
    puzzles = "".join(f"{text(puzzle)}\n" for puzzle, _ in boards[:2])
    (folder / "puzzles.csv").write_text(f"question\n{puzzles}")
    (folder / "puzzles.txt").write_text(puzzles)

    pair = {"input": [[1, 2], [3, 4]], "output": [[4, 3], [2, 1]]}
    other = {"input": [[5, 0], [0, 5]], "output": [[0, 5], [5, 0]]}
    tasks = {"one": {"train": [pair, other], "test": [pair]}, "two": {"train": [other], "test": [pair]}}
    subsets = ("training", "evaluation", "concept", "training2", "evaluation2")
    named = {subset: {f"{subset}-{name}": task for name, task in tasks.items()} for subset in subsets}
    write_kaggle(folder / "kaggle" / "combined", named, prefix="arc-agi")
    write_folders(folder / "tasks", {"mine": {"task": tasks["one"], "two": tasks["two"]}})
    (folder / "task.json").write_text(json.dumps(tasks["one"]))

    pairs = [(f"{a}+{b}", str(a + b)) for a in range(12) for b in range(12)]
    lines = [json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in pairs]
    (folder / "questions.jsonl").write_text("".join(lines))
    (folder / "questions.csv").write_text("question,answer\n" + "".join(f"{q},{a}\n" for q, a in pairs))
    (folder / "folder").mkdir()
    (folder / "folder" / "train.jsonl").write_text("".join(lines[::2]))
    (folder / "folder" / "test.jsonl").write_text("".join(lines[1::2]))
    page = (ROOT / "docs" / "your_own_task.md").read_text()
    (folder / "sorting.py").write_text(page.split("```python\n")[1].split("```")[0])
    (folder / "prompts.txt").write_text("Once upon a time\nThe cat\n")

    data = write_sudoku(folder / "data" / "other", groups=6, tests=100, own_ids=False)
    start("pretrain.py", tiny(data, folder / "run", max_steps=2), folder)
    write_text(folder / "text")
    start("pretrain_text.py", tiny_text(folder / "text", folder / "text_run"), folder)
    build_arc(ArcConfig(
        input_file_prefix=str(folder / "tasks"), output_dir=folder / "data" / "my-tasks", subsets=["mine"],
        test_set_name="mine", num_aug=2,
    ))  # fmt: skip
    settings = ["arch=trm_l4", "data_paths=[data/my-tasks]", "evaluators=[]", "checkpoint_path=arc_run"]
    start("pretrain.py", [*settings, *TRAINING, *NARROW], folder)
    for name in ("data/sudoku-extreme-1k", "data/sudoku-extreme-1k-aug-1000", "data/sudoku-like", "DATA"):
        output_dir = str(folder / name)
        build_sudokus(SudokuConfig(output_dir=output_dir, generate=6, test_size=2, min_clues=30))
    build_mazes(MazeConfig(output_dir=str(folder / "data" / "maze-30x30-hard-1k"), generate=6, test_size=2))
    write_studies(folder / "checkpoints" / "studies")
    return folder


def write_studies(folder: Path) -> None:
    """The numbers of a few runs of each study of config/study that have ended, as if they had been trained."""
    published = (ROOT / "docs" / "studies" / "cpu" / "runs.jsonl").read_text().splitlines()[:2]
    for name, folder_name in STUDIES.items():
        study = yaml.safe_load((ROOT / "config" / "study" / f"{name}.yaml").read_text())
        (folder / folder_name).mkdir(parents=True)
        with (folder / folder_name / "runs.jsonl").open("w") as file:
            for arm in list(study["arms"])[:2]:
                for seed, line in enumerate(published):
                    row = {**json.loads(line), "arm": arm, "seed": seed, "budgets": [study["equal"]]}
                    file.write(json.dumps(row) + "\n")


@pytest.fixture
def workspace(belongings: Path, tmp_path: Path) -> Path:
    """The repository with the reader's files; what belongs to it are links, the reader's are copies."""
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("checkpoints", "data", "outputs", "multirun"):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(belongings, tmp_path, dirs_exist_ok=True)
    return tmp_path


def newest_run(workspace: Path, project: str, name: str = "") -> str:
    """The newest training in `workspace`, of those with such names."""
    of_task = [path.parent for path in workspace.glob(f"checkpoints/*{project}*/{name}*/all_config.yaml")]
    folder = max(of_task, key=lambda path: path.stat().st_mtime)
    return str(folder.relative_to(workspace))


def filled_in(words: list[str], workspace: Path) -> list[str]:
    """The words of a command with a model of the reader's in place of each that only the reader knows."""
    line = " ".join(words)
    own = [task for task in ("futoshiki", "sorting") if f"{task}.py" in line]
    ldt = "checkpoints/Sudoku-extreme-1k-ACT-torch/ldt"
    models = {"search.py": ldt, "generate.py": "text_run", "arc_adapt": "arc_run/step_2", "arc": "arc_run"}
    found: list[str] = []
    for word in words:
        key, _, value = word.rpartition("=")
        missing = value.startswith("checkpoints/") and not (workspace / value).exists()
        unknown = missing or ".../" in value
        if value == "$PUZZLE":
            value = FUTOSHIKI
        elif value == "checkpoints/tiny/NAME":
            value = newest_run(workspace, "tiny", "sudoku")
        elif unknown and own:
            value = newest_run(workspace, own[0].capitalize())
        elif unknown:
            value = next((model for name, model in models.items() if name in line), "run")
        found.append(f"{key}={value}" if key else value)
    return found


def shortened(words: list[str]) -> list[str]:
    """The words of a command, with what makes it end within a minute on two cores."""
    line, words = " ".join(words), list(words)
    for option, number in NUMBERS.items():
        if option in words and "predict" not in words:
            words[words.index(option) + 1] = number
    if "pretrain.py" in line or "optuna_sweep" in line or "tiny_recursive_model train" in line:
        if "scripts.optuna_sweep" in words and "--trials" not in words:
            words[3:3] = ["--trials", "1"]
        return words + TRAINING + ([] if SMALL & set(words) else NARROW)
    if "pretrain_text.py" in line:
        files = "text/train.txt", "text/valid.txt", "text/vocab.json", "text/merges.txt"
        keys = "data_files=[{}]", "data_files_test=[{}]", "vocab_file={}", "merges_file={}"
        kept = [word for word in words if not word.startswith(("data_files=", "vocab_file=", "merges_file="))]
        return kept + TEXT + ["max_vocab=300"] + [key.format(file) for key, file in zip(keys, files, strict=True)]
    builds = "build_sudoku_dataset" in line or "build_maze_dataset" in line
    if builds and "--generate" not in words and "--source" not in words:  # in place of a download
        return [*words, "--source", "MAZES" if "maze" in line else "FOLDER"]
    programs = {
        "evaluate.py": [*([] if "trace_choice=[" in line else ["eval_max_examples=4"]), "device=cpu"],
        "search.py": ["eval_max_examples=2", "chains=2", "rounds=3", "device=cpu"],
        "generate.py": ["device=cpu", "max_new_tokens=4"],
        "export.py": [] if "int8" in line else ["check_puzzles=5"],  # 8 bits are refused for what they lose of all
        "bench.own_tasks": ["--train-size", "64", "--test-size", "8"],
    }
    return words + next((more for program, more in programs.items() if program in words), [])


def execute(words: list[str], workspace: Path) -> tuple[int, str]:
    """Run a command with the Python of these tests: (exit status, output)."""
    if words[0] == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:]]
    elif words[0].startswith("python"):
        words = [sys.executable, *words[1:]]
    done = subprocess.run(
        words, cwd=workspace, env=environment(), input=SUDOKU_4X4, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=900,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("document", [name for name, found in RUN.items() if found])
def test_the_commands_of_a_document_run(document: str, workspace: Path):
    failed: list[str] = []
    for printed in RUN[document]:
        words = shortened(filled_in(printed, workspace))
        for word in words[1:]:  # a builder makes its data set anew
            if words[words.index(word) - 1] == "--output-dir":
                shutil.rmtree(workspace / word, ignore_errors=True)
        began = time.monotonic()
        status, output = execute(words, workspace)
        print(f"{time.monotonic() - began:5.1f} s, status {status}: {' '.join(words)}", flush=True)
        # an untrained model solves nothing, which the status of predict and of demo tells
        solves = words[2:4] in (["tiny_recursive_model", "predict"], ["tiny_recursive_model", "demo"])
        allowed = (0, 1) if solves and "--model" in words else (0,)
        if status not in allowed or "Traceback" in output:
            failed.append(f"{' '.join(words)}\nstatus {status}\n{output[-3000:]}")
    assert not failed, "\n\n".join(failed)


def test_most_commands_are_run():
    """So that a mistake in `NOT_RUN` does not leave them out."""
    everything = sum(len(list(commands(document))) for document in documents())
    assert sum(map(len, RUN.values())) > 0.7 * everything
    words = {word for found in RUN.values() for line in found for word in line}
    programs = {"pretrain.py", "pretrain_text.py", "evaluate.py", "search.py", "generate.py", "export.py", "report.py"}
    assert words >= {*programs, "study.py", "dataset.check_task", "torchrun", "tiny_recursive_model"}
