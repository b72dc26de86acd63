"""The puzzle embedding: a large table of which a batch uses a few rows, trained by sign descent on those rows."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer


class SparsePuzzleEmbedding(nn.Module):
    """Table [puzzles, width] without a dense gradient.

    In training the batch's rows are copied to a leaf, `local_weights` [batch, width], which gets the gradient;
    `SparseSignSGD` applies it to the table. The table itself is a buffer, zero at the start.
    """

    weights: Tensor

    def __init__(self, num_puzzles: int, width: int, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weights", torch.zeros(num_puzzles, width))
        self.local_weights: Tensor | None = None
        self.local_ids: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """int [batch] -> [batch, width] in `dtype`."""
        rows = self.weights[ids]
        if self.training and torch.is_grad_enabled():
            rows = rows.requires_grad_()
            self.local_weights, self.local_ids = rows, ids
        return rows.to(self.dtype)

    def take_gradient(self) -> tuple[Tensor, Tensor] | None:
        """(ids [batch], gradient [batch, width]) of the last forward and backward pass; None if there is none.

        The gradient is cleared, so a second call returns None."""
        rows, ids = self.local_weights, self.local_ids
        self.local_weights = self.local_ids = None
        if rows is None or ids is None or rows.grad is None:
            return None
        return ids, rows.grad


class SparseSignSGD(Optimizer):
    """Sign descent on the rows in the batch: `row = row * (1 - lr * weight_decay) - lr * sign(gradient)`.

    The gradient of a row is the sum over the batch and over all ranks. Other rows do not change. The optimizer has
    no state. With gradient accumulation, call `collect()` after each backward pass; `step()` applies the sum.
    """

    def __init__(self, embeddings: Iterable[SparsePuzzleEmbedding], lr: float = 1e-2, weight_decay: float = 0.1):
        self.embeddings = list(embeddings)
        self._collected: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.embeddings]
        super().__init__([e.weights for e in self.embeddings], {"lr": lr, "weight_decay": weight_decay})

    def collect(self) -> None:
        """Take the gradient of the last backward pass from each embedding."""
        for embedding, collected in zip(self.embeddings, self._collected, strict=True):
            gradient = embedding.take_gradient()
            if gradient is not None:
                collected.append(gradient)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the collected gradients and clear them. All ranks must have collected equally many rows.

        Raises:
            ValueError: a closure is given.
        """
        if closure is not None:
            raise ValueError("SparseSignSGD takes no closure")
        self.collect()
        lr, weight_decay = self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]
        for embedding, collected in zip(self.embeddings, self._collected, strict=True):
            if not collected:
                continue
            ids = _all_gather(torch.cat([ids for ids, _ in collected]))
            gradients = _all_gather(torch.cat([gradient for _, gradient in collected]))
            collected.clear()
            ids, summed = sums_by_id(ids, gradients)
            rows = embedding.weights[ids].mul_(1 - lr * weight_decay).add_(summed.sign_(), alpha=-lr)
            embedding.weights[ids] = rows  # an id that occurs several times writes the same row each time


def table_traffic(global_batch: int, width: int) -> int:
    """Bytes that every rank has after the exchange of a step: the id and the gradient of each row of the batch.

    That is the traffic of the table, however many rows it has. Of these bytes, a rank's own part is not sent to it.
    """
    return global_batch * (4 + 4 * width)


def sums_by_id(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the values of equal ids, in the order in which they occur.

    All shapes are those of the arguments, so a GPU need not be waited for, and the order of the sums is fixed, so all
    ranks get the same bits.

    Args:
        ids: int [batch].
        values: [batch, width].

    Returns:
        The ids in ascending order, [batch], and for each of them the sum of all values with this id, [batch, width].
    """
    ids, order = ids.sort(stable=True)
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts[1:] = ids[1:] != ids[:-1]
    segment = starts.cumsum(0) - 1  # [batch]: the index of the id among the different ids
    values = values[order]
    if values.device.type == "mps":  # it has no segment_reduce, and only one rank
        sums = torch.zeros_like(values).index_add_(0, segment, values)
    else:
        # as many segments as rows; those at the end are empty
        lengths = torch.zeros_like(segment).scatter_add_(0, segment, torch.ones_like(segment))
        # unsafe: the check that the lengths fit would wait for the device
        sums = torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True, initial=0)
    return ids, sums[segment]


def _all_gather(x: Tensor) -> Tensor:
    if not dist.is_initialized():
        return x
    gathered = x.new_empty(dist.get_world_size() * x.shape[0], *x.shape[1:])
    dist.all_gather_into_tensor(gathered, x.contiguous())
    return gathered
