"""Reading files of torch.save that may come from others: no code is run, and no memory is taken that they do not hold.

torch.load(weights_only=True) builds only tensors and plain values. What it leaves to check: torch stores the members of
its archives uncompressed, so a compressed one can only ask for more memory than the file has bytes; and of the plain
values, a bytearray can be made by its length alone. The archives have a checksum of every part, which is compared
before anything is loaded; files from torch before 1.6 have none.
"""

import errno
import hashlib
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils.errors import DamagedFileError
from utils.files import check_regular_file

_MAKES_BYTES = {"builtins bytearray", "__builtin__ bytearray"}
_OF_DAMAGE = (None, errno.EINVAL)  # numbers of OSErrors of a damaged archive, such as a place before its start
_CHUNK = 1 << 20  # bytes read at once
_PICKLES_BEFORE_1_6 = 5  # magic number, version, system, content and keys of the storages


def load_torch_file(path: Path, mend: str, compare_checksums: bool = True) -> Any:
    """The content of a file of torch.save, tensors on the CPU; those of archives are memory-mapped.

    Args:
        path: the file.
        mend: what to do if it cannot be loaded, a sentence for the message.
        compare_checksums: read the whole archive first and compare its checksums; False only for a file that has just
            been compared.

    Raises:
        DamagedFileError: the file is damaged, holds more than tensors and plain values, or would take more memory than
            it has bytes.
        UserError: the file is no regular file.
        OSError: the file is missing or cannot be read.
    """
    check_regular_file(path, mend)
    try:
        is_zip = zipfile.is_zipfile(path)  # files from torch before 1.6 are not, and cannot be memory-mapped
        reason = _too_large_archive(path) if is_zip else _too_large_file(path)
        if reason is None and is_zip and compare_checksums:
            _read_all_parts(path)
        if reason is None:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        if isinstance(error, OSError) and error.errno not in _OF_DAMAGE:
            raise
        reason = _reason(error)
    raise DamagedFileError(f"{path} is corrupted or no checkpoint ({reason}). {mend}")


def has_checksums(path: Path) -> bool:
    """Whether `load_torch_file` can notice that a bit of the file has changed."""
    return zipfile.is_zipfile(path)


def archive_digest(path: Path) -> str | None:
    """SHA-256 of the names, sizes and checksums of all parts of an archive; None for files from before torch 1.6.

    It stands for the whole content, and takes no time, because only the directory at the end of the archive is read.
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        parts = sorted(f"{member.filename} {member.file_size} {member.CRC:08x}" for member in archive.infolist())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _too_large_archive(path: Path) -> str | None:
    """Why the archive would take more memory than it has bytes, or None."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        compressed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
        if compressed:
            return f"{compressed[0]!r} in it is compressed, which torch.save never does, so it is not loaded"
        declared, held = sum(member.file_size for member in members), path.stat().st_size
        if declared > held:
            return f"its parts claim {declared:,} bytes, the file has {held:,}, so it is not loaded"
        for member in members:
            if member.filename.endswith("data.pkl"):
                with archive.open(member) as file:
                    if _makes_bytes(file, pickles=1):
                        return _UNEXPECTED
    return None


def _read_all_parts(path: Path) -> None:
    """Read the archive once, which compares the checksums of its parts. torch.load does not look at them.

    Raises:
        zipfile.BadZipFile: a part does not have its checksum; the message names it.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                while file.read(_CHUNK):
                    pass


def _too_large_file(path: Path) -> str | None:
    with path.open("rb") as file:
        return _UNEXPECTED if _makes_bytes(file, _PICKLES_BEFORE_1_6) else None


_UNEXPECTED = "it holds more than tensors and plain values, so it is not loaded"


def _makes_bytes(file: Any, pickles: int) -> bool:
    """Whether one of the first pickles in `file` makes a bytearray; what is no pickle does not."""
    try:
        return any(
            operation.name == "GLOBAL" and argument in _MAKES_BYTES
            for _ in range(pickles)
            for operation, argument, _ in pickletools.genops(file)
        )
    except Exception:  # damaged: torch.load says how
        return False


def _reason(error: Exception) -> str:
    """The message of `error` in one line, without torch's advice to load the file although it may run code."""
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return "it holds more than tensors and plain values, or is damaged, so it is not loaded"
    return text.splitlines()[0] if text else type(error).__name__
