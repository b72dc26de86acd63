"""A CUDA device without one: tensors that say they are on it, compute on the CPU, and refuse what a GPU would refuse.

Within `fake_cuda()`, `x.to("cuda")` and `torch.zeros(..., device="cuda")` give a `CudaTensor`. Each operator on one
runs twice: on fake CUDA tensors without values (torch's `FakeTensorMode`), where torch itself raises if devices mix,
and on the CPU for the values. So a program takes its branches for CUDA, and its results can be compared with those of a
CPU.

What makes the host wait for the device is noted with the place in the program: a value that the host reads, a shape
that depends on values, and a copy to or from memory that is not pinned. In `FakeCuda.step()` it is an error.

A plain fake tensor cannot take its place: without a GPU, the backward pass of a torch that was built for CUDA asks the
driver about the device of such tensors and fails.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._foreach_utils import _group_tensors_by_device_and_dtype
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

ROOT = Path(__file__).resolve().parents[2]
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
_HELPERS = ("_compile.py", "_dynamo")  # frames of torch between an operator and whoever called it
aten = torch.ops.aten


class HostWaits(AssertionError):
    """The host waits for the device where it must not."""


class DevicesMix(AssertionError):
    """An operator got tensors, or a generator, of the host and of the device."""


class CudaTensor(torch.Tensor):
    """A tensor that says it is on a CUDA device; its values are in ordinary memory."""

    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a tensor of fake_cuda(), outside of it")

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return True

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        copy = kwargs.pop("copy", False)  # which the parser does not know
        device, dtype, _, memory_format = _parse_to(*args, **kwargs)
        if device is not None and device.type != "cuda":
            _current().wait("a copy to the host")
            return values_of(self).to(device, dtype or self.dtype, copy=True)
        options = {} if memory_format is None else {"memory_format": memory_format}
        return super().to(dtype or self.dtype, copy=copy, **options)

    def cpu(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.to(CPU)

    def cuda(self, *args: Any, **kwargs: Any) -> Tensor:
        return self

    def tolist(self) -> Any:
        _current().wait("tolist")
        return values_of(self).tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise DevicesMix(f"{_place()}: NumPy cannot read a tensor of the device")


def values_of(x: Tensor) -> Tensor:
    """The values of a tensor as one of the CPU, which shares its memory. Does not count as a read."""
    with _plain_torch():
        return torch.Tensor._make_subclass(torch.Tensor, x.detach())


class FakeCuda(TorchDispatchMode):
    """The device, within `fake_cuda()`.

    Attributes:
        waits: how often the host waited for the device, by the place in the program.
        operators: how many operators ran on the device.
    """

    def __init__(self, fake: FakeTensorMode):
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.operators = 0
        self._fake = fake
        self._in_step = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within the block the host must not wait for the device (`HostWaits`)."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    def wait(self, why: str) -> None:
        """The host waits for the device."""
        if self._in_step:
            raise HostWaits(f"{_place()}: {why}")
        self.waits[_place()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func not in _whole:  # otherwise autograd has taken operators apart
            with self:
                results = func.decompose(*args, **kwargs)
            if results is not NotImplemented:
                return results
            _whole.add(func)
        given = [x for x in _leaves((*args, *kwargs.values())) if isinstance(x, Tensor)]
        if func in (aten._pin_memory.default, aten.pin_memory.default):
            with _plain_torch():
                return torch.Tensor._make_subclass(_Pinned, args[0].clone())
        device = kwargs.get("device")
        made_there = not given and (_is_cuda(device) or _called_by_backward())
        if not made_there and not _is_cuda(device) and not any(isinstance(x, CudaTensor) for x in given):
            with _plain_torch():
                return func(*args, **kwargs)
        self.operators += 1
        self._check(func, args, kwargs, given)
        if device is not None:
            kwargs = {**kwargs, "device": CPU}
        with _plain_torch():
            results = func(*args, **kwargs)
            if isinstance(results, list | tuple):
                return type(results)(_on_device(x, given) for x in results)
            return _on_device(results, given)

    def _check(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> None:
        """Raise if the device would; note whether the host would wait for it."""
        if kwargs.get("generator") is not None:
            raise DevicesMix(f"{_place()}: {func} on the device draws from a generator of the CPU")
        if func in _INDEXING and not isinstance(args[0], CudaTensor):
            raise DevicesMix(f"{_place()}: a tensor of the CPU is indexed by one of the device")  # torch's fake does it
        call = func, _seen(args), _seen(tuple(kwargs.items()))
        if call not in _accepted:
            with torch._C._DisableTorchDispatch():
                fake_args, fake_kwargs = tree_map_only(Tensor, self._without_values, (args, kwargs))
            try:
                with self._fake:
                    func(*fake_args, **fake_kwargs)
                _accepted.add(call)
            except (DataDependentOutputException, DynamicOutputShapeException):
                self.wait(f"{func} depends on values")
            except RuntimeError as error:
                # the words of torch 2.15, and of 2.11
                if not any(words in str(error) for words in ("on the same device", "two different devices")):
                    raise
                raise DevicesMix(f"{_place()}: {func}: {error}") from None
        # What is left is a copy, or an index that torch copies to the device. Scalars travel with the launch.
        on_host = [x for x in given if not isinstance(x, CudaTensor) and (x.ndim or func in _COPIES)]
        if on_host and not (kwargs.get("non_blocking") and all(isinstance(x, _Pinned) for x in on_host)):
            self.wait(f"{func} copies from or to memory that is not pinned, or waits for the copy")

    def _without_values(self, x: Tensor) -> FakeTensor:
        with unset_fake_temporarily():
            meta = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        return FakeTensor(self._fake, meta, CUDA if isinstance(x, CudaTensor) else CPU)


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """Within the block there is a CUDA device, `CUDA`. Tensors on it must not be used afterwards."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    # so that Module.to replaces the parameters; otherwise it replaces what they hold, and they would stay on the CPU
    torch.__future__.set_swap_module_params_on_conversion(True)
    fake = FakeTensorMode()
    device = FakeCuda(fake)
    _devices.append(device)
    try:
        # FakeTensorMode also keeps torch from looking for a driver
        with fake, device, patch("torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype", _grouped):
            yield device
    finally:
        _devices.pop()
        torch.__future__.set_swap_module_params_on_conversion(before)


_parse_to: Any = torch._C._nn._parse_to  # pyright: ignore[reportAttributeAccessIssue]
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_COPIES = (aten._to_copy.default, aten.copy_.default)
_devices: list[FakeCuda] = []
# The calls that torch has accepted on fake tensors, so that it is asked once about the same call.
_accepted: set[Any] = set()
_whole: set[Any] = set()  # operators that do not consist of others


class _Pinned(torch.Tensor):
    """Pinned memory of the host, from which a copy to the device need not be waited for."""

    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl


def _current() -> FakeCuda:
    return _devices[-1]


@contextmanager
def _plain_torch() -> Iterator[None]:
    """Operators run on the CPU, whatever the class of the tensors."""
    with unset_fake_temporarily(), torch._C._DisableTorchDispatch():
        yield


def _grouped(lists: Any, *args: Any) -> Any:
    """torch's function, which is written in C++ and sees the device of the values."""
    groups: dict[Any, Any] = _group_tensors_by_device_and_dtype(lists, *args)
    return {(found[0][0].device, dtype): (found, index) for (_, dtype), (found, index) in groups.items()}


def _leaves(arguments: Any) -> Iterator[Any]:
    """The arguments of an operator, whose lists are flat. Much faster than torch's function for trees."""
    for x in arguments:
        if isinstance(x, list | tuple):
            yield from x
        else:
            yield x


def _seen(x: Any) -> Any:
    """What torch sees of an argument of an operator when it runs on fake tensors."""
    if isinstance(x, Tensor):
        return isinstance(x, CudaTensor), x.dtype, x.shape, x.stride()
    return tuple(map(_seen, x)) if isinstance(x, list | tuple) else (type(x), x)


def _is_cuda(device: torch.device | None) -> bool:
    return device is not None and device.type == "cuda"


def _on_device(x: Any, given: list[Tensor]) -> Any:
    """A result of an operator on the device; a tensor that it has written to stays what it was."""
    if not isinstance(x, Tensor) or any(x is other for other in given):
        return x
    return torch.Tensor._make_subclass(CudaTensor, x)


def _called_by_backward() -> bool:
    """Whether the C++ code of the backward pass asks for a tensor; it sees the device of the values, the CPU."""
    frame = sys._getframe(2)
    while frame.f_back is not None and any(name in frame.f_code.co_filename for name in _HELPERS):
        frame = frame.f_back
    return frame.f_code.co_name == "_engine_run_backward"


def _place() -> str:
    """`file: function` of the innermost frame that belongs to the program."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        here = file.parent == Path(__file__).parent and not file.name.startswith("test_")
        if file.is_relative_to(ROOT) and ".venv" not in file.parts and not here:
            return f"{file.relative_to(ROOT)}: {frame.f_code.co_qualname.split('.<')[0]}"
        frame = frame.f_back
    return "torch"
