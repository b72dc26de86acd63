"""The command that builds a maze data set; `--help` lists its options. See `dataset.tasks.maze.build`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.tasks.maze.build import Config, build, main

__all__ = ["Config", "build", "main"]

if __name__ == "__main__":
    main()
