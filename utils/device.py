"""Choice of device and dtype, in one place, with the reason."""

import ctypes
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, Literal

import torch

from utils.errors import UserError

DeviceName = Literal["auto", "cuda", "mps", "cpu"]

# for torch.compile: on the CPU a product and a sum become one instruction, as on GPUs
COMPILE_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"cpp.enable_floating_point_contract_flag": "fast"}

NO_CPP_COMPILER = "there is no C++ compiler (g++, or what CXX names)"

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h

# Compiling takes a CPU about 15 s and saves a quarter of the time: it pays from a few minutes at 0.1 to 1 TFLOP/s.
_WORK_WORTH_COMPILING = 1e14


def choose_device(wanted: DeviceName, local_rank: int = 0) -> tuple[torch.device, str]:
    """(device, reason). `auto` takes cuda, then mps, then cpu.

    Raises:
        UserError: the device asked for is not here.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    have = [name for name, there in (("cuda", cuda), ("mps", mps), ("cpu", True)) if there]
    if wanted != "auto" and wanted not in have:
        why = "this torch finds no CUDA device" if wanted == "cuda" else "this torch finds no Apple GPU"
        raise UserError(f"device={wanted}, but {why}. Here there is: {', '.join(have)}; or use device=auto.")
    name = have[0] if wanted == "auto" else wanted
    found = f"the first of {', '.join(have)}" if len(have) > 1 else "there is no other"
    reason = "as asked" if wanted != "auto" else found
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
    """(forward dtype, reason). `auto` takes bfloat16 where the hardware computes in it, else float32."""
    native = _has_bfloat16(device)
    if wanted == "auto":
        return ("bfloat16", "this device computes in it") if native else ("float32", "no fast bfloat16 here")
    if wanted == "bfloat16" and not native:
        return wanted, "as configured, but slow on this device: arch.forward_dtype=auto would take float32"
    return wanted, "as configured"


def choose_compile(setting: bool | Literal["auto"], device: torch.device, work: float = 0) -> tuple[bool, str]:
    """(whether to compile, reason).

    `auto` compiles on CUDA where Triton is, and on a CPU with a C++ compiler for runs so long that it pays back, unless
    DISABLE_COMPILE is set (as in the published code).

    Args:
        setting: as configured.
        device: where the run computes.
        work: floating-point operations of the whole run, as planned (so that a resumed run decides alike).
    """
    refusal = compiling_refused(setting)
    if refusal is not None:
        return False, refusal
    if setting is True:
        return True, "as configured"
    if device.type == "cuda":
        has_triton = importlib.util.find_spec("triton") is not None
        return has_triton, "on CUDA" if has_triton else "there is no Triton"
    if device.type == "cpu" and work >= _WORK_WORTH_COMPILING:
        return (True, "a long run") if cpp_compiler() else (False, NO_CPP_COMPILER)
    return False, "a run of this size is over sooner without" if device.type == "cpu" else "not on this device"


def compiling_refused(setting: bool | Literal["auto"]) -> str | None:
    """How the user has said that nothing is to be compiled; None where that is open."""
    if setting is False:
        return "compile=false"
    return "DISABLE_COMPILE is set" if setting == "auto" and "DISABLE_COMPILE" in os.environ else None


def cpp_compiler() -> str | None:
    """The path of the C++ compiler, where there is one."""
    return shutil.which(os.environ.get("CXX", "g++"))


def keep_freed_memory() -> None:
    """Have the C library keep the memory that tensors on the CPU free, where it is glibc, for the tensors after them.

    By default blocks of 32 MB and more go back to the system, which clears each page of the next one: 9 ms for 32 MB.
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
