"""Bad input ends with one clear message and status 2: what was given, what is allowed, how to fix it."""

import resource
import shutil
from pathlib import Path

import pytest
import torch

from tests.runs import command, outcome, refused, start_process, tiny, write_sudoku


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sudoku(tmp_path_factory.mktemp("data") / "sudoku", groups=12, tests=5)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    status, output = outcome("pretrain", tiny(data, folder, max_steps=2))
    assert status == 0, output
    return folder


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("eval_intervall=5", ["eval_intervall: no such key", "Did you mean 'eval_interval'"]),
        ("+learning_rat=1", ["learning_rat: no such key"]),
        ("arch.L_cycle=3", ["arch.L_cycle: no such key", "Did you mean 'L_cycles'"]),
        ("arch.loss.loss_typ=x", ["arch.loss.loss_typ: no such key", "Did you mean 'loss_type'"]),
        ("epochs=many", ["epochs='many'", "integer"]),
        ("lr=-1", ["lr=-1", "greater than or equal to 0"]),
        ("arch.L_cycles=0", ["arch.L_cycles=0"]),
        ("arch.pos_encodings=sinus", ["arch.pos_encodings='sinus'", "'rope', 'learned' or 'none'"]),
        ("arch=lstm", ["arch/lstm", "transformers_baseline"]),
        ("arch.name=recursive_reasoning.trm@TinyModel", ["no class TinyModel", "Did you mean 'TinyRecursiveModel'"]),
        ("arch.loss.loss_type=hinge", ["hinge", "stablemax_cross_entropy"]),
        ("data_paths=[data/nowhere-sudoku]", ["data/nowhere-sudoku does not exist", "dataset.build_sudoku_dataset"]),
        ("eval_interval=7", ["eval_interval 7 does not divide epochs 20", "eval_interval=5"]),
        ("global_batch_size=7 grad_accum_steps=2", ["grad_accum_steps 2 does not divide global_batch_size 7"]),
        ("epochs=1 eval_interval=1 global_batch_size=100", ["make no whole batch"]),
        ("load_checkpoint=nowhere/step_5", ["there is no file nowhere/step_5"]),
        ("eval_save_outputs=[prediction]", ["eval_save_outputs", "preds"]),
        ("evaluators=[{name:sudoku@Sudok}]", ["no class Sudok", "Did you mean 'Sudoku'"]),
        ("augmentation=rotate", ["rotate", "sudoku"]),
        ("optimizer=adam_atan2_cuda", ["adam_atan2_cuda", "optimizer=adam_atan2"]),
        ("optimizer=sgd", ["optimizer='sgd'", "adamw"]),
        ("data_on_device=gpu", ["data_on_device='gpu'", "auto"]),
        ("eval_halt_threshold=1", ["eval_halt_threshold=1", "less than 1"]),
        ("eval_batch_size=0", ["eval_batch_size=0", "greater than or equal to 1"]),
        ("wandb_mode=sometimes", ["wandb_mode='sometimes'", "offline"]),
    ],
)  # fmt: skip
def test_configuration(data: Path, tmp_path: Path, change: str, parts: list[str]):
    refused("pretrain", [*tiny(data, tmp_path / "run"), *change.split()], *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_asked_for_and_absent(data: Path, tmp_path: Path):
    refused("pretrain", [*tiny(data, tmp_path / "run"), "device=cuda"], "device=cuda", "Here there is: cpu", "auto")


def test_batch_not_divisible_by_ranks(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    refused("pretrain", tiny(data, tmp_path / "run"), "WORLD_SIZE=4, but no RANK")
    monkeypatch.setenv("RANK", "0")
    refused(
        "pretrain", tiny(data, tmp_path / "run"), "global_batch_size 6 is not divisible by 4", "global_batch_size=8"
    )


def test_truncated_shard(data: Path, tmp_path: Path):
    broken = shutil.copytree(data, tmp_path / "broken")
    file = broken / "train" / "all__inputs.npy"
    file.write_bytes(file.read_bytes()[:-50])
    refused("pretrain", tiny(broken, tmp_path / "run"), str(file), "truncated", "Build the data set again")


@pytest.mark.thorough
def test_labels_out_of_vocabulary(data: Path, tmp_path: Path):
    broken = shutil.copytree(data, tmp_path / "broken")
    file = broken / "test" / "all__labels.npy"
    content = bytearray(file.read_bytes())
    content[-1] = 9
    file.write_bytes(content)
    refused("pretrain", tiny(broken, tmp_path / "run"), str(file), "9 out of the vocabulary 0..5")
    # of several processes one reads the tokens, and all end with what it found
    output, status = start_process(command("pretrain.py", tiny(broken, tmp_path / "run"), processes=2), tmp_path)
    assert status != 0
    assert output.count("9 out of the vocabulary 0..5") == 2
    assert "connection" not in output.lower()


def test_checkpoint_of_another_architecture(data: Path, trained: Path, tmp_path: Path):
    weights = f"load_checkpoint={trained / 'step_2'}"
    args = tiny(data, tmp_path / "run")
    refused("pretrain", [*args, weights, "arch.hidden_size=32"], "another architecture", "all_config.yaml")
    refused("pretrain", [*args, weights, "arch=hrm"], "another architecture", "H_level")
    resumed = [*tiny(data, trained), "load_checkpoint=latest", "arch.H_cycles=3"]
    refused("pretrain", resumed, "made with other settings", "arch")
    refused("evaluate", [weights, "device=cpu", "arch.L_cycles=5"], "arch.L_cycles=5", "force=true")


def test_corrupted_checkpoint(data: Path, trained: Path, tmp_path: Path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    for name in ("step_2", "step_2_train_state.pt"):
        file = copy / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        refused("pretrain", [*tiny(data, copy), "load_checkpoint=latest"], str(file), "corrupted")
        file.write_bytes(whole)
    (copy / "step_2").write_text("hello")
    refused("evaluate", [f"load_checkpoint={copy / 'step_2'}", "device=cpu"], "corrupted or no checkpoint")


@pytest.mark.parametrize("folder", ["/dev/null/run", "/proc/run"])
def test_a_run_folder_that_cannot_be_made_is_named(data: Path, folder: str):
    refused("pretrain", tiny(data, Path(folder)), f"{folder} cannot be written", "Choose another checkpoint_path")


def test_a_run_folder_that_cannot_be_written_is_named(data: Path, tmp_path: Path):
    (tmp_path / "run" / "all_config.yaml").mkdir(parents=True)
    refused("pretrain", tiny(data, tmp_path / "run"), f"{tmp_path / 'run'} cannot be written", "Is a directory")
    (tmp_path / "other" / "code" / "models" / "act.py" / "act.py").mkdir(parents=True)
    refused("pretrain", tiny(data, tmp_path / "other"), f"{tmp_path / 'other'} cannot be written", "act.py")


def test_results_that_cannot_be_written_are_refused_before_the_work(trained: Path):
    args = [f"load_checkpoint={trained / 'step_2'}", "device=cpu", "save_path=/dev/null/x"]
    refused("evaluate", args, "/dev/null/x cannot be written", "Choose another save_path")


def test_a_run_does_not_write_over_another(data: Path, trained: Path):
    refused("pretrain", tiny(data, trained), "already holds checkpoints", "load_checkpoint=latest")


def test_evaluation_on_other_puzzles(data: Path, trained: Path, tmp_path: Path):
    other = write_sudoku(tmp_path / "other", groups=9, tests=5)
    weights = f"load_checkpoint={trained / 'step_2'}"
    refused("evaluate", [weights, f"data_paths=[{other}]", "device=cpu"], "19 puzzle identifiers", "25 rows")
    renamed = shutil.copytree(data, tmp_path / "renamed")
    names = renamed / "identifiers.json"
    names.write_text(names.read_text().replace("puzzle-3", "puzzle-three"))
    refused("evaluate", [weights, f"data_paths=[{renamed}]", "device=cpu"], "identifiers.json is not the one")


@pytest.mark.thorough
def test_disk_full_while_a_checkpoint_is_written(data: Path, tmp_path: Path):
    folder = tmp_path / "run"
    args = [*tiny(data, folder, checkpoint_every_steps=2, max_steps=2)]
    assert outcome("pretrain", args)[0] == 0
    before = {path.name: path.read_bytes() for path in folder.glob("step_*")}
    assert len(before) == 2
    # no file may grow beyond 20 kB: the system refuses the write just as a full disk does
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        args = tiny(data, folder, checkpoint_every_steps=2, max_steps=4, load_checkpoint="latest")
        refused("pretrain", args, "could not write the checkpoint", "step_4", "untouched")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    left = {path.name: path.read_bytes() for path in folder.glob("*step_*") if path.is_file()}
    assert left == before
    assert outcome("pretrain", args)[0] == 0
    assert (folder / "step_4").exists()


@pytest.mark.thorough
def test_exit_status_and_output_of_the_program(tmp_path: Path):
    output, status = start_process(command("pretrain.py", ["experiment=quickstart", "epoch=3"]), tmp_path)
    assert status == 2
    assert output.strip().startswith("error: the configuration does not fit:\n  epoch: no such key.")
    assert "Did you mean 'epochs'" in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []
