import os
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.text_files import read_json, read_lines, read_text, shown, visible


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\nb\n", ["a\n", "b\n"]),
        (b"a\r\nb\r\n\r\n", ["a\r\n", "b\r\n", "\r\n"]),
        (b"a\rb\r", ["a\r", "b\r"]),
        (b"a\rb\r\nc", ["a\r", "b\r\n", "c"]),
        (b"a\r\r\n", ["a\r", "\r\n"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a\n", "\ufeffb"]),
        ("a\u2028b\x85c\x0cd\n".encode(), ["a\u2028b\x85c\x0cd\n"]),
    ],
)
def test_lines_and_text(tmp_path: Path, content: bytes, lines: list[str]):
    path = written(tmp_path, content)
    assert list(read_lines(path)) == lines
    assert read_text(path) == "".join(line.rstrip("\r\n") + "\n" * (line[-1] in "\r\n") for line in lines)


def test_characters_are_composed_unless_the_text_is_to_stay(tmp_path: Path):
    path = written(tmp_path, "fu\u0308r \u00b2".encode())
    assert read_text(path) == "f\u00fcr \u00b2"
    assert read_text(path, compose=False) == "fu\u0308r \u00b2"


def test_what_is_no_text_file_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"file.txt is not in UTF-8: byte 9 is 0xe9"):
        read_text(written(tmp_path, b"\xef\xbb\xbfabc\nd \xe9 e"))
    with pytest.raises(UserError, match=r"byte 0 is 0xff.*UTF-16"):
        read_text(written(tmp_path, "abc".encode("utf-16")))
    with pytest.raises(UserError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(UserError, match="nowhere does not exist"):
        read_text(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        read_text(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="expected a regular file"):
        read_text(tmp_path / "pipe")


def test_json_is_what_the_standard_says(tmp_path: Path):
    assert read_json(written(tmp_path, b'\xef\xbb\xbf{"a": [1, {"a": 2.5}]}\r\n')) == {"a": [1, {"a": 2.5}]}
    for content, message in {
        b" \n": "is empty: JSON is expected. Build it anew",
        b'{"a": 1, "b": 2, "a": 1}': "the key 'a' is there twice",
        b"[NaN]": "NaN is no JSON value",
        b"[-Infinity]": "-Infinity is no JSON value",
        b"[" * 100_000: "nested too deeply",
        b"[" + b"9" * 5000 + b"]": "not JSON",
        b"{'a': 1}": "not JSON .*Build it anew",
    }.items():
        with pytest.raises(UserError, match=message):
            read_json(written(tmp_path, content), "Build it anew.")


def test_hidden_files_are_left_out(tmp_path: Path):
    for name in ("b.json", "a.json", "._a.json", ".hidden.json"):
        (tmp_path / name).write_text("")
    assert [path.name for path in visible(tmp_path.iterdir())] == ["a.json", "b.json"]


def test_values_are_shortened():
    assert shown("a\n\u2028", 60) == "'a\\n\\u2028'"
    assert shown("a" * 100, 10) == "'aaaaaa..."
