"""Names that may become names of files."""

import pytest

from utils.errors import UserError
from utils.file_names import safe_name, safe_path

UNSAFE = [
    "",
    ".",
    "..",
    "../x",
    "/etc",
    "a/../b",
    "a//b",
    "a/",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\ud800",
    "a" * 201,
    "\u20ac" * 67,
]


@pytest.mark.parametrize("name", ["a", "a b", "a.b", "...", ".hidden", "00576224", "caf\u00e9", "a" * 200])
def test_names_of_files_pass(name: str):
    assert safe_name(name, "x") == name
    assert safe_path(f"{name}/{name}", "x") == f"{name}/{name}"


@pytest.mark.parametrize("name", [*UNSAFE, "a/b"])
def test_other_names_are_refused_and_shown(name: str):
    with pytest.raises(UserError) as caught:
        safe_name(name, "run/file.json: sets")
    assert str(caught.value).startswith(f"run/file.json: sets: {name!r} becomes the name of a file")


@pytest.mark.parametrize("path", [*UNSAFE, "a/./b", "a/.."])
def test_other_paths_are_refused_and_shown(path: str):
    with pytest.raises(UserError) as caught:
        safe_path(path, "run_name")
    assert str(caught.value).startswith(f"run_name: {path!r} becomes a folder")
