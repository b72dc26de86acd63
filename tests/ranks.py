"""Two gloo processes for a test; the test's own process is rank 0, which saves starting one."""

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

Work = Callable[[int, str], None]


def on_two_ranks(work: Work, folder: Path) -> None:
    """Call `work(rank, folder)` in a process group of two; a module-level function, because it is sent to the other."""
    other = multiprocessing.get_context("spawn").Process(target=take_part, args=(work, 1, str(folder)))
    other.start()
    try:
        take_part(work, 0, str(folder))
    finally:
        other.join(90)
    assert other.exitcode == 0


def take_part(work: Work, rank: int, folder: str) -> None:
    """One of the two."""
    patience = timedelta(seconds=90)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=patience)
    try:
        work(rank, folder)
        dist.barrier()  # gloo may abort a process whose peer has left while its threads still run
    finally:
        dist.destroy_process_group()
