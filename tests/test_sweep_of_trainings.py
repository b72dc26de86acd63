"""Four trainings as jobs of submitit, here and with stand-ins for Slurm's commands: one fails, and three finish."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.runs import command, environment, metrics, tiny, write_sudoku

# what Slurm does with a job array, as far as submitit needs it
STAND_INS = {
    "sbatch": """#!/bin/bash
cp "$1" "$FAKE/submitted.sh"
last=$(sed -n "s/^#SBATCH --array='\\{0,1\\}0-\\([0-9]*\\)%.*/\\1/p" "$1")
export SLURM_ARRAY_JOB_ID=700 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
for task in $(seq 0 "$last"); do
    SLURM_JOB_ID=$((701 + task)) SLURM_ARRAY_TASK_ID=$task SLURM_JOB_NODELIST=n1 bash "$1" > "$FAKE/task-$task" 2>&1 &
done
echo Submitted batch job 700
""",
    "srun": """#!/bin/bash
while [[ $1 == --* ]]; do [[ $1 == --unbuffered ]] || shift; shift; done
exec "$@"
""",
    "sacct": "#!/bin/bash\n",  # knows nothing yet
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "submitit_slurm"])
def test_one_of_four_trainings_fails_and_three_finish(tmp_path: Path, launcher: str):
    data, fake = write_sudoku(tmp_path / "data", groups=6, tests=2), tmp_path / "bin"
    fake.mkdir()
    for name, text in STAND_INS.items() if launcher == "submitit_slurm" else ():
        (fake / name).write_text(text)
        (fake / name).chmod(0o755)
    settings = [word for word in tiny(data, None, max_steps=3) if not word.startswith(("lr=", "checkpoint_path="))]
    sweep = ["-m", f"hydra/launcher={launcher}", "lr=1e-3,-1,2e-3,4e-3", f"checkpoint_path={tmp_path}/run-${{lr}}"]
    done = subprocess.run(
        command("pretrain.py", [*sweep, f"hydra.sweep.dir={tmp_path}/sweep", *settings]),
        cwd=tmp_path,
        env=environment() | {"PATH": f"{fake}:{os.environ['PATH']}", "FAKE": str(fake)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 2, done.stdout
    failed = done.stdout[done.stdout.index("failed jobs of the sweep: 1") :]
    assert re.search(r"job 1 of the sweep: lr=-1 .*\n  lr=-1: input should be", failed), failed
    for run in (tmp_path / name for name in ("run-0.001-0", "run-0.002-2", "run-0.004-3")):
        assert len(metrics(run)) == 3
        assert (run / "step_3").exists()
    if launcher == "submitit_slurm":
        assert "#SBATCH --time=60" in (fake / "submitted.sh").read_text()
