"""The package onnxruntime-web, which computes ONNX models in browsers: fetched by npm, with known digests."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from utils.errors import UserError
from utils.files import read_bytes

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# file of the package -> (name in the page, SHA-256)
FILES = {
    "dist/ort.wasm.bundle.min.mjs": (
        "ort.wasm.bundle.min.js",  # a suffix that every server knows
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "dist/ort-wasm-simd-threaded.wasm": (
        "ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
_SECONDS = 300
_PACK = f"npm pack {PACKAGE}@{VERSION}"
_BY_HAND = f"Or run `{_PACK}` on another machine and give its file, onnxruntime_web={PACKAGE}-{VERSION}.tgz."


def runtime_files(given: str | None) -> dict[str, bytes]:
    """name in the page -> content, of all that a page needs of the package.

    Args:
        given: the package as a .tgz file or an unpacked folder; None: npm fetches it.

    Raises:
        UserError: it cannot be had, or a file is not that of the pinned version.
    """
    if given is None:
        with tempfile.TemporaryDirectory() as folder:
            return _from_archive(_fetch(Path(folder)))
    path = Path(given)
    if path.is_dir():
        root = path if (path / "dist").is_dir() else path / "package"
        mend = f"Give the folder of {PACKAGE} {VERSION}, which has a folder dist."
        return {name: _checked(root / file, read_bytes(root / file, mend), file) for file, (name, _) in FILES.items()}
    return _from_archive(path)


def _fetch(folder: Path) -> Path:
    """Let npm download the package: the archive.

    Raises:
        UserError: there is no npm, or it fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"format=web fetches {PACKAGE} with npm, which is not installed. Install Node.js. {_BY_HAND}")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"npm did not fetch {PACKAGE} {VERSION} within {_SECONDS} s. Try again. {_BY_HAND}") from None
    found = sorted(folder.glob("*.tgz"))
    if done.returncode or not found:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(
            f"npm could not fetch {PACKAGE} {VERSION}: {reason[0] if reason else 'it gives no reason'}. "
            f"Is there a network? {_BY_HAND}"
        )
    return found[0]


def _from_archive(path: Path) -> dict[str, bytes]:
    """What the page needs from an archive of the package.

    Raises:
        UserError: it cannot be read, or is another archive.
    """
    data = read_bytes(path, f"Give the .tgz file that `npm pack {PACKAGE}@{VERSION}` writes.")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for file, (name, _) in FILES.items():
                member = archive.extractfile(f"package/{file}")
                files[name] = _checked(path, b"" if member is None else member.read(), file)
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise UserError(
            f"{path} is no archive of {PACKAGE} ({error}). Give the .tgz file that `{_PACK}` writes."
        ) from None
    return files


def _checked(path: Path, content: bytes, file: str) -> bytes:
    """`content`, if it is that of the pinned version.

    Raises:
        UserError: it is not.
    """
    if hashlib.sha256(content).hexdigest() != FILES[file][1]:
        raise UserError(
            f"{path}: {file} is not that of {PACKAGE} {VERSION}, so it is not used. Delete it and fetch that version: "
            f"`npm pack {PACKAGE}@{VERSION}`."
        )
    return content
