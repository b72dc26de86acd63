"""Make one page of several traces, to compare runs on the puzzles that they share.

uv run python -m evaluators.trace A/trace.npz B/trace.npz --output compared.html
"""

import argparse
from dataclasses import replace
from pathlib import Path

from evaluators.trace.page import write_page
from evaluators.trace.trace import load_trace
from utils.errors import UserError, exit_on_user_error
from utils.files import writing_to


def main() -> None:
    """Read the command line and write the page.

    Raises:
        UserError: a file is no trace, the traces are of different tasks, or the page cannot be written.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="a trace.npz")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call them, one name for each")
    parser.add_argument("--output", type=Path, default=Path("trace.html"), help="the page; by default trace.html")
    arguments = parser.parse_args()
    traces = [load_trace(path) for path in arguments.traces]
    if arguments.names is not None:
        if len(arguments.names) != len(traces):
            raise UserError(f"--names: {len(arguments.names)} names for {len(traces)} traces. Give one for each.")
        named = zip(traces, arguments.names, strict=True)
        traces = [replace(trace, about={**trace.about, "name": name}) for trace, name in named]
    with writing_to(arguments.output.parent, "Choose another --output."):
        write_page(arguments.output, traces)
    print(f"page: {arguments.output}")


if __name__ == "__main__":
    exit_on_user_error(main)
