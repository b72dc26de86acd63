"""Whether all nodes of a run see the files that rank 0 reads and writes."""

import socket
import time
from pathlib import Path

import torch.distributed as dist

from utils.checkpoint import train_state_path, weights_path
from utils.distributed import Ranks
from utils.errors import UserError
from utils.run_folder import RunPlan
from utils.run_lock import FILE


def check_shared(plan: RunPlan, ranks: Ranks, patience: float = 30.0) -> None:
    """Check that every rank sees the checkpoint that the run starts from, and say if it does not see the run folder.

    Collective. Call it while rank 0 holds the lock of the folder.

    Args:
        plan: where the run writes and what it starts from.
        ranks: the rank of this process.
        patience: seconds until a network file system shows a new file at the latest.

    Raises:
        UserError: on every rank, if one of them does not see the checkpoint.
    """
    if not dist.is_initialized():
        return
    needed = [plan.weights] if plan.weights is not None else []
    if plan.resume is not None:
        needed = [weights_path(*plan.resume), train_state_path(*plan.resume)]
    mine = (socket.gethostname(), _appears(needed, patience), _appears([plan.folder / FILE], patience))
    found = [mine] * ranks.world_size
    dist.all_gather_object(found, mine)
    blind = [f"rank {rank} on {host}" for rank, (host, sees, _) in enumerate(found) if not sees]
    if blind:
        raise UserError(
            f"{', '.join(blind)}: {needed[0].absolute()} does not exist there. Every node must see the checkpoint: put "
            "the run folder on a file system that all nodes mount (checkpoint_path=...), or copy it to the same path."
        )
    apart = [f"rank {rank} on {host}" for rank, (host, _, sees) in enumerate(found) if not sees]
    if apart:
        ranks.say(
            f"note: {', '.join(apart)} does not see the run folder {plan.folder.absolute()} of rank 0. The run goes "
            "on, but to resume it every node must see its checkpoints. For that, give a checkpoint_path on a file "
            "system that all nodes mount."
        )


def _appears(paths: list[Path], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not all(path.exists() for path in paths):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
