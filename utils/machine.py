"""The choice of device, dtype and compilation for a run, in one place, each with a reason to print."""

import ctypes
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from utils.errors import UserError
from utils.numerics import MatmulPrecision, set_numerics

DeviceName = Literal["auto", "cuda", "mps", "cpu"]

# for torch.compile: use fused multiply-add on the CPU, as GPUs do
COMPILE_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"cpp.enable_floating_point_contract_flag": "fast"}

NO_CPP_COMPILER = "there is no C++ compiler (g++, or what CXX names)"

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h

# Compiling takes 15 to 50 s on a CPU, evaluations included, and saves a fifth of the time or more, so it pays off for
# runs of several minutes: at 0.1 TFLOP/s in fp32, at up to 1 TFLOP/s in bf16.
_WORK_WORTH_COMPILING = {"float32": 3e13, "bfloat16": 1e14, "float16": 1e14}


@dataclass(frozen=True)
class Machine:
    """The device, dtype and compilation setting of a run, as chosen by `choose_machine`."""

    device: torch.device
    device_reason: str
    dtype: str  # of the recursion: bfloat16, float32 or float16
    dtype_reason: str
    compile: bool | Literal["auto"]  # as configured; `choose_compile` decides once the length of the run is known
    numerics: str | None = None  # what `set_numerics` has set

    def __str__(self) -> str:
        chosen = f"device: {self.device} ({self.device_reason}); dtype: {self.dtype} ({self.dtype_reason})"
        return chosen if self.numerics is None else f"{chosen}\n{self.numerics}"

    def choose_compile(self, work: float = 0) -> tuple[bool, str]:
        """(whether to compile, reason), for a run of `work` floating-point operations; see `choose_compile`."""
        return choose_compile(self.compile, self.device, work, self.dtype)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`, without waiting for what a GPU is computing, as copying ordinary host memory may do."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def choose_machine(
    device: DeviceName,
    dtype: str,
    compile: bool | Literal["auto"] = "auto",
    local_rank: int = 0,
    matmul_precision: MatmulPrecision = "highest",
    deterministic: bool = False,
) -> Machine:
    """Choose the machine for a configuration, and set torch's global switches for it.

    Args:
        device: `auto` takes the first available of cuda, mps and cpu.
        dtype: of the recursion; `auto` takes bfloat16 where the device computes it fast, else float32.
        compile: whether to compile; `auto` compiles where it pays off.
        local_rank: rank of this process on its machine; each process uses its own GPU.
        matmul_precision, deterministic: see `utils.numerics.set_numerics`.

    Raises:
        UserError: the requested device is not available.
    """
    chosen, device_reason = choose_device(device, local_rank)
    numerics = set_numerics(chosen, matmul_precision, deterministic)
    return Machine(chosen, device_reason, *choose_dtype(dtype, chosen), compile, numerics)


def choose_device(wanted: DeviceName, local_rank: int = 0) -> tuple[torch.device, str]:
    """(device, reason). `auto` takes the first available of cuda, mps and cpu.

    Raises:
        UserError: the requested device is not available.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    available = [name for name, present in (("cuda", cuda), ("mps", mps), ("cpu", True)) if present]
    if wanted != "auto" and wanted not in available:
        why = "this torch finds no CUDA device" if wanted == "cuda" else "this torch finds no Apple GPU"
        raise UserError(f"device={wanted}, but {why}. Here there is: {', '.join(available)}; or use device=auto.")
    name = available[0] if wanted == "auto" else wanted
    auto_reason = f"the first of {', '.join(available)}" if len(available) > 1 else "there is no other"
    reason = "as asked" if wanted != "auto" else auto_reason
    if name != "cuda":
        return torch.device(name), reason
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}. "
            "Lower torchrun's --nproc-per-node."
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device, f"{reason}: {torch.cuda.get_device_name(device)}"


def choose_dtype(wanted: str, device: torch.device) -> tuple[str, str]:
    """(forward dtype, reason). `auto` takes bfloat16 where the hardware supports it, else float32."""
    native = _has_bfloat16(device)
    if wanted == "auto":
        return ("bfloat16", "this device computes in it") if native else ("float32", "no fast bfloat16 here")
    if wanted == "bfloat16" and not native:
        return wanted, "as configured, but slow on this device: arch.forward_dtype=auto would take float32"
    return wanted, "as configured"


def choose_compile(
    setting: bool | Literal["auto"], device: torch.device, work: float = 0, dtype: str = "bfloat16"
) -> tuple[bool, str]:
    """(whether to compile, reason).

    `auto` compiles on CUDA if Triton is installed, and on a CPU with a C++ compiler for runs long enough to pay off,
    unless DISABLE_COMPILE is set (as in the published code).

    Args:
        setting: as configured.
        device: where the run computes.
        work: planned floating-point operations of the whole run, so that a resumed run makes the same choice.
        dtype: in which most of them are.
    """
    refusal = compiling_refused(setting)
    if refusal is not None:
        return False, refusal
    if setting is True:
        return True, "as configured"
    if device.type == "cuda":
        has_triton = importlib.util.find_spec("triton") is not None
        return has_triton, "on CUDA" if has_triton else "there is no Triton"
    if device.type == "cpu" and work >= _WORK_WORTH_COMPILING[dtype]:
        return (True, "a long run") if cpp_compiler() else (False, NO_CPP_COMPILER)
    return False, "a run of this size is over sooner without" if device.type == "cpu" else "not on this device"


def compiling_refused(setting: bool | Literal["auto"]) -> str | None:
    """The setting by which the user has turned compilation off, or None."""
    if setting is False:
        return "compile=false"
    return "DISABLE_COMPILE is set" if setting == "auto" and "DISABLE_COMPILE" in os.environ else None


def cpp_compiler() -> str | None:
    """The path of the C++ compiler (CXX, by default g++), or None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def keep_freed_memory() -> None:
    """Make glibc keep the memory that CPU tensors free and reuse it for later tensors. Other C libraries: no effect.

    By default, blocks of 32 MB and more are returned to the system, which zeroes every page of the next block that it
    hands out: 9 ms for 32 MB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _has_bfloat16(device: torch.device) -> bool:
    match device.type:
        case "cuda":
            return torch.cuda.get_device_capability(device) >= (8, 0)
        case "cpu":
            return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        case _:
            return False
