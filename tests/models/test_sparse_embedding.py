"""The puzzle table and its sign descent against a dense table updated element by element, in one process and in two."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from models.sparse_embedding import SparsePuzzleEmbedding, SparseSignSGD, sums_by_id, table_traffic
from tests.ranks import on_two_ranks

PUZZLES, WIDTH, LR, DECAY = 9, 4, 0.125, 0.25


def some_table() -> Tensor:
    return torch.randn(PUZZLES, WIDTH, generator=torch.Generator().manual_seed(0))


def some_batch() -> tuple[Tensor, Tensor]:
    """(ids, gradient of each row): 0 and 5 three times, 2 twice with gradients that cancel, 7 once, others never."""
    ids = torch.tensor([5, 0, 2, 5, 7, 2, 0, 5])
    gradients = torch.randn(len(ids), WIDTH, generator=torch.Generator().manual_seed(1))
    gradients[5] = -gradients[2]
    return ids, gradients


def make(dtype: torch.dtype = torch.float32) -> tuple[SparsePuzzleEmbedding, SparseSignSGD]:
    embedding = SparsePuzzleEmbedding(PUZZLES, WIDTH, dtype)
    embedding.weights.copy_(some_table())
    return embedding, SparseSignSGD([embedding], lr=LR, weight_decay=DECAY)


def backward(embedding: SparsePuzzleEmbedding, ids: Tensor, gradients: Tensor) -> None:
    (embedding(ids) * gradients).sum().backward()


def dense_update(table: Tensor, ids: Tensor, gradients: Tensor) -> Tensor:
    rows = table.tolist()
    for row in set(ids.tolist()):
        for column in range(WIDTH):
            total = sum(float(g[column]) for i, g in zip(ids.tolist(), gradients, strict=True) if i == row)
            sign = (total > 0) - (total < 0)
            rows[row][column] = rows[row][column] * (1 - LR * DECAY) - LR * sign
    return torch.tensor(rows)


def test_table_starts_at_zero_and_is_no_parameter():
    embedding = SparsePuzzleEmbedding(PUZZLES, WIDTH, torch.bfloat16)
    assert not embedding.weights.any()
    assert not list(embedding.parameters())
    assert list(embedding.state_dict()) == ["weights"]


def test_rows_are_looked_up_and_cast():
    embedding, _ = make(torch.bfloat16)
    ids, _ = some_batch()
    assert torch.equal(embedding(ids), some_table()[ids].bfloat16())
    assert embedding.weights.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_update_equals_that_of_a_dense_table(dtype: torch.dtype):
    embedding, optimizer = make(dtype)
    expected = some_table()
    for shift in range(3):
        ids, gradients = some_batch()
        ids = (ids + shift) % PUZZLES
        backward(embedding, ids, gradients.to(dtype))
        optimizer.step()
        expected = dense_update(expected, ids, gradients.to(dtype).float())
        torch.testing.assert_close(embedding.weights, expected)


def test_only_rows_of_the_batch_move_and_blank_is_a_row_like_any_other():
    embedding, optimizer = make()
    backward(embedding, *some_batch())
    optimizer.step()
    moved = (embedding.weights != some_table()).any(1)
    assert moved.nonzero().flatten().tolist() == [0, 2, 5, 7]
    # the gradients of row 2 cancel: it decays and does nothing else
    torch.testing.assert_close(embedding.weights[2], some_table()[2] * (1 - LR * DECAY))

    embedding, optimizer = make()
    backward(embedding, torch.tensor([3]), torch.ones(1, WIDTH))
    optimizer.step()
    assert torch.equal(embedding.weights[0], some_table()[0])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_collecting_micro_batches_equals_one_batch(size: int):
    embedding, optimizer = make()
    ids, gradients = some_batch()
    for part, part_gradients in zip(ids.split(size), gradients.split(size), strict=True):
        backward(embedding, part, part_gradients)
        optimizer.collect()
    optimizer.step()
    torch.testing.assert_close(embedding.weights, dense_update(some_table(), ids, gradients))


def test_a_gradient_is_applied_once():
    embedding, optimizer = make()
    backward(embedding, *some_batch())
    optimizer.step()
    after = embedding.weights.clone()
    optimizer.step()
    assert torch.equal(embedding.weights, after)
    assert embedding.take_gradient() is None


def test_the_rate_can_change_between_steps():
    embedding, optimizer = make()
    optimizer.param_groups[0]["lr"] = 0.0
    backward(embedding, *some_batch())
    optimizer.step()
    assert torch.equal(embedding.weights, some_table())


def test_several_tables_are_updated_together():
    one, other = make()[0], make()[0]
    optimizer = SparseSignSGD([one, other], lr=LR, weight_decay=DECAY)
    ids, gradients = some_batch()
    backward(one, ids, gradients)
    backward(other, ids[:3], gradients[:3])
    optimizer.step()
    torch.testing.assert_close(one.weights, dense_update(some_table(), ids, gradients))
    torch.testing.assert_close(other.weights, dense_update(some_table(), ids[:3], gradients[:3]))


def test_neither_evaluation_nor_no_grad_makes_a_leaf():
    embedding, _ = make()
    ids, gradients = some_batch()
    backward(embedding, ids, gradients)
    with torch.no_grad():
        assert not embedding(ids[:2]).requires_grad
    embedding.eval()
    assert not embedding(ids[:2]).requires_grad
    # and what was pending still is
    pending = embedding.take_gradient()
    assert pending is not None
    assert torch.equal(pending[0], ids)
    assert torch.equal(pending[1], gradients)
    embedding(ids)
    assert embedding.local_weights is None


@pytest.mark.parametrize("ids", [[3], [4, 4, 4], [5, 0, 2, 5, 7, 2, 0, 5], list(range(40)), [0] * 40, [1, 0] * 100])
def test_sums_of_equal_ids_are_those_of_a_loop(ids: list[int]):
    values = torch.randn(len(ids), WIDTH, generator=torch.Generator().manual_seed(2))
    expected: dict[int, Tensor] = {}
    for index, row in zip(ids, values, strict=True):
        expected[index] = expected.get(index, torch.zeros(WIDTH)) + row
    in_order, sums = sums_by_id(torch.tensor(ids, dtype=torch.int32), values)
    assert in_order.tolist() == sorted(ids)
    assert torch.equal(sums, torch.stack([expected[index] for index in sorted(ids)]))


def test_no_shape_depends_on_the_ids():
    """Tracing with tensors that have shapes and no values fails where the device would have to be waited for."""
    with FakeTensorMode():
        embedding, optimizer = make()
        ids, gradients = torch.zeros(8, dtype=torch.int32), torch.zeros(8, WIDTH)
        backward(embedding, ids, gradients)
        optimizer.step()
        with pytest.raises(DynamicOutputShapeException):
            ids.unique()


def work(rank: int, folder: str) -> None:
    """One of two processes: every second row of the batch, in two micro-batches."""
    embedding, optimizer = make()
    ids, gradients = some_batch()
    for part in (slice(rank, 4, 2), slice(4 + rank, 8, 2)):
        backward(embedding, ids[part], gradients[part])
        optimizer.collect()
    optimizer.step()
    torch.save(embedding.weights, Path(folder) / f"{rank}.pt")


@pytest.mark.thorough
@pytest.mark.skipif(not dist.is_gloo_available(), reason="no gloo")
def test_two_processes_equal_one(tmp_path: Path):
    on_two_ranks(work, tmp_path)
    tables = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(*tables)
    torch.testing.assert_close(tables[0], dense_update(some_table(), *some_batch()))


@pytest.mark.parametrize("puzzles", [PUZZLES, 100_000])
def test_the_traffic_of_a_step_is_that_of_the_batch(monkeypatch: pytest.MonkeyPatch, puzzles: int):
    """Two ranks exchange the rows of the batch, whatever the size of the table."""
    received: list[int] = []

    def gather(whole: Tensor, mine: Tensor) -> None:
        whole.copy_(torch.cat([mine, mine]))
        received.append(whole.nbytes)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_into_tensor", gather)
    embedding = SparsePuzzleEmbedding(puzzles, WIDTH, torch.float32)
    ids, gradients = some_batch()
    backward(embedding, ids.int(), gradients)
    SparseSignSGD([embedding]).step()
    assert sum(received) == table_traffic(2 * len(ids), WIDTH)
