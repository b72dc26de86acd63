"""bench.renamed_symbols tells a model that treats all symbols alike from one that does not."""

from pathlib import Path

import pytest

from bench.renamed_symbols import Flags, compare
from dataset.tasks.sudoku.build import Config, build
from evaluators.loading import load
from tests.evaluators.small_reasoners import write_run
from utils.errors import UserError

SE_RRM = {
    "name": "recursive_reasoning.se_rrm@SERRM", "head_dim": 8, "head_dim_t": 8, "num_heads_t": 1, "add_tokens": 1,
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    # eight clues of four digits, so that most puzzles have them all
    build(Config(output_dir=str(tmp_path / "data"), generate=4, test_size=6, box="2x2", min_clues=8))
    return tmp_path / "data"


def test_only_a_model_that_is_equivariant_answers_alike(tmp_path: Path, data: Path):
    runs = {"se_rrm": write_run(tmp_path / "se_rrm", "sudoku", **SE_RRM), "trm": write_run(tmp_path / "trm", "sudoku")}
    flags = Flags("", data, renamings=3, steps=2, batch=4)
    found = {name: compare(load(run, "cpu", dtype="float32"), flags) for name, run in runs.items()}
    for one in found.values():
        assert (one.puzzles, one.renamed) == (6, 18)
        assert one.solved <= one.puzzles
        assert one.renamed_solved <= one.renamed
    assert found["se_rrm"].others == 0
    assert found["se_rrm"].renamed_solved == 3 * found["se_rrm"].solved
    assert found["se_rrm"].difference < 1e-5
    assert found["trm"].others > 9
    assert found["trm"].difference > 1e-2


def test_models_that_do_not_fit_are_refused(tmp_path: Path, data: Path):
    run = write_run(tmp_path / "run", "maze")
    with pytest.raises(UserError, match="the task maze has no symbols that can be renamed"):
        compare(load(run, "cpu"), Flags("", data))
    build(Config(output_dir=str(tmp_path / "larger"), generate=1, test_size=1, box="2x3", min_clues=20))
    run = write_run(tmp_path / "other", "sudoku")
    with pytest.raises(UserError, match="has puzzles of 36 tokens out of 8, and the model answers such of 16 out of 6"):
        compare(load(run, "cpu"), Flags("", tmp_path / "larger"))
