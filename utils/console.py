"""Printing that never ends a program: characters that a terminal lacks are escaped, and closed pipes are ignored."""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast


@contextmanager
def safe_console() -> Iterator[None]:
    """Within the block, what is printed to stdout or stderr raises nothing.

    Characters that the encoding of the stream lacks are written as escapes, such as `\\xe9`. Once a stream cannot be
    written to, for example because `head` has closed the pipe, everything that is printed to it is dropped, also what
    the interpreter still flushes when it exits.
    """
    out, errors = (cast(TextIO, _SafeStream(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            yield
        finally:
            out.flush()
            errors.flush()


class _SafeStream:
    """A text stream whose `write` and `flush` do not raise. Everything else is passed on to the stream.

    Args:
        stream: the stream; None, as Python has it if the descriptor was closed at the start, drops everything.
    """

    def __init__(self, stream: TextIO | None):
        self._stream: Any = _Nowhere() if stream is None else stream
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # a stream that cannot be reconfigured
                self._stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError) as error:
            self._drop(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        """Drop what is printed from now on, because of `error`."""
        if isinstance(error, BlockingIOError):
            return  # the reader is slow, and only this text is lost
        try:
            # also what is in the buffer of the stream goes there, which would raise at exit
            descriptor = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
        except (OSError, ValueError):  # it is no file, or is closed
            self._stream = _Nowhere()
        with suppress(OSError, ValueError):
            self._stream.flush()


class _Nowhere(io.TextIOBase):
    """A text stream that drops everything."""

    def write(self, text: str, /) -> int:
        return len(text)
