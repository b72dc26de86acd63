"""Helpers for torch.distributed under torchrun. With a single process, all collectives here leave values unchanged."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import UserError
from utils.machine import to_device
from utils.rank_store import RankStore, meet
from utils.stop_signals import Interrupted

T = TypeVar("T")

# How long a rank waits for the others in a collective. Where one may work alone, as rank 0 does when it builds data or
# counts votes, the others wait in `barrier` instead.
COLLECTIVE = timedelta(minutes=10)


_left_open: list[RankStore] = []  # that of the process group which an error has left open, or none


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, the number of processes, and its rank on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print on rank 0 only."""
        if self.is_main:
            print(text, flush=True)


def launched_ranks() -> Ranks:
    """The ranks given by the environment of the launcher (torchrun sets RANK, WORLD_SIZE and LOCAL_RANK).

    Raises:
        UserError: WORLD_SIZE is larger than 1, but RANK is not set.
    """
    rank, world_size, local_rank = (int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if world_size > 1 and "RANK" not in os.environ:
        raise UserError(
            f"WORLD_SIZE={world_size}, but no RANK: start with torchrun, or unset WORLD_SIZE for one process."
        )
    return Ranks(rank, max(1, world_size), local_rank)


@contextmanager
def process_group(ranks: Ranks, device: torch.device) -> Iterator[RankStore | None]:
    """Open the default process group for a block: NCCL on CUDA, gloo elsewhere. Without a launcher it does nothing.

    A block that an error ends leaves the group open, and the next block of this process goes on with it: a run that
    goes back after a divergence, or the next job of a sweep.

    Yields:
        The store through which the ranks have met; None without a launcher, or inside another such block.

    Raises:
        UserError: some of the ranks do not start.
    """
    store = _left_open.pop() if _left_open else None
    if store is None and "RANK" in os.environ and not dist.is_initialized():
        store = meet(ranks.rank, ranks.world_size)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store.for_collectives(),
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=COLLECTIVE,
            device_id=device if device.type == "cuda" else None,
        )
    try:
        yield store
    except BaseException:
        # Not closed: other ranks may be blocked in a collective until the launcher sees this rank exit and kills them.
        if store is not None:
            _left_open.append(store)
        raise
    if store is not None:
        barrier()  # the launcher ends all ranks as soon as one has ended with an error, or because it was stopped
        dist.destroy_process_group()
        store.leave(ranks.rank, ranks.world_size)


def barrier() -> None:
    """Wait for all ranks, however long one of them works alone."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    # Through the store, because a collective that waits for hours would also wait for hours for a rank that hangs.
    store = dist.distributed_c10d._get_default_store()
    number = store.add(f"barriers/of/{dist.get_rank()}", 1)
    passed = f"barriers/{number}/passed"
    if store.add(f"barriers/{number}/arrived", 1) == dist.get_world_size():
        store.set(passed, "")
        store.delete_key(f"barriers/{number - 1}/arrived")
        store.delete_key(f"barriers/{number - 1}/passed")
    pause = 0.001
    while not store.check([passed]):  # asking again and again leaves the store to other threads in between
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def broadcast_object(value: T) -> T:
    """The `value` of rank 0, on every rank. They wait for rank 0 as in `barrier`."""
    if not dist.is_initialized():
        return value
    barrier()
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def errors_of_rank_0() -> Iterator[None]:
    """Raise a `UserError` of rank 0 in the block on every rank, for checks made on rank 0 only. Collective."""
    own = None
    try:
        yield
    except UserError as error:
        own = error
    error = broadcast_object(own) or own
    if error is not None:
        raise error


def broadcast_module(module: nn.Module) -> None:
    """Copy the parameters and buffers of rank 0 to every rank."""
    if dist.is_initialized():
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor, src=0)


class GradientSum:
    """Sums gradients over all ranks in buckets, sending each bucket while the backward pass computes the next.

    The gradient of a parameter is final once the backward pass has gone through the parameter's first use in the
    forward pass. So communication overlaps with computation only for parameters that are first used late: the heads,
    and the H level of HRM during the backward pass of its L level. The level of TRM is used in every cycle, so its
    gradients become final only in the last few layers of the backward pass. There the sum for one layer overlaps with
    the backward pass of the layer below it, and with nothing else.

    Parameters are assigned to buckets in the order in which their gradients become final on rank 0 in the first
    backward pass; in that pass all buckets are sent at the end. Every rank sends the buckets in the same order,
    whatever the order in which they fill. All ranks must have gradients for the same parameters.

    Args:
        parameters: the trained parameters.
        bucket_bytes: size in bytes at which a bucket is full.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], bucket_bytes: int = 2**23):
        self._parameters, self._bucket_bytes = list(parameters), bucket_bytes
        self._buckets: list[list[nn.Parameter]] | None = None  # unknown before the first backward pass
        # state of the current backward pass
        self._final: dict[nn.Parameter, None] = {}  # parameters whose gradients are final, in order
        self._unsent: list[list[nn.Parameter]] = []  # buckets still to be sent
        self._sent: list[tuple[dist.Work, Tensor, list[Tensor]]] = []  # (pending all-reduce, its tensor, the gradients)

    @contextmanager
    def over_ranks(self) -> Iterator[None]:
        """Wrap the last backward pass of a step; after the block, gradients are sums over all ranks. Collective."""
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
        while self._unsent:  # all buckets in the first step; later, those in which a parameter has no gradient
            self._send()
        for work, total, gradients in self._sent:
            work.wait()
            parts = total.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])
        self._sent.clear()

    def _is_final(self, parameter: Tensor) -> None:
        """Hook called in the backward pass, once for each parameter that has a gradient."""
        assert isinstance(parameter, nn.Parameter)
        self._final[parameter] = None
        while self._unsent and self._final.keys() >= set(self._unsent[0]):
            self._send()

    def _send(self) -> None:
        """Start the all-reduce of the next bucket."""
        gradients = [p.grad for p in self._unsent.pop(0) if p.grad is not None]
        if gradients:
            total = torch.cat([gradient.flatten() for gradient in gradients])
            work = dist.all_reduce(total, async_op=True)
            assert work is not None
            self._sent.append((work, total, gradients))

    def _make_buckets(self) -> list[list[nn.Parameter]]:
        number = {parameter: index for index, parameter in enumerate(self._parameters)}
        # the only value that is read in a step, in the first one; a tensor, because an object would take several reads
        order = torch.tensor([number[p] for p in dict.fromkeys([*self._final, *self._parameters])])
        order = to_device(order, self._parameters[0].device)
        dist.broadcast(order, src=0)
        buckets: list[list[nn.Parameter]] = [[]]
        size = 0
        for parameter in (self._parameters[index] for index in order.tolist()):
            if size >= self._bucket_bytes:
                buckets.append([])
                size = 0
            buckets[-1].append(parameter)
            size += parameter.numel() * parameter.element_size()
        return buckets


class SummedScalars:
    """Named scalars summed over all ranks, in fp64 (fp32 on Apple GPUs): one all-reduce and, later, one read."""

    def __init__(self, values: dict[str, Tensor]):
        self._names = list(values)
        device = next(iter(values.values())).device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.stack([value.detach().to(dtype) for value in values.values()])
        if dist.is_initialized():
            dist.all_reduce(self._sums)

    def read(self) -> dict[str, float]:
        """The sums by name. Waits until the device has computed them."""
        return dict(zip(self._names, self._sums.tolist(), strict=True))


def sum_over_ranks(values: dict[str, Tensor]) -> dict[str, float]:
    """Named scalars summed over all ranks."""
    return SummedScalars(values).read() if values else {}


def summed_over_ranks(tensor: Tensor) -> tuple[Tensor, int]:
    """(sum of `tensor` over all ranks, detached; number of ranks). Collective."""
    total = tensor.detach()
    if not dist.is_initialized():
        return total, 1
    total = total.clone()
    dist.all_reduce(total)
    return total, dist.get_world_size()


def largest_over_ranks(value: float, device: torch.device) -> float:
    """The maximum of `value` over all ranks. Collective."""
    if not dist.is_initialized():
        return value
    largest = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return float(largest)


def break_off_together(interrupted: bool, device: torch.device) -> None:
    """Wait for all ranks, for longer than a collective may take. Collective.

    Raises:
        Interrupted: any rank says that it was interrupted; raised on all of them.
    """
    barrier()
    if largest_over_ranks(float(interrupted), device):
        raise Interrupted


def gather_rows(tensor: Tensor) -> Tensor | None:
    """The [rows, ...] tensors of all ranks, concatenated along the first axis without change of a bit. Collective.

    Returns:
        On rank 0 the rows of all ranks, on the CPU; None on the other ranks, which receive nothing.
    """
    if not dist.is_initialized():
        return tensor.cpu()
    # as bytes, because some backends do not support every dtype
    mine = tensor.contiguous().view(len(tensor), -1).view(torch.uint8)
    if dist.get_rank() != 0:
        dist.gather(mine, dst=0)
        return None
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.gather(mine, parts, dst=0)
    whole = torch.cat([part.cpu() for part in parts])
    return whole.view(tensor.dtype).view(-1, *tensor.shape[1:])
