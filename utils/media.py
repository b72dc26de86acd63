"""What a run shows besides numbers: pictures, tables and pages, made when a logger asks for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A PNG file."""

    path: Path


@dataclass(frozen=True)
class Table:
    """Rows of numbers or texts."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Page:
    """A self-contained HTML file."""

    path: Path


Media = dict[str, Picture | Table | Page]  # by name
MakeMedia = Callable[[], Media]  # called in the thread of a logger, so that the training does not wait for it
