"""Printing to terminals that know few characters, and to pipes that are closed, in processes of their own."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, environment
from utils.console import safe_console

# prints more than the buffers of a pipe hold, through everything that prints, and then writes a file
PROGRAM = """
import sys
from pathlib import Path
from tqdm import tqdm
from utils.{module} import {block}

def main():
    for number in tqdm(range(3000), mininterval=0, desc="caf\u00e9"):
        print("\u4f60\u597d na\u00efve", number, "." * 100)
        tqdm.write("\u2588", file=sys.stderr)
        sys.stdout.writelines(["\u2588"])
    Path(sys.argv[1]).write_text("done")

{start}
"""
STARTS = {
    "console": ("safe_console", "with safe_console():\n    main()"),
    "errors": ("exit_on_user_error", "exit_on_user_error(main)"),
}


def run(tmp_path: Path, encoding: str, redirection: str, module: str = "console") -> tuple[int, bytes]:
    """Run the program in a shell with a `redirection` of its output: (exit status, what came out)."""
    block, start = STARTS[module]
    (tmp_path / "program.py").write_text(PROGRAM.format(module=module, block=block, start=start))
    line = f'set -o pipefail; "{sys.executable}" program.py "{tmp_path / "file"}" {redirection}'
    variables = {**environment(), "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=variables, capture_output=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("module", STARTS)
@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", rb"\u4f60\u597d na\xefve 2999"),
        ("cp1252", b"\\u4f60\\u597d na\xefve 2999"),
        ("utf-8", "\u4f60\u597d".encode()),
    ],
)
def test_what_the_encoding_lacks_is_escaped(tmp_path: Path, encoding: str, shown: bytes, module: str):
    status, output = run(tmp_path, encoding, "", module)
    assert status == 0, output[-1000:]
    assert shown in output
    assert (tmp_path / "file").read_text() == "done"


@pytest.mark.thorough
@pytest.mark.parametrize("redirection", ["| head -1", "2>&1 | head -1", "2>&1 >/dev/null | head -1", ">&-", "2>&-"])
def test_closed_streams_end_nothing(tmp_path: Path, redirection: str):
    status, output = run(tmp_path, "utf-8", redirection)
    assert status == 0, output[-1000:]
    assert b"Error" not in output
    assert (tmp_path / "file").read_text() == "done"


def test_a_full_disk_ends_nothing(tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    status, output = run(tmp_path, "utf-8", ">/dev/full")
    assert status == 0, output[-1000:]


def test_streams_are_given_back(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    with safe_console():
        assert sys.stdout is not screen
        print("inside", os.linesep.isspace())
        assert not sys.stdout.isatty()
    assert sys.stdout is screen
    assert screen.getvalue() == "inside True\n"


def test_a_stream_that_is_closed_meanwhile(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    with safe_console():
        screen.close()
        print("nobody reads this")
