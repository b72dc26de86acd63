"""Every Triton kernel, launched on a CUDA device that is not there: compiled to machine code for a GPU, and not run.

The assembler comes with Triton, so neither a GPU nor a driver is needed.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from models.layers import SwiGLU, cast_once
from tests.fake_cuda.device import CUDA, fake_cuda
from utils.optimizers import AdamATan2

TRITON = importlib.util.find_spec("triton") is not None
pytestmark = [pytest.mark.thorough, pytest.mark.skipif(not TRITON, reason="there is no Triton")]
H100_PROCESSORS = 132


class _Driver:
    """What Triton asks of the driver before it compiles."""

    def __init__(self, capability: int):
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget("cuda", capability, 32)
        self._device = capability  # kernels are kept by device

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return CUDA


@contextmanager
def compiled_for(capability: int) -> Iterator[dict[str, bytes]]:
    """Within the block a launch compiles the kernel and does not run it. Yields kernel -> machine code."""
    from triton import knobs
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from models.fused.gpu import adam_atan2, tiles

    code: dict[str, bytes] = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, **options: Any) -> Any:
        kernel: Any = run(self, *args, **(options | {"warmup": True}))
        code[f"{self.fn.__module__.split('.')[-1]}.{self.fn.__name__}"] = kernel.asm["cubin"]
        return kernel

    properties = SimpleNamespace(multi_processor_count=H100_PROCESSORS)
    try:
        with (
            patch.object(type(driver), "active", _Driver(capability)),
            patch.object(JITFunction, "run", compile_only),
            patch("torch.cuda.get_device_properties", return_value=properties),
            # the default of today, which Triton 3.10 changes
            patch.dict(os.environ, {"TRITON_DEFAULT_FP_FUSION": "1"}),
            knobs.compilation.scope(),
        ):
            knobs.compilation.always_compile = True
            yield code
    finally:
        tiles.processors.cache_clear()
        adam_atan2._pieces.cache_clear()


def kernels(*names: str) -> set[str]:
    """The kernels of some modules of models/fused/gpu."""
    from triton.runtime.jit import JITFunction

    found = set()
    for name in names:
        module = importlib.import_module(f"models.fused.gpu.{name}")
        own = {key: x for key, x in vars(module).items() if isinstance(x, JITFunction)}
        found |= {f"{name}.{key}" for key, x in own.items() if x.fn.__module__ == module.__name__}
    return found


@pytest.mark.parametrize("over_positions", [False, True])
def test_swiglu_for_hopper(over_positions: bool):
    from models.fused.gpu.layers import GPUSwiGLU

    with fake_cuda() as device, compiled_for(90) as code:
        # the sizes of the published TRM: 81 cells and 16 positions of the puzzle embedding
        plain = SwiGLU(97, 4, over_positions=True) if over_positions else SwiGLU(512, 4)
        layer = GPUSwiGLU(plain.to(CUDA))
        x = torch.zeros(2, 97, 512, dtype=torch.bfloat16, device=CUDA, requires_grad=True)
        with device.step(), cast_once(layer, torch.bfloat16):
            y = layer.sublayer(x, 1e-5)
            y.float().sum().backward()
            assert y.shape == x.shape
            assert x.grad is not None
            assert x.grad.dtype == torch.bfloat16
            assert all(p.grad is not None and p.grad.shape == p.shape for p in plain.parameters())
            with torch.no_grad():
                layer.sublayer(x, 1e-5)
    assert code.keys() == kernels("positions_kernels" if over_positions else "rows_kernels")
    assert all(machine_code.startswith(b"\x7fELF") for machine_code in code.values())


@pytest.mark.parametrize("capability", [80, 89, 90])
def test_the_optimizer_for_every_gpu_that_uses_it(capability: int):
    from models.fused.gpu.adam_atan2 import adam_atan2

    with fake_cuda() as device, compiled_for(capability) as code:
        parameters = [torch.nn.Parameter(torch.ones(n, device=CUDA)) for n in (5000, 3)]
        averages: dict[Tensor, Tensor] = {parameters[0]: torch.ones(5000, device=CUDA)}
        optimizer = AdamATan2(parameters)
        optimizer.update_in_one_pass(averages, 0.9, adam_atan2)
        for _ in range(2):
            torch.cat([*parameters]).square().sum().backward()
            optimizer.step()
            device.waits.clear()  # the first step copies the sizes of the parameters
        with device.step():
            optimizer.step()
    assert code.keys() == kernels("adam_atan2") == {"adam_atan2._kernel"}
    assert code["adam_atan2._kernel"].startswith(b"\x7fELF")


def test_a_kernel_that_cannot_be_generated_fails():
    import triton
    import triton.language as tl

    from models.fused.gpu import swiglu_rows

    @triton.jit
    def broken(x, gate_up, h, kept, rows, WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
               COLUMNS: tl.constexpr, DEPTH: tl.constexpr, APPROXIMATE: tl.constexpr, KEEP: tl.constexpr,
               FLATTEN: tl.constexpr):  # fmt: skip
        h.store([0, 0], tl.zeros([ROWS, COLUMNS + 1], tl.float32))

    with (
        fake_cuda(),
        compiled_for(90),
        patch.object(swiglu_rows.rows_kernels, "forward", broken),
        pytest.raises(triton.CompilationError),
    ):
        swiglu_rows._product(*(torch.zeros(512, 512, dtype=torch.bfloat16, device=CUDA) for _ in range(2)), True)
