"""Several gloo processes for a test; the test's own process is rank 0, which saves starting one."""

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

Work = Callable[[int, str], None]


def on_ranks(work: Work, folder: Path, count: int) -> None:
    """Call `work(rank, folder)` in a process group; a module-level function, because it is sent to the others."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=take_part, args=(work, rank, count, str(folder))) for rank in range(1, count)]
    for other in others:
        other.start()
    try:
        take_part(work, 0, count, str(folder))
    finally:
        for other in others:
            other.join(300)
    assert [other.exitcode for other in others] == [0] * len(others)


def on_two_ranks(work: Work, folder: Path) -> None:
    """`on_ranks` with two."""
    on_ranks(work, folder, 2)


def take_part(work: Work, rank: int, count: int, folder: str) -> None:
    """One of the processes."""
    patience = timedelta(minutes=5)  # machines may be busy
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count, timeout=patience)
    try:
        work(rank, folder)
        dist.barrier()  # gloo may abort a process whose peer has left while its threads still run
    finally:
        dist.destroy_process_group()
