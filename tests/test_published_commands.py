"""The command lines in the README of the published code have the same meaning here."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from models.factory import check_arch, make_head
from tests.runs import start, tiny, write_sudoku
from utils.config import plain, validate
from utils.hydra import CONFIG_DIR, _lenient
from utils.settings import PretrainConfig

SHARED_BY_SUDOKU_AND_MAZE = """epochs=50000 eval_interval=5000 lr=1e-4 puzzle_emb_lr=1e-4 weight_decay=1.0
    puzzle_emb_weight_decay=1.0 arch.L_layers=2 arch.H_cycles=3 ema=True"""
COMMANDS = {
    "sudoku_mlp": f"""arch=trm data_paths=[data/sudoku-extreme-1k-aug-1000] evaluators=[] {SHARED_BY_SUDOKU_AND_MAZE}
        arch.L_cycles=6 arch.mlp_t=True arch.pos_encodings=none +run_name=pretrain_mlp_t_sudoku""",
    "sudoku_att": f"""arch=trm data_paths=[data/sudoku-extreme-1k-aug-1000] evaluators=[] {SHARED_BY_SUDOKU_AND_MAZE}
        arch.L_cycles=6 +run_name=pretrain_att_sudoku""",
    "maze": f"""arch=trm data_paths=[data/maze-30x30-hard-1k] evaluators=[] {SHARED_BY_SUDOKU_AND_MAZE}
        arch.L_cycles=4 +run_name=pretrain_att_maze30x30""",
    "arc1": """arch=trm data_paths=[data/arc1concept-aug-1000] arch.L_layers=2 arch.H_cycles=3 arch.L_cycles=4
        +run_name=pretrain_att_arc1concept_4 ema=True""",
    "arc2": """arch=trm data_paths=[data/arc2concept-aug-1000] arch.L_layers=2 arch.H_cycles=3 arch.L_cycles=4
        +run_name=pretrain_att_arc2concept_4 ema=True""",
}
EXPERIMENTS = {
    "sudoku_mlp": "sudoku_extreme_mlp",
    "sudoku_att": "sudoku_extreme_att",
    "maze": "maze_hard",
    "arc1": "arc1",
    "arc2": "arc2",
}


def composed(overrides: list[str]) -> PretrainConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return validate(PretrainConfig, plain(compose("cfg_pretrain", [_lenient(item) for item in overrides])))


@pytest.mark.parametrize("name", COMMANDS)
def test_published_command_is_the_experiment(name: str):
    published = composed(COMMANDS[name].split())
    check_arch(published.arch)
    assert (published.run_name or "").startswith("pretrain_")
    ours = composed([f"experiment={EXPERIMENTS[name]}"])
    # what we add to the published settings: a name, and how to make the data; ARC's epochs are the defaults
    differ = {"run_name", "data_builder"}
    assert published.model_dump(exclude=differ) == ours.model_dump(exclude=differ)


def test_published_sizes():
    config = composed(["experiment=sudoku_extreme_mlp"])
    head = make_head(config.arch, vocab_size=11, seq_len=81, num_puzzle_identifiers=1)
    assert sum(p.numel() for p in head.parameters()) == 5_028_866


@pytest.mark.thorough
def test_sweep_in_one_process(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=12, tests=5)
    args = tiny(data, tmp_path / "run", max_steps=2)
    output = start("pretrain.py", ["-m", *args, "arch.L_cycles=1,3"], tmp_path)
    for job, cycles in enumerate((1, 3)):
        folder = tmp_path / f"run-{job}"
        assert f"files: {folder}" in output
        assert re.search(rf"job {job} of the sweep: .*arch\.L_cycles={cycles}\b", output)
        assert re.search(r"evaluated after step 2: .*all/exact_accuracy \d\.\d{4}", output)
        assert f"L_cycles: {cycles}" in (folder / "all_config.yaml").read_text()
        assert (folder / "step_2").exists()
