"""Find out which differences between experiments are real: arms x seeds, one table, one verdict for each arm.

uv run python study.py config/study/cpu.yaml                  # train what is missing, then write the table
uv run python study.py config/study/cpu.yaml --dry-run        # list the runs with their steps, FLOPs and times
uv run python study.py config/study/cpu.yaml --jobs 4         # four runs at once
uv run python study.py config/study/cpu.yaml --only 2/8       # the second of eight parts, for an array of jobs
uv run python study.py config/study/cpu.yaml --table          # only the table, from the runs that have ended

The same command goes on after an interruption: runs that have ended are not repeated, and others go on from their
checkpoints. docs/studies.md says how to write a study and how to read its table.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from studies.program import run_study
from utils.errors import exit_on_user_error


@dataclass
class Config:
    """Arms x seeds, one table, one verdict for each arm."""

    study: Annotated[Path, tyro.conf.Positional]
    """The study file."""
    folder: Path | None = None
    """Where runs and results go. By default checkpoints/studies/NAME, with the scale added if there is one."""
    scale: str | None = None
    """A scale of the study file, such as gpu. By default the one that it names."""
    jobs: int = 1
    """Runs at once."""
    only: str | None = None
    """Only a part of the runs, such as 2/8: the second of eight."""
    dry_run: bool = False
    """List the runs, and do nothing."""
    commands: bool = False
    """Print the commands of the runs that have not ended, for another launcher, and do nothing."""
    table: bool = False
    """Write the table from the runs that have ended, and run none."""


def main() -> None:
    """Read the command line and run the study."""
    config = tyro.cli(Config, description=__doc__)
    sys.exit(
        run_study(
            config.study,
            config.folder,
            config.scale,
            jobs=config.jobs,
            only=config.only,
            dry_run=config.dry_run,
            commands=config.commands,
            table=config.table,
        )
    )


if __name__ == "__main__":
    exit_on_user_error(main)
