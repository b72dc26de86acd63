"""The key-value store through which the ranks of a run find one another, separate for each start of its processes.

torchrun keeps one store for as long as its agent lives. When it starts its processes again, the keys of those before
are still there, and the number of restarts does not tell the two apart: it differs between nodes that joined at
different times, and stays the same when a node leaves. So rank 0 draws a token for each start, under which all keys of
that start lie, and gives it to those processes only that have just introduced themselves.
"""

import json
import os
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore

from utils.errors import UserError

START = timedelta(minutes=5)  # for all processes to start
_POLL = 0.05  # seconds


@dataclass(frozen=True)
class RankStore:
    """Where the store is, and the keys of this start of the processes.

    Attributes:
        server: the store itself; on rank 0 without an agent it is also the server, and must be kept.
        token: the prefix of the keys of this start.
    """

    server: TCPStore
    token: str

    def connect(self) -> Store:
        """A connection of its own to the keys of this start, for a thread of its own."""
        return PrefixStore(self.token, self.connect_to_all())

    def connect_to_all(self) -> TCPStore:
        """A connection of its own to the keys of all starts under the same agent."""
        return _connect(is_master=False)


def meet(rank: int, world_size: int) -> RankStore:
    """Meet the other ranks at MASTER_ADDR:MASTER_PORT. Collective.

    Raises:
        UserError: some of them have not come within `START`.
    """
    agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    server = _connect(is_master=rank == 0 and not agent_serves)
    deadline = time.monotonic() + START.total_seconds()
    name = secrets.token_hex(8)
    if rank == 0:
        return RankStore(server, _call_roll(server, world_size, name, deadline))
    server.set(f"hello/{rank}", name)
    while True:
        roll = json.loads(server.get("roll")) if server.check(["roll"]) else {}
        if roll.get(str(rank)) == name:
            server.set(f"{roll['token']}/here/{rank}", "")
            return RankStore(server, roll["token"])
        if time.monotonic() > deadline:
            raise _missing([0])
        time.sleep(_POLL)


def _call_roll(server: TCPStore, world_size: int, token: str, deadline: float) -> str:
    """Give the token to all ranks that introduce themselves, until each has answered."""
    missing, called = set(range(1, world_size)), {}
    while True:
        there = [rank for rank in range(1, world_size) if server.check([f"hello/{rank}"])]
        names = {str(rank): server.get(f"hello/{rank}").decode() for rank in there}
        if names != called:  # those of an earlier start are replaced once the new process is there
            called = names
            server.set("roll", json.dumps({"token": token, **called}))
        missing -= {r for r in missing if server.check([f"{token}/here/{r}"])}
        if not missing:
            return token
        if time.monotonic() > deadline:
            raise _missing(sorted(missing))
        time.sleep(_POLL)


def _connect(is_master: bool) -> TCPStore:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=is_master, timeout=START, wait_for_workers=False, multi_tenant=is_master)


def _missing(ranks: list[int]) -> UserError:
    names = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
    return UserError(
        f"{names} did not start within {START.total_seconds() / 60:.0f} minutes. Look for an error on the node of that "
        f"rank, and check that it reaches {os.environ['MASTER_ADDR']}, port {os.environ['MASTER_PORT']}."
    )
