"""torch.distributed as torchrun starts it; with a single process every function here is the identity."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Which process this is."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print on rank 0 alone."""
        if self.is_main:
            print(text, flush=True)


def launched_ranks() -> Ranks:
    """What the launcher's environment says (torchrun: RANK, WORLD_SIZE, LOCAL_RANK).

    Raises:
        UserError: it says that there are several processes, but not which one this is.
    """
    rank, world_size, local_rank = (int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if world_size > 1 and "RANK" not in os.environ:
        raise UserError(
            f"WORLD_SIZE={world_size}, but no RANK: start with torchrun, or unset WORLD_SIZE for one process."
        )
    return Ranks(rank, max(1, world_size), local_rank)


@contextmanager
def process_group(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """The default process group while the block runs, NCCL on CUDA and gloo elsewhere; none for a single process."""
    started_here = "RANK" in os.environ and not dist.is_initialized()
    if started_here:
        backend = "nccl" if device.type == "cuda" else "gloo"
        # rank 0 may build a data set while the others wait
        dist.init_process_group(
            backend,
            timeout=timedelta(hours=2),
            device_id=device if device.type == "cuda" else None,
        )
    yield
    # Not after an error: the other ranks may wait in a collective until the launcher, seeing this one end, ends them.
    if started_here:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def broadcast_object(value: T) -> T:
    """Rank 0's `value`, on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def errors_of_rank_0() -> Iterator[None]:
    """Let a `UserError` that rank 0 meets in the block end every rank, where only rank 0 looks. Collective."""
    own = None
    try:
        yield
    except UserError as error:
        own = error
    error = broadcast_object(own) or own
    if error is not None:
        raise error


def broadcast_module(module: nn.Module) -> None:
    """Rank 0's parameters and buffers, on every rank."""
    if dist.is_initialized():
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor, src=0)


class GradientSum:
    """Sums the gradients of parameters over all ranks, in buckets, each sent while the backward pass makes the next.

    A parameter's gradient is final when the backward pass has gone through its first use in the forward pass. So what
    overlaps is what is used late only: the heads, and HRM's H level, during the backward pass of its L level. The level
    of a TRM, used again and again, is final in the last few layers of the backward pass alone: there the sum of one
    layer overlaps with the backward pass of the layer below it, and no more.

    Which parameters share a bucket follows from the order in which their gradients became final in the first backward
    pass, on rank 0, whose buckets are all sent at its end. Buckets are sent in one order on every rank, whatever
    the order in which they are filled there. All ranks must have gradients of the same parameters.

    Args:
        parameters: those that are trained.
        bucket_bytes: a bucket is full when it has this size.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], bucket_bytes: int = 2**23):
        self._parameters, self._bucket_bytes = list(parameters), bucket_bytes
        self._buckets: list[list[nn.Parameter]] | None = None  # unknown before the first backward pass
        # of the backward pass that runs
        self._final: dict[nn.Parameter, None] = {}  # parameters whose gradient is final, in order
        self._unsent: list[list[nn.Parameter]] = []  # buckets
        self._sent: list[tuple[dist.Work, Tensor, list[Tensor]]] = []  # (the sum at work, its tensor, the gradients)

    @contextmanager
    def over_ranks(self) -> Iterator[None]:
        """Around the last backward pass of a step; behind it the gradients are the sums over all ranks. Collective."""
        if not self._parameters or not dist.is_initialized() or dist.get_world_size() == 1:
            yield
            return
        self._final, self._unsent = {}, list(self._buckets or [])
        hooks = [p.register_post_accumulate_grad_hook(self._is_final) for p in self._parameters]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if self._buckets is None:
            self._buckets = self._make_buckets()
            self._unsent = list(self._buckets)
        while self._unsent:  # all of the first step, and those with a parameter that has no gradient this time
            self._send()
        for work, total, gradients in self._sent:
            work.wait()
            parts = total.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])
        self._sent.clear()

    def _is_final(self, parameter: Tensor) -> None:
        """Called in the backward pass, once for each parameter that has a gradient."""
        assert isinstance(parameter, nn.Parameter)
        self._final[parameter] = None
        while self._unsent and self._final.keys() >= set(self._unsent[0]):
            self._send()

    def _send(self) -> None:
        """Begin to sum the next bucket."""
        gradients = [p.grad for p in self._unsent.pop(0) if p.grad is not None]
        if gradients:
            total = torch.cat([gradient.flatten() for gradient in gradients])
            work = dist.all_reduce(total, async_op=True)
            assert work is not None
            self._sent.append((work, total, gradients))

    def _make_buckets(self) -> list[list[nn.Parameter]]:
        number = {parameter: index for index, parameter in enumerate(self._parameters)}
        order = broadcast_object([number[p] for p in dict.fromkeys([*self._final, *self._parameters])])
        buckets: list[list[nn.Parameter]] = [[]]
        size = 0
        for parameter in (self._parameters[index] for index in order):
            if size >= self._bucket_bytes:
                buckets.append([])
                size = 0
            buckets[-1].append(parameter)
            size += parameter.numel() * parameter.element_size()
        return buckets


class SummedScalars:
    """Named scalars summed over all ranks, in fp64 (fp32 on Apple GPUs), in one all-reduce and, later, one read."""

    def __init__(self, values: dict[str, Tensor]):
        self._names = list(values)
        device = next(iter(values.values())).device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.stack([value.detach().to(dtype) for value in values.values()])
        if dist.is_initialized():
            dist.all_reduce(self._sums)

    def read(self) -> dict[str, float]:
        """The sums. Waits until the device has computed them."""
        return dict(zip(self._names, self._sums.tolist(), strict=True))


def sum_over_ranks(values: dict[str, Tensor]) -> dict[str, float]:
    """Named scalars summed over all ranks."""
    return SummedScalars(values).read() if values else {}


def summed_over_ranks(tensor: Tensor) -> tuple[Tensor, int]:
    """(the sum over all ranks of a tensor that each has, without gradient; the number of ranks)."""
    total = tensor.detach()
    if not dist.is_initialized():
        return total, 1
    total = total.clone()
    dist.all_reduce(total)
    return total, dist.get_world_size()


def largest_over_ranks(value: float, device: torch.device) -> float:
    """The largest of the ranks' numbers."""
    if not dist.is_initialized():
        return value
    largest = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return float(largest)


def gather_rows(tensor: Tensor) -> Tensor:
    """Concatenate the ranks' [rows, ...] tensors along the first axis, bit by bit, on every rank."""
    if not dist.is_initialized():
        return tensor
    # as bytes, because not every backend moves every dtype
    mine = tensor.contiguous().view(len(tensor), -1).view(torch.uint8)
    whole = mine.new_empty(dist.get_world_size() * mine.shape[0], mine.shape[1])
    dist.all_gather_into_tensor(whole, mine)
    return whole.view(tensor.dtype).view(-1, *tensor.shape[1:])
