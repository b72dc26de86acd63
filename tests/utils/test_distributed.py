"""Sums, gathers and broadcasts: the identity in one process, the whole in two."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.ranks import on_two_ranks
from utils.distributed import (
    Ranks,
    barrier,
    broadcast_module,
    broadcast_object,
    errors_of_rank_0,
    gather_rows,
    launched_ranks,
    process_group,
    sum_gradients,
    sum_over_ranks,
)
from utils.errors import UserError

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


def module_of(rank: int) -> nn.Module:
    """Parameters with gradients, some of them without, and a buffer."""
    torch.manual_seed(rank)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1, bias=False))
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
    module = module_of(rank)
    sum_gradients(module.parameters())
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


def work(rank: int, folder: str) -> None:
    """One of two processes."""
    torch.save(take_part(rank), Path(folder) / f"{rank}.pt")


@pytest.mark.skipif(not dist.is_gloo_available(), reason="no gloo")
def test_two_processes(tmp_path: Path):
    on_two_ranks(work, tmp_path)
    modules = [module_of(rank) for rank in range(WORLD)]
    for rank in range(WORLD):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, rows in found["rows"].items():
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


def test_an_error_of_rank_0_is_raised_by_all(tmp_path: Path):
    on_two_ranks(refuse, tmp_path)
    with pytest.raises(UserError, match="alone"), errors_of_rank_0():
        raise UserError("alone")
