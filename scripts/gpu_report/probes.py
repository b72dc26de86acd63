"""What a report measures by itself: the machine, and the rate of a matrix product.

python -m scripts.gpu_report.probes environment cuda OUTPUT.json
python -m scripts.gpu_report.probes matmul cuda OUTPUT.json 4096 8192
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.cuda import nccl

from utils.errors import UserError, exit_on_user_error
from utils.machine import choose_machine

_ROUNDS = 10  # products that are timed one by one; the fastest counts


def environment(device: torch.device) -> dict[str, Any]:
    """The machine, in words and numbers."""
    found: dict[str, Any] = {
        "card": "CPU",
        "device": str(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "commit": _output_of("git", "rev-parse", "--short", "HEAD"),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        free, _ = torch.cuda.mem_get_info(device)
        found |= {
            "card": properties.name,
            "capability": list(torch.cuda.get_device_capability(device)),
            "multiprocessors": properties.multi_processor_count,
            "memory_gb": round(properties.total_memory / 1e9, 2),
            "free_memory_gb": round(free / 1e9, 2),
            "driver": _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, nccl.version())),
            "triton": _version_of("triton"),
        }
    return found


def matmul(device: torch.device, sizes: list[int]) -> dict[str, Any]:
    """TFLOP/s of square matrix products of random numbers, best of ten, by dtype and size; tf32 is fp32 with TF32."""
    rates: dict[str, Any] = {}
    kinds = {"bfloat16": (torch.bfloat16, "highest"), "float32": (torch.float32, "highest")}
    if device.type == "cuda":
        kinds |= {"float16": (torch.float16, "highest"), "tf32": (torch.float32, "high")}
    for name, (dtype, precision) in kinds.items():
        torch.set_float32_matmul_precision(precision)
        for size in sizes:
            a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
            seconds = min(_seconds(lambda a=a, b=b: a @ b, device) for _ in range(_ROUNDS))
            rates[f"{name}/{size}"] = round(2 * size**3 / seconds / 1e12, 4)
            print(f"{name} {size}: {rates[f'{name}/{size}']} TFLOP/s", flush=True)
    return rates


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    started = time.perf_counter()
    function()
    _synchronize(device)
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _output_of(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _version_of(module: str) -> str | None:
    try:
        return str(__import__(module).__version__)
    except ImportError:
        return None


def main() -> None:
    """Run the command line of the module's docstring."""
    what, name, output, *sizes = sys.argv[1:]
    if name not in ("cuda", "cpu"):
        raise UserError(f"device {name!r}: allowed are cuda and cpu.")
    device = choose_machine(name, "bfloat16").device
    found = environment(device) if what == "environment" else matmul(device, [int(size) for size in sizes])
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(json.dumps(found) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    exit_on_user_error(main)
