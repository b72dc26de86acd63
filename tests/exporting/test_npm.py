"""The files of onnxruntime-web: where they may come from, and that others are refused."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from exporting import npm
from utils.errors import UserError

CONTENT = {"dist/ort.wasm.bundle.min.mjs": b"script", "dist/ort-wasm-simd-threaded.wasm": b"machine code"}


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch):
    """As if the pinned package had this content."""
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in CONTENT.items()}
    monkeypatch.setattr(npm, "FILES", {file: (name, digests[file]) for file, (name, _) in npm.FILES.items()})


def write_archive(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for file, data in content.items():
            member = tarfile.TarInfo(f"package/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_folder(root: Path, content: dict[str, bytes]) -> Path:
    for file, data in content.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
    return root


EXPECTED = {"ort.wasm.bundle.min.js": b"script", "ort-wasm-simd-threaded.wasm": b"machine code"}


def test_the_package_is_read_from_an_archive_and_from_a_folder(tmp_path: Path):
    assert npm.runtime_files(str(write_archive(tmp_path / "package.tgz", CONTENT))) == EXPECTED
    assert npm.runtime_files(str(write_folder(tmp_path / "unpacked", CONTENT))) == EXPECTED
    write_folder(tmp_path / "outer" / "package", CONTENT)
    assert npm.runtime_files(str(tmp_path / "outer")) == EXPECTED


def test_other_versions_and_other_files_are_refused(tmp_path: Path):
    changed = CONTENT | {"dist/ort-wasm-simd-threaded.wasm": b"other code"}
    with pytest.raises(UserError, match="ort-wasm-simd-threaded.wasm is not that of onnxruntime-web"):
        npm.runtime_files(str(write_archive(tmp_path / "package.tgz", changed)))
    with pytest.raises(UserError, match="ort-wasm-simd-threaded.wasm is not that of onnxruntime-web"):
        npm.runtime_files(str(write_folder(tmp_path / "unpacked", changed)))
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(UserError, match="is no archive of onnxruntime-web"):
        npm.runtime_files(str(tmp_path / "text.tgz"))
    with pytest.raises(UserError, match="is no archive of onnxruntime-web"):
        npm.runtime_files(str(write_archive(tmp_path / "empty.tgz", {})))
    with pytest.raises(UserError, match="cannot be read"):
        npm.runtime_files(str(tmp_path / "missing.tgz"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="Give the folder of onnxruntime-web"):
        npm.runtime_files(str(tmp_path / "folder"))


def test_without_npm_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="Install Node.js.*onnxruntime_web="):
        npm.runtime_files(None)


def test_a_failure_of_npm_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "npm"
    script.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match="npm error code ENOTFOUND.*Is there a network"):
        npm.runtime_files(None)
