"""Write the report of one or several runs: one self-contained page, from what the runs have logged.

uv run python report.py checkpoints/Sudoku/mine                        # report.html in the run folder
uv run python report.py RUN [RUN ...] --output compared.html           # several runs, or seeds, in one page
"""

import argparse
from pathlib import Path

from evaluators.report.page import NAME, write_report
from utils.errors import exit_on_user_error


def main() -> None:
    """Read the command line and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, with its metrics.jsonl")
    parser.add_argument("--output", type=Path, help=f"the page; by default {NAME} in the folder of the first run")
    arguments = parser.parse_args()
    print(f"report: {write_report(arguments.runs, arguments.output or arguments.runs[0] / NAME)}")


if __name__ == "__main__":
    exit_on_user_error(main)
