"""The key-value store through which the ranks of a run find one another, separate for each start of its processes.

torchrun keeps one store for as long as its agent lives. When it starts its processes again, the keys of those before
are still there, and the number of restarts does not tell the two apart: it differs between nodes that joined at
different times, and stays the same when a node leaves. So rank 0 draws a token for each start, under which all keys of
that start lie, and gives it to those processes only that have just introduced themselves.

The store of torchrun ends with its agent. Ranks whose launcher has died still finish their step, or a batch of an
evaluation, and save; for what they do together, rank 0 serves a store of its own.
"""

import json
import os
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import DistError, PrefixStore, Store, TCPStore

from utils.errors import UserError

START = timedelta(minutes=5)  # for all processes to start
_REACHED = timedelta(minutes=1)  # for the store of an agent, which is there before the processes are
_LEAVING = timedelta(minutes=1)  # for all ranks to leave a store, after the last thing that they did together
_POLL = 0.05  # seconds


@dataclass(frozen=True)
class RankStore:
    """Where the store is, and the keys of this start of the processes.

    Attributes:
        server: the store itself; on rank 0 without an agent it is also the server, and must be kept.
        token: the prefix of the keys of this start.
        of_rank_0: the store that rank 0 serves, which must be kept too; without an agent it is the same.
    """

    server: TCPStore
    token: str
    of_rank_0: TCPStore

    def connect(self) -> Store:
        """A connection of its own to the keys of this start, for a thread of its own."""
        return PrefixStore(self.token, self.connect_to_all())

    def connect_to_all(self) -> TCPStore:
        """A connection of its own to the keys of all starts under the same agent."""
        return _connect(is_master=False)

    def for_collectives(self) -> Store:
        """The keys of this start in the store of rank 0, which lives as long as rank 0 does, whatever its launcher."""
        return PrefixStore(self.token, self.of_rank_0)

    def leave(self, rank: int, world_size: int) -> None:
        """Leave the store of rank 0 for good. Rank 0 waits for the others, because its store ends with it. Collective.

        A rank that has died meanwhile is waited for no longer than `_LEAVING`.
        """
        keys = self.for_collectives()
        if rank:
            keys.set(f"left/{rank}", "")
            return
        others = [f"left/{other}" for other in range(1, world_size)]
        deadline = time.monotonic() + _LEAVING.total_seconds()
        while others and not keys.check(others):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL)


def meet(rank: int, world_size: int) -> RankStore:
    """Meet the other ranks at MASTER_ADDR:MASTER_PORT. Collective.

    Raises:
        UserError: some of them have not come within `START`, or the launcher's store is not there.
    """
    server = _connect(is_master=rank == 0 and not _agent_serves())
    deadline = time.monotonic() + START.total_seconds()
    name = secrets.token_hex(8)
    if rank == 0:
        own = server
        if _agent_serves():
            own = TCPStore("localhost", 0, is_master=True, timeout=START, wait_for_workers=False)
        address = {"host": _own_address(), "port": own.port}
        return RankStore(server, _call_roll(server, world_size, name, address, deadline), own)
    server.set(f"hello/{rank}", name)
    while True:
        roll = json.loads(server.get("roll")) if server.check(["roll"]) else {}
        if roll.get(str(rank)) == name:
            own = TCPStore(roll["host"], roll["port"], is_master=False, timeout=START, wait_for_workers=False)
            server.set(f"{roll['token']}/here/{rank}", "")
            return RankStore(server, roll["token"], own)
        if time.monotonic() > deadline:
            raise _missing([0])
        time.sleep(_POLL)


def _call_roll(server: TCPStore, world_size: int, token: str, address: dict[str, str | int], deadline: float) -> str:
    """Give the token and the address of rank 0 to all ranks that introduce themselves, until each has answered."""
    missing, called = set(range(1, world_size)), {}
    while True:
        there = [rank for rank in range(1, world_size) if server.check([f"hello/{rank}"])]
        names = {str(rank): server.get(f"hello/{rank}").decode() for rank in there}
        if names != called:  # those of an earlier start are replaced once the new process is there
            called = names
            server.set("roll", json.dumps({"token": token, **address, **called}))
        missing -= {r for r in missing if server.check([f"{token}/here/{r}"])}
        if not missing:
            return token
        if time.monotonic() > deadline:
            raise _missing(sorted(missing))
        time.sleep(_POLL)


def _connect(is_master: bool) -> TCPStore:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    patience = _REACHED if _agent_serves() else START
    try:
        store = TCPStore(
            host, port, is_master=is_master, timeout=patience, wait_for_workers=False, multi_tenant=is_master
        )
    except DistError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the store of the launcher, at {host}, port {port}, cannot be reached ({reason}). Has the launcher ended? "
            "Start the run again; it goes on from its last checkpoint with load_checkpoint=latest."
        ) from None
    store.set_timeout(START)
    return store


def _agent_serves() -> bool:
    """Whether the store at MASTER_ADDR is that of torchrun's agent; otherwise rank 0 serves it."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _own_address() -> str:
    """Where the other ranks reach this process: the address from which it reaches MASTER_ADDR, or that itself."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    with socket.create_connection((host, port), timeout=START.total_seconds()) as connection:
        here, there = connection.getsockname()[0], connection.getpeername()[0]
    return host if here == there else here


def _missing(ranks: list[int]) -> UserError:
    names = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
    return UserError(
        f"{names} did not start within {START.total_seconds() / 60:.0f} minutes. Look for an error on the node of that "
        f"rank, and check that it reaches {os.environ['MASTER_ADDR']}, port {os.environ['MASTER_PORT']}."
    )
