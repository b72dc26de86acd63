"""Running the commands of the package as a user would, in this process."""

import contextlib
import io

import pytest

from tiny_recursive_model.__main__ import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object, stdin: str = "") -> tuple[int, str, str]:
    """(exit status, what was printed, what was printed on stderr)."""
    printed, errors, status = io.StringIO(), io.StringIO(), 0
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return status, printed.getvalue(), errors.getvalue()
