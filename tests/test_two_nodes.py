"""Two nodes of two ranks each under scripts/slurm.sh, on this machine: one is lost, and the job is preempted."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos import processes
from tests.runs import ROOT, environment, metrics, start, tiny, write_sudoku
from utils.checkpoint import latest_step

# what Slurm does, as far as the script needs it: a process for each node, signals passed on, the worst status
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for node in 0 1; do SLURM_NODEID=$node "$@" & pids+=($!); echo $! >> "$FAKE/agents"; done
trap 'kill -USR1 "${pids[@]}" 2>/dev/null' USR1
worst=0
for pid in "${pids[@]}"; do
    wait "$pid"; status=$?
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; status=$?; done
    [[ $status -gt $worst ]] && worst=$status
done
exit $worst
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then printf '127.0.0.1\\n127.0.0.1\\n'; else echo "$@" >> "$FAKE/scontrol-calls"; fi
"""
STARTS = re.compile(r"; steps: (\d+) -> ")  # a line of each start of the run
EVERY = 5  # steps between checkpoints
PATIENCE = float(os.environ.get("PATIENCE", "280"))  # seconds; more on a machine that is busy with other things


def until(condition: Callable[[], object], what: str, log: Path, seconds: float = PATIENCE) -> None:
    """Wait for a condition; fail with the end of the log if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}:\n{log.read_text()[-6000:]}"
        time.sleep(0.1)


def world_of(pid: int) -> int:
    """WORLD_SIZE of a rank; 0 if it has ended."""
    try:
        found = re.search(rb"(?:^|\0)WORLD_SIZE=(\d+)", Path(f"/proc/{pid}/environ").read_bytes())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def below(parent: int) -> set[int]:
    """The processes that `parent` has started."""
    return {pid for (pid, _), its_parent in processes().items() if its_parent == parent}


@pytest.mark.slow
def test_a_node_is_lost_and_the_job_is_preempted(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=18, tests=2)
    fake, folder, log = tmp_path / "bin", tmp_path / "run", tmp_path / "output.txt"
    fake.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (fake / name).write_text(text)
        (fake / name).chmod(0o755)
    variables = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_NNODES": "2",
        "NODES": "1:2",
        "RANKS": "2",
        "PYTHON": sys.executable,
        "FAKE": str(fake),
        "PATH": f"{fake}:{os.environ['PATH']}",
        "RDZV_CONF": "last_call_timeout=5,keep_alive_interval=3,keep_alive_max_attempt=4",
    }
    settings = {"global_batch_size": 12, "epochs": 4000, "eval_interval": None, "checkpoint_every_steps": EVERY}

    def steps() -> int:
        return (folder / "metrics.jsonl").read_text().count("\n") if (folder / "metrics.jsonl").exists() else 0

    with log.open("w") as output:
        job = subprocess.Popen(
            ["bash", str(ROOT / "scripts" / "slurm.sh"), "pretrain.py", *tiny(data, folder, **settings)],
            cwd=ROOT,
            env=environment() | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def together(agents: list[int], ranks: int) -> bool:
        """Whether each of the agents has two ranks, of so many in all."""
        return all(len(found := below(agent)) == 2 and all(world_of(pid) == ranks for pid in found) for agent in agents)

    try:
        until(lambda: (fake / "agents").exists(), "no agent started", log)
        until(lambda: len((fake / "agents").read_text().split()) == 2, "one agent started", log)
        agents = [int(pid) for pid in (fake / "agents").read_text().split()]
        until(lambda: together(agents, 4), "the nodes did not meet", log)
        until(lambda: steps() > EVERY + 1 and together(agents, 4), "it did not start", log)
        # the agent that does not serve the rendezvous, and its ranks, without notice
        (server,) = [agent for agent in agents if holds_store(agent, int(variables["SLURM_JOB_ID"]))]
        (lost,) = set(agents) - {server}
        starts, text = len(STARTS.findall(log.read_text())), log.read_text
        for pid in (lost, *below(lost)):
            os.kill(pid, signal.SIGKILL)
        until(lambda: together([server], 2), "the other node did not start again", log)
        until(lambda: len(STARTS.findall(text())) > starts, "the run did not start again", log)
        went_on = int(STARTS.findall(text())[-1])
        until(lambda: steps() > went_on + EVERY, "it did not go on", log)
        os.kill(job.pid, signal.SIGUSR1)  # of the script alone, as Slurm does
        assert job.wait(timeout=PATIENCE) == 75, text()[-6000:]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    assert (fake / "scontrol-calls").read_text() == f"requeue {variables['SLURM_JOB_ID']}\n"
    assert went_on >= EVERY  # from a checkpoint
    last = latest_step(folder)
    assert last is not None
    found = metrics(folder)
    assert [line["step"] for line in found] == list(range(1, last + 1))
    # one process, left alone
    start("pretrain.py", tiny(data, tmp_path / "alone", **settings, max_steps=min(last, 40)), tmp_path)
    for one, other in zip(metrics(tmp_path / "alone"), found, strict=False):
        assert one["train/lm_loss"] == pytest.approx(other["train/lm_loss"], abs=1e-5), one["step"]
        assert one["train/count"] == other["train/count"]


def holds_store(agent: int, job: int) -> bool:
    """Whether an agent listens at the port of the job."""
    port = 20000 + job % 30000
    listening = set[str]()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{agent}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].split(":")[1], 16) == port:
                listening.add(f"socket:[{words[9]}]")
    files = list(Path(f"/proc/{agent}/fd").iterdir())
    return any(str(file.readlink()) in listening for file in files if file.is_symlink())
