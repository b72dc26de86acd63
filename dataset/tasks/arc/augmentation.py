"""The augmentations of ARC tasks, and the names of augmented puzzles."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dataset.dihedral import dihedral_transform, inverse_dihedral_transform
from dataset.tasks.arc.field import NUM_COLOURS
from utils.errors import UserError

SEPARATOR = "|||"

_AUGMENTED_NAME = re.compile(r"(.+?)\|\|\|t([0-7])\|\|\|([0-9]{10})")


@dataclass(frozen=True)
class Augmentation:
    """A symmetry of the square and a permutation of the colours; digit i of `colours` is the image of colour i."""

    transform: int
    colours: str

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        forward = np.frombuffer(self.colours.encode(), dtype=np.uint8) - ord("0")
        return forward, np.argsort(forward).astype(np.uint8)

    def apply(self, grid: np.ndarray) -> np.ndarray:
        """Transform `grid`, colours [height, width], to uint8 [height, width] or [width, height]."""
        return self._tables[0][dihedral_transform(grid, self.transform)]

    def undo(self, grid: np.ndarray) -> np.ndarray:
        """The grid that `apply` turns into `grid`."""
        return self._tables[1][inverse_dihedral_transform(grid, self.transform)]


IDENTITY = Augmentation(0, "0123456789")


def puzzle_name(task: str, transform: int, colours: str) -> str:
    """The name of an augmented puzzle, `id|||t{transform}|||{ten digits}`; see `Augmentation`."""
    return f"{task}{SEPARATOR}t{transform}{SEPARATOR}{colours}"


def parse_puzzle_name(name: str) -> tuple[str, Augmentation]:
    """The id of the task and the augmentation; a bare id means the identity.

    Raises:
        UserError: the name has a separator, but not the form of `puzzle_name`.
    """
    if SEPARATOR not in name:
        return name, IDENTITY
    match = _AUGMENTED_NAME.fullmatch(name)
    if match is None or len(set(match[3])) != NUM_COLOURS:
        raise UserError(
            f"puzzle name {name!r}: expected a task id, or id{SEPARATOR}t0..t7{SEPARATOR}a permutation of 0123456789. "
            "Build the data set again with `python -m dataset.build_arc_dataset`."
        )
    return match[1], Augmentation(int(match[2]), match[3])
