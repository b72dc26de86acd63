"""A long run of tiny steps with many evaluations, while its memory, open files and threads are watched.

    uv run python -m tests.soak [STEPS] [EVALUATIONS]

Prints a line every 30 seconds, and at the end the growth between the first and the last quarter of the run. Exits with
status 1 if memory grew by more than `MOST_GROWTH`, if open files or threads grew at all, or if the run folder holds
files that do not belong there.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.runs import command, environment, tiny, write_sudoku

MOST_GROWTH = 16.0  # MB of resident memory
# what a run folder may hold, besides two files for each evaluation
EXPECTED = re.compile(
    r"step_\d+(_train_state\.pt)?|evaluation_step_\d+|all_config\.yaml|code|metrics\.jsonl|perf\.jsonl|train_data\.json|"
    r"example\.png|report\.html|wandb|\.?[\w.]*lock[\w.]*"
)


class Sample(NamedTuple):
    """What a process holds at one moment."""

    step: int
    memory: float  # MB resident
    files: int  # open file descriptors
    threads: int


def sample(process: int, folder: Path) -> Sample | None:
    """The present state of a process that writes to a run folder; None if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in status.splitlines())
    if "VmRSS" not in values:
        return None
    log = folder / "metrics.jsonl"
    step = log.read_bytes().count(b"\n") if log.exists() else 0
    return Sample(step, int(values["VmRSS"].split()[0]) / 1024, files, int(values["Threads"]))


def watch(arguments: list[str], folder: Path, steps: int) -> tuple[list[Sample], int]:
    """Run a command line: (samples taken each second while it trained, exit status)."""
    output = folder.with_name("output.txt").open("wb")
    process = subprocess.Popen(arguments, env=environment(), stdout=output, stderr=subprocess.STDOUT)
    samples: list[Sample] = []
    while process.poll() is None:
        time.sleep(1)
        now = sample(process.pid, folder)
        if now is not None and 0 < now.step < steps:
            samples.append(now)
            if len(samples) % 30 == 1:
                print(now, flush=True)
    return samples, process.returncode


def main(steps: int = 3000, evaluations: int = 30) -> int:
    """Run the soak, print its figures and return the exit status."""
    with tempfile.TemporaryDirectory() as place:
        data, folder = write_sudoku(Path(place) / "data", groups=6, tests=5), Path(place) / "run"
        # an epoch of 6 groups in batches of 6 is one step
        every = steps // evaluations
        settings = {"epochs": steps, "eval_interval": every, "checkpoint_every_steps": max(1, every // 5)}
        samples, status = watch(command("pretrain.py", tiny(data, folder, **settings)), folder, steps)
        if status != 0 or len(samples) < 8:
            print((folder.parent / "output.txt").read_text()[-3000:])
            print(f"the run ended with status {status} after {len(samples)} samples")
            return 1
        warm = [moment for moment in samples if moment.step >= every]  # after the first evaluation
        quarter = max(1, len(warm) // 4)
        first, last = warm[:quarter], warm[-quarter:]
        memory = median(m.memory for m in last) - median(m.memory for m in first)
        files = max(m.files for m in last) - max(m.files for m in first)
        threads = max(m.threads for m in last) - max(m.threads for m in first)
        names = sorted(path.name for path in folder.iterdir())
        strange = [name for name in names if not EXPECTED.fullmatch(name)]
        states = [name for name in names if name.endswith("_train_state.pt")]
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"steps {steps}, evaluations {evaluations}, samples {len(samples)}")
    print(f"memory: {first[0].memory:.1f} MB after the first evaluation, {last[-1].memory:.1f} MB at the end, at most "
          f"{max(m.memory for m in samples):.1f} MB; last quarter - first quarter {memory:+.1f} MB")  # fmt: skip
    print(f"open files: {max(m.files for m in last)} ({files:+d})")
    print(f"threads: {max(m.threads for m in last)} ({threads:+d})")
    print(f"run folder: {len(names)} entries, {len(states)} train states, {size:.1f} MB; strange: {strange or 'none'}")
    return int(memory > MOST_GROWTH or files > 0 or threads > 0 or bool(strange))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
