"""Sums, gathers and broadcasts: the identity in one process, the whole in two."""

import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.ranks import on_two_ranks
from utils.distributed import (
    GradientSum,
    Ranks,
    barrier,
    broadcast_module,
    broadcast_object,
    errors_of_rank_0,
    gather_rows,
    launched_ranks,
    process_group,
    sum_over_ranks,
)
from utils.errors import UserError
from utils.rank_store import RankStore

WORLD = 2


def rows_of(rank: int) -> dict[str, Tensor]:
    """Rows of every kind that a carry has."""
    generator = torch.Generator().manual_seed(rank)
    noise = torch.randn(3, 4, 5, generator=generator)
    return {
        "float": noise,
        "bfloat16": noise.bfloat16(),
        "double": noise.double() / 3,
        "strange": torch.tensor([float("nan"), float("-inf"), -0.0]),
        "vector": noise[:, 0, 0].clone(),
        "bool": noise[:, 0, 0] > 0,
        "int32": torch.randint(-(2**31), 2**31 - 1, (3, 4), generator=generator).int(),
        "int64": torch.randint(-(2**62), 2**62, (3,), generator=generator),
        "uint8": torch.randint(0, 256, (3, 2, 1), generator=generator).byte(),
        "strided": noise.transpose(1, 2)[:, ::2],
    }


def module_of(rank: int, summed: bool = False) -> nn.Module:
    """Parameters with gradients, some of them without, and a buffer."""
    torch.manual_seed(rank)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1, bias=False))
    with GradientSum(module.parameters()).over_ranks() if summed else nullcontext():
        module[0](torch.randn(4, 3)).square().sum().backward()
    return module


def scalars_of(rank: int) -> dict[str, Tensor]:
    return {
        "float": torch.tensor(0.1 + rank, requires_grad=True),
        "count": torch.tensor(2**40 + rank),
        "small": torch.tensor(1e-30, dtype=torch.float64),
        "flag": torch.tensor(rank == 1),
    }


def take_part(rank: int) -> dict[str, Any]:
    """All that a rank computes together with the others."""
    module = module_of(rank, summed=True)
    gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    broadcast_module(module)
    barrier()
    return {
        "rows": {name: gather_rows(rows) for name, rows in rows_of(rank).items()},
        "gradients": gradients,
        "module": module.state_dict(),
        "scalars": sum_over_ranks(scalars_of(rank)),
        "object": broadcast_object({"rank": rank, "error": ValueError(str(rank))})["rank"],
    }


def bits(x: Tensor) -> Tensor:
    return x.contiguous().flatten().view(torch.uint8)


def test_one_process_changes_nothing():
    found = take_part(0)
    for name, rows in rows_of(0).items():
        assert torch.equal(bits(found["rows"][name]), bits(rows))
    plain = module_of(0)
    for mine, p in zip(found["gradients"], plain.parameters(), strict=True):
        assert mine is None if p.grad is None else torch.equal(mine, p.grad)
    for name, value in plain.state_dict().items():
        assert torch.equal(found["module"][name], value)
    assert found["scalars"] == {"float": pytest.approx(0.1), "count": 2**40, "small": 1e-30, "flag": 0.0}
    assert found["object"] == 0
    assert sum_over_ranks({}) == {}


def test_ranks_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    assert launched_ranks() == Ranks(0, 1, 0)
    assert launched_ranks().is_main
    for key, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(key, value)
    assert launched_ranks() == Ranks(5, 8, 1)
    assert not launched_ranks().is_main


def test_a_single_process_needs_no_group(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    with process_group(Ranks(), torch.device("cpu")):
        assert not dist.is_initialized()


def test_a_group_that_an_error_leaves_open_serves_the_next_block(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    cpu, stores = torch.device("cpu"), list[RankStore | None]()

    def job_with_an_error() -> None:
        with process_group(Ranks(), cpu) as store:
            stores.append(store)
            raise UserError("this job cannot be done")

    with pytest.raises(UserError):
        job_with_an_error()
    with process_group(Ranks(), cpu) as store, process_group(Ranks(), cpu) as inner:
        assert store is not None
        assert [store] == stores
        assert inner is None
    assert not dist.is_initialized()


def work(rank: int, folder: str) -> None:
    """One of two processes."""
    torch.save(take_part(rank), Path(folder) / f"{rank}.pt")


@pytest.mark.thorough
@pytest.mark.skipif(not dist.is_gloo_available(), reason="no gloo")
def test_two_processes(tmp_path: Path):
    on_two_ranks(work, tmp_path)
    modules = [module_of(rank) for rank in range(WORLD)]
    for rank in range(WORLD):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, rows in found["rows"].items():
            if rank != 0:
                assert rows is None
                continue
            expected = torch.cat([rows_of(r)[name] for r in range(WORLD)])
            assert rows.dtype == expected.dtype
            assert rows.shape == expected.shape
            assert torch.equal(bits(rows), bits(expected))
        for mine, *parts in zip(found["gradients"], *(m.parameters() for m in modules), strict=True):
            assert (mine is None) == (parts[0].grad is None)
            assert mine is None or torch.equal(mine, parts[0].grad + parts[1].grad)
        assert all(torch.equal(found["module"][name], value) for name, value in modules[0].state_dict().items())
        assert found["scalars"] == {"float": pytest.approx(1.2), "count": 2.0**41 + 1, "small": 2e-30, "flag": 1.0}
        assert found["object"] == 0


# -- gradients ---------------------------------------------------------------------------------------------------------


class Shared(nn.Module):
    """A layer used three times, one used once before it, one after it, and one that only some batches use."""

    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last, self.rare = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor, rare: bool) -> Tensor:
        x = self.first(x).tanh()
        for _ in range(3):
            x = self.shared(x).tanh()
        x = self.last(x)
        return (self.rare(x) if rare else x).square().sum()


def micro_batches(step: int, rank: int) -> list[tuple[Tensor, bool]]:
    """(rows, whether the rare layer is used) of the two micro-batches of a step."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    return [(torch.randn(3, 4, generator=generator), rare) for rare in RARE[step]]


# as the buckets were made, then without a gradient of one layer, with one of the first micro-batch alone, without
RARE = [(True, True), (False, False), (True, False), (False, False), (True, True)]


def sum_step_by_step(rank: int, folder: str) -> None:
    torch.manual_seed(0)
    model, plain = Shared(), Shared()
    plain.load_state_dict(model.state_dict())
    sums = GradientSum(model.parameters(), bucket_bytes=64)  # at most one weight and what is before it
    events: list[str] = []
    all_reduce = dist.all_reduce

    def spy(tensor: Tensor, *args: Any, **options: Any) -> Any:
        events.append(f"{tensor.numel()} numbers")
        return all_reduce(tensor, *args, **options)

    dist.all_reduce = spy
    for step, rare in enumerate(RARE):
        events.clear()
        (x, first), (y, last) = micro_batches(step, rank)
        model(x, first).backward()
        assert events == []  # only the last micro-batch sends
        y.requires_grad_()
        y.register_hook(lambda _: events.append("end of the backward pass"))
        with sums.over_ranks():
            model(y, last).backward()
        # in the order in which they become final: rare, last, shared, first; a bias is final before its weight
        buckets = [f"{n} numbers" for n in (20, 20, 20, 20)]
        end = "end of the backward pass"
        if step == 0:
            assert events == [end, *buckets]
        elif rare == (True, True):
            assert events[:3] == buckets[:3]
            assert events[-1] in (end, buckets[3])  # the first layer's may be sent just before or behind it
            assert len(events) == 5
        else:  # the first bucket has to wait, and so all others
            assert events == [end, *buckets[not any(rare) :]]
        for micro, used in micro_batches(step, 0) + micro_batches(step, 1):
            plain(micro, used).backward()
        for mine, reference in zip(model.parameters(), plain.parameters(), strict=True):
            assert (mine.grad is None) == (reference.grad is None)
            if mine.grad is not None and reference.grad is not None:
                torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-5, atol=1e-5)
        model.zero_grad()
        plain.zero_grad()
    dist.all_reduce = all_reduce


@pytest.mark.thorough
def test_gradients_are_summed_while_the_backward_pass_runs(tmp_path: Path):
    on_two_ranks(sum_step_by_step, tmp_path)


def sum_in_other_orders(rank: int, folder: str) -> None:
    torch.manual_seed(0)
    branches = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(3))
    sums = GradientSum(branches.parameters(), bucket_bytes=1)
    for _ in range(3):
        branches.zero_grad()
        with sums.over_ranks():
            uses = [branch(torch.ones(4)).sum() * 10**i for i, branch in [*enumerate(branches)][:: 1 - 2 * rank]]
            torch.stack(uses).sum().backward()
        assert [float(p.grad[0, 0]) for p in branches.parameters() if p.grad is not None] == [2, 20, 200]


@pytest.mark.thorough
def test_ranks_may_finish_gradients_in_other_orders(tmp_path: Path):
    on_two_ranks(sum_in_other_orders, tmp_path)


def test_a_single_process_has_no_hooks():
    model = Shared()
    with GradientSum(model.parameters()).over_ranks():
        assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
        model(torch.randn(3, 4), True).backward()


def refuse(rank: int, folder: str) -> None:
    """What each rank raises, where one of them, both or none finds something wrong."""
    for wrong, expected in (((), None), ((0,), 0), ((1,), 1), ((0, 1), 0)):
        said = None
        try:
            with errors_of_rank_0():
                if rank in wrong:
                    raise UserError(f"rank {rank}")
        except UserError as error:
            said = str(error)
        alone = expected == 1 and rank == 0  # an error of another rank is not shared
        assert said == (None if expected is None or alone else f"rank {expected}")


@pytest.mark.thorough
def test_an_error_of_rank_0_is_raised_by_all(tmp_path: Path):
    on_two_ranks(refuse, tmp_path)
    with pytest.raises(UserError, match="alone"), errors_of_rank_0():
        raise UserError("alone")
