"""Compiles the C++ operators in this folder, once for each version of the sources, of torch and of the compiler."""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from utils.machine import NO_CPP_COMPILER, cpp_compiler

# not -march=native, because machines may share a home folder
_FLAGS = (
    *("-O3", "-std=c++20", "-shared", "-fPIC", "-fopenmp", "-DNDEBUG"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mfma", "-mf16c"),
)


@functools.cache
def cannot_build() -> str | None:
    """Why the operators cannot be built for this machine, or None."""
    if sys.platform != "linux":
        return "they are for Linux"
    if not torch.cpu._is_avx512_bf16_supported():
        return "this CPU has no AVX-512 bf16 instructions"
    return None if cpp_compiler() else NO_CPP_COMPILER


def build_and_load(folder: Path) -> str | None:
    """Compile the .cpp files of `folder`, unless that has been done before, and register their operators with torch.

    Returns why that failed, or None. The library is kept in TORCH_EXTENSIONS_DIR, or else in ~/.cache. There is no
    lock: processes that start at the same time each build a library, and the last one to finish replaces the others'.
    """
    try:
        cache = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "recursive_reasoning")
        return _build_and_load(folder, cache)
    except (OSError, RuntimeError) as error:  # no home folder, no permission, a full disk, a library that does not load
        return f"they cannot be built or loaded: {error} (TORCH_EXTENSIONS_DIR names another folder for them)"


def _build_and_load(folder: Path, cache: Path) -> str | None:
    compiler = cpp_compiler()
    assert compiler is not None
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    files = sorted(file for file in folder.iterdir() if file.suffix in (".cpp", ".h"))
    key = "\0".join((*(file.read_text() for file in files), torch.__version__, version, *_FLAGS))
    library = cache / f"recursive_reasoning_{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            built = Path(temporary) / library.name
            sources = [str(file) for file in files if file.suffix == ".cpp"]
            torch_folder = Path(torch.__file__).parent
            libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
            command = [compiler, *_FLAGS, f"-I{torch_folder / 'include'}", *sources, "-o", str(built), *libraries]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                lines = result.stderr.strip().splitlines() or ["it said nothing"]
                return f"{compiler} failed: {next((line for line in lines if 'error' in line), lines[-1])}"
            built.replace(library)
    torch.ops.load_library(library)
    return None
