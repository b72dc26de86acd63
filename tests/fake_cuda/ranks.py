"""Two ranks on fake CUDA devices in one process: the other rank always has what this one has.

The functions of torch.distributed are replaced. As in NCCL, a tensor in the memory of the host is an error. So is an
object that is sent during a training step, because it is copied to the device, and its size is read on every host.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from tests.fake_cuda.device import CudaTensor, FakeCuda

COUNT = 2
_UNUSED = (
    "all_gather", "all_gather_object", "all_to_all", "all_to_all_single", "irecv", "isend", "monitored_barrier", "recv",
    "reduce", "reduce_scatter", "reduce_scatter_tensor", "scatter", "scatter_object_list", "send",
)  # fmt: skip


class HostCollective(AssertionError):
    """A collective that NCCL refuses or that would wait for the device."""


class _Work:
    def wait(self) -> None:
        """The result is there already."""


class _Collectives:
    """The functions of torch.distributed that the program uses; `sent` counts their calls by name."""

    def __init__(self, device: FakeCuda):
        self._device = device
        self.sent: dict[str, int] = {}

    def is_initialized(self) -> bool:
        return True

    def get_rank(self) -> int:
        return 0

    def get_world_size(self) -> int:
        return COUNT

    def barrier(self) -> None:
        self._tensors("barrier")

    def all_reduce(self, tensor: Tensor, op: Any = dist.ReduceOp.SUM, async_op: bool = False) -> _Work:
        self._tensors("all_reduce", tensor)
        if op == dist.ReduceOp.SUM:
            tensor.mul_(COUNT)
        return _Work()

    def all_gather_into_tensor(self, output: Tensor, tensor: Tensor) -> None:
        self._tensors("all_gather_into_tensor", output, tensor)
        output.copy_(torch.cat([tensor] * COUNT))

    def broadcast(self, tensor: Tensor, src: int) -> None:
        self._tensors("broadcast", tensor)

    def gather(self, tensor: Tensor, parts: list[Tensor], dst: int) -> None:
        self._tensors("gather", tensor, *parts)
        for part in parts:
            part.copy_(tensor)

    def broadcast_object_list(self, objects: list[Any], src: int) -> None:
        self._objects("broadcast_object_list")

    def gather_object(self, value: Any, collected: list[Any], dst: int, group: Any = None) -> None:
        self._objects("gather_object")
        collected[:] = [value] * COUNT

    def _tensors(self, name: str, *tensors: Tensor) -> None:
        if not all(isinstance(x, CudaTensor) for x in tensors):
            raise HostCollective(f"{name} of a tensor in the memory of the host")
        self.sent[name] = self.sent.get(name, 0) + 1

    def _objects(self, name: str) -> None:
        self._device.wait(f"{name} of an object")
        self.sent[name] = self.sent.get(name, 0) + 1


class _Store:
    """The store through which barriers go: all ranks have arrived already."""

    def add(self, key: str, amount: int) -> int:
        return COUNT

    def check(self, keys: list[str]) -> bool:
        return True

    def set(self, key: str, value: str) -> None: ...

    def delete_key(self, key: str) -> bool:
        return True


@contextmanager
def two_ranks(device: FakeCuda) -> Iterator[dict[str, int]]:
    """Within the block this process is rank 0 of two. Yields how often each collective is called."""
    collectives = _Collectives(device)
    used = [name for name in dir(collectives) if not name.startswith("_") and name != "sent"]
    replaced: dict[str, Any] = {name: getattr(collectives, name) for name in used} | {
        name: _refused(name) for name in _UNUSED
    }
    store = "torch.distributed.distributed_c10d._get_default_store"
    with patch.multiple(dist, **replaced), patch(store, _Store):
        yield collectives.sent


def _refused(name: str) -> Callable[..., None]:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{name}: imitate it in {__name__} first")

    return refuse
