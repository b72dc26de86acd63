"""Without the folder models/fused, everything runs on plain layers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, environment

SCRIPT = """
import sys
from pathlib import Path

import bench.train_step, evaluate, generate, pretrain, pretrain_text
from tests.runs import metrics, start, tiny, write_sudoku

here = Path.cwd()
assert Path(pretrain.__file__).parent == here
run = here / "run"
data = write_sudoku(here / "data", groups=6, tests=2)
bf16 = {"arch__forward_dtype": "bfloat16", "arch__hidden_size": 32, "arch__num_heads": 1}
print(start("pretrain.py", tiny(data, run, max_steps=2, **bf16), here))
print(start("evaluate.py", [f"load_checkpoint={run}/step_2", f"save_path={run}/found", "device=cpu"], here))
assert [step["step"] for step in metrics(run)] == [1, 2]
assert (run / "found" / "results.json").exists()
assert not [name for name in sys.modules if name.startswith("models.fused")]
"""


@pytest.mark.thorough
def test_training_and_evaluation_without_the_folder(tmp_path: Path):
    copy = tmp_path / "copy"
    for name in ("bench", "config", "dataset", "evaluators", "exporting", "models", "utils"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("*.py"), ROOT / "tests" / "__init__.py", ROOT / "tests" / "runs.py"):
        target = copy / file.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(file, target)
    shutil.rmtree(copy / "models" / "fused")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=copy, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fused operators: no (models/fused is not here)") == 2
