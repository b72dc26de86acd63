"""Ranks meet under one token, a new one for each start, whatever an earlier start has left in the store."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from utils import rank_store
from utils.errors import UserError
from utils.rank_store import RankStore, meet


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """The store of an agent that starts processes again and again."""
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(server.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    return server


def start(ranks: int) -> list[RankStore]:
    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(lambda rank: meet(rank, ranks), reversed(range(ranks))))


def test_each_start_has_a_token_of_its_own_even_with_another_number_of_ranks(agent: TCPStore):
    tokens: list[str] = []
    for ranks in (3, 2, 1, 3):
        agent.set("hello/2", "a process that has died")  # it has introduced itself, and will never answer
        stores = start(ranks)
        tokens.append(stores[0].token)
        assert {store.token for store in stores} == {tokens[-1]}
        own, other = stores[0].connect(), stores[-1].connect()
        assert own.add("key", 1) == 1  # no key of an earlier start
        assert other.add("key", 1) == 2
        stores[0].connect_to_all().add("kept", 1)
    assert len(set(tokens)) == 4
    assert agent.add("kept", 0) == 4


def test_ranks_that_do_not_come_are_named(agent: TCPStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rank_store, "START", timedelta(seconds=0.2))
    with pytest.raises(UserError, match=r"ranks 1, 2 did not start.*localhost, port \d+"):
        meet(0, 3)
    with pytest.raises(UserError, match="rank 0 did not start"):
        meet(1, 3)


def test_what_ranks_do_together_goes_on_without_the_agent(agent: TCPStore, monkeypatch: pytest.MonkeyPatch):
    first, second = start(2)
    one, other = first.for_collectives(), second.for_collectives()
    port = agent.port
    assert port not in (first.of_rank_0.port, second.of_rank_0.port)
    one.set("key", "value")
    assert other.get("key") == b"value"
    assert not agent.check([f"{first.token}/key"])  # it is kept elsewhere
    monkeypatch.setenv("MASTER_PORT", "1")  # where nobody listens, as after the end of the agent
    monkeypatch.setattr(rank_store, "_REACHED", timedelta(seconds=1))
    with pytest.raises(UserError, match=r"store of the launcher, at localhost, port 1, .* Has the launcher ended"):
        meet(0, 2)
    other.set("key", "another")
    assert one.get("key") == b"another"


def test_rank_0_leaves_its_store_after_the_others(agent: TCPStore, monkeypatch: pytest.MonkeyPatch):
    two, one, zero = start(3)
    with ThreadPoolExecutor(1) as pool:
        leaving = pool.submit(zero.leave, 0, 3)
        one.leave(1, 3)
        with pytest.raises(TimeoutError):
            leaving.result(0.3)
        assert two.for_collectives().add("key", 1) == 1  # the store is still there
        two.leave(2, 3)
        leaving.result(5)

    monkeypatch.setattr(rank_store, "_LEAVING", timedelta(seconds=0.2))
    _, zero = start(2)
    zero.leave(0, 2)  # the other has died: it is not waited for any longer
