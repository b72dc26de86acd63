"""Tensors in the safetensors format, with a checksum, which the format itself does not have.

The checksum is a CRC-32 of all names, dtypes, shapes and values, and of the metadata. It is kept in the metadata under
`crc32`, where other programs read over it.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from utils.atomic_file import replacing
from utils.errors import DamagedFileError
from utils.files import check_regular_file

SUFFIX = ".safetensors"
CHECKSUM = "crc32"  # key of the metadata


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, with their checksum. The file is complete or not there at all.

    Args:
        path: the file, by convention with the suffix `.safetensors`.
        tensors: the tensors by name, on any device.
        metadata: further texts for the header of the file.

    Raises:
        OSError: the file cannot be written.
    """
    own = _apart({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    texts = {"format": "pt", **(metadata or {})}
    with replacing(path) as temporary:
        mode = temporary.stat().st_mode  # save_file puts a file in its place that only its owner may read
        try:
            save_file(own, temporary, {**texts, CHECKSUM: _checksum(own, texts)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        temporary.chmod(mode)


def load_tensors(path: Path, mend: str = "Take another copy of it.") -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped, on the CPU.

    Their checksum is compared if the file has one; this reads the whole file once.

    Args:
        path: the file.
        mend: what to do if it cannot be loaded, a sentence for the message.

    Raises:
        DamagedFileError: the file is damaged, or is no safetensors file.
        UserError: the file is no regular file.
        OSError: the file is missing or cannot be read.
    """
    with _opened(path, mend) as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(tensors, metadata):
        raise DamagedFileError(f"{path} is corrupted (it does not have the checksum that it was written with). {mend}")
    return tensors


def read_metadata(path: Path, mend: str = "Take another copy of it.") -> dict[str, str]:
    """The texts in the header of a safetensors file, among them the checksum, if it has one.

    Raises:
        DamagedFileError: the file is damaged, or is no safetensors file.
        UserError: the file is no regular file.
        OSError: the file is missing or cannot be read.
    """
    with _opened(path, mend) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: Path, mend: str) -> Iterator[Any]:
    """A safetensors file, open for reading; see `load_tensors` for the errors."""
    check_regular_file(path, mend)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, MemoryError):
        raise
    except Exception as error:  # besides SafetensorError, of dtypes that torch does not have
        raise DamagedFileError(f"{path} is corrupted or no safetensors file ({error}). {mend}") from None


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with copies of those that share memory with another or are part of a larger one.

    The format refuses such tensors.
    """
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, value in tensors.items():
        memory = value.untyped_storage()
        shared = memory.nbytes() != value.nbytes or memory.data_ptr() in seen
        seen.add(memory.data_ptr())
        own[name] = value.clone() if shared else value
    return own


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    header = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in sorted(tensors)]
    value = zlib.crc32(json.dumps([sorted(metadata.items()), header]).encode())
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
