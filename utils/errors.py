"""`UserError`, the exception for wrong input as opposed to a bug in the program."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from utils.console import safe_console


class UserError(ValueError):
    """Invalid input. The message says what was given, what is allowed, and how to fix it.

    Command-line programs print only the message and exit with status 2; any other exception keeps its traceback.
    """


class DamagedFileError(UserError):
    """A file that is not as it was written: bits have changed, or a part of it is missing."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` with the closest match in `allowed`, or an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run `main`; print a `UserError` as one message on stderr and exit with status 2."""
    with safe_console():
        try:
            main()
        except UserError as error:
            fail(error)


def fail(error: UserError) -> NoReturn:
    """Print the message of `error` to stderr and exit with status 2."""
    print(error_message(error), file=sys.stderr, flush=True)
    sys.exit(2)


def error_message(error: UserError) -> str:
    """The message of `error` for the terminal."""
    rank = os.environ.get("RANK", "0")
    where = f" (rank {rank})" if rank != "0" else ""
    return f"\nerror{where}: {error}"
