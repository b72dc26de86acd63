"""Files of others: what is no regular file, cannot be read or is damaged is named; so is what cannot be written."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import check_regular_file, read_text, writing_to
from utils.text_files import read_json


def test_regular_files_are_read(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"caf\u00e9": [1]}', encoding="utf-8")
    (tmp_path / "link").symlink_to(path)
    for given in (path, tmp_path / "link"):
        check_regular_file(given, "")
        assert read_json(given, "") == {"caf\u00e9": [1]}
        assert read_text(given, "") == '{"caf\u00e9": [1]}'


def test_other_files_are_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        kinds = {"fifo": "a pipe", "socket": "a socket", ".": "a folder", "/dev/zero": "a device"}
        for path, kind in kinds.items():
            for read in (check_regular_file, read_text, read_json):
                with pytest.raises(UserError, match=rf"{path} is {kind}, expected a regular file\. Mend it\."):
                    read(Path(path), "Mend it.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r" is empty: JSON is expected\. Mend it\."),
        (b"{", r": not JSON \(.*\)\. Mend it\."),
        (b"\xff", r" is not in UTF-8: byte 0 is 0xff"),
        (b"[" * 100_000, r": not JSON \(.*\)\. Mend it\."),
        (b'{"a":' * 100_000, r": not JSON \(.*\)\. Mend it\."),
        (b"9" * 5000, r": not JSON \(.*\)\. Mend it\."),
    ],
)
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}{message}"):
        read_json(path, "Mend it.")


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere cannot be read \(No such file or directory\)\. Mend it\."):
        read_text(tmp_path / "nowhere", "Mend it.")
    with pytest.raises(UserError, match=r"/dev/null/x cannot be read \(Not a directory\)"):
        read_text(Path("/dev/null/x"), "")
    with pytest.raises(FileNotFoundError):
        check_regular_file(tmp_path / "nowhere", "")


def test_folders_that_cannot_be_written_are_named(tmp_path: Path):
    folder = Path("/dev/null/x")
    refusal = pytest.raises(UserError, match=r"/dev/null/x cannot be written \(.*Not a directory.*\)\. Mend it\.")
    with refusal, writing_to(folder, "Mend it."):
        folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").touch()
    (tmp_path / "to" / "file" / "file").mkdir(parents=True)
    refusal = pytest.raises(
        UserError, match=r"to cannot be written \(.*Is a directory: '[^']*to/file/file'\)\. Mend it\."
    )
    with refusal, writing_to(tmp_path / "to", "Mend it."):
        shutil.copytree(tmp_path / "from", tmp_path / "to", dirs_exist_ok=True)
