"""Rendering the token fields of an ARC task and its augmented copies.

A puzzle is stored as (transform, colours) until it is written, so the grids of only one task are in memory at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dataset.dihedral import dihedral_transform
from dataset.legacy_random import LegacyRandom
from dataset.tasks.arc.augmentation import puzzle_name
from dataset.tasks.arc.field import FIRST_COLOUR, MAX_SIDE, NUM_COLOURS, Stamp
from dataset.tasks.arc.files import Pair


@dataclass(frozen=True)
class Group:
    """The pairs of a task that belong to one split, and its distinct augmentations, starting with the identity."""

    name: str
    pairs: list[Pair]
    transforms: np.ndarray  # uint8 [puzzles]
    colours: np.ndarray  # uint8 [puzzles, 10]

    def puzzle_names(self) -> Iterator[str]:
        """The bare id of the task, then one name per augmentation."""
        yield self.name
        digits = (self.colours + ord("0")).tobytes().decode()
        for puzzle, transform in enumerate(self.transforms[1:].tolist(), start=1):
            yield puzzle_name(self.name, transform, digits[puzzle * NUM_COLOURS : (puzzle + 1) * NUM_COLOURS])


class Placeable(NamedTuple):
    """A pair of grids under one symmetry, with the numbers of row and column positions at which both fit."""

    input: Stamp
    output: Stamp
    rows: int
    columns: int


def _placeable(pair: Pair, transform: int) -> Placeable:
    unknown = np.zeros((0, 0), dtype=np.uint8)  # its field is empty, so all labels are ignored
    grids = [dihedral_transform(unknown if grid is None else grid, transform) for grid in (pair.input, pair.output)]
    height, width = np.max([grid.shape for grid in grids], axis=0).tolist()
    return Placeable(Stamp(grids[0]), Stamp(grids[1]), MAX_SIDE + 1 - height, MAX_SIDE + 1 - width)


def render(group: Group, rng: LegacyRandom | None) -> Iterator[tuple[bytes, bytes]]:
    """The inputs and labels of each puzzle of a group, 900 bytes per example.

    Args:
        group: the group to render.
        rng: if given, all examples of a puzzle except a random one are moved to random positions.
    """
    placeable = {t: [_placeable(pair, t) for pair in group.pairs] for t in np.unique(group.transforms).tolist()}
    recolour = np.tile(np.arange(256, dtype=np.uint8), (len(group.colours), 1))  # token -> token, per puzzle
    recolour[:, FIRST_COLOUR : FIRST_COLOUR + NUM_COLOURS] = group.colours + FIRST_COLOUR
    for transform, table in zip(group.transforms.tolist(), recolour, strict=True):
        unmoved = None if rng is None else rng.below(len(group.pairs))
        inputs, labels = [], []
        for example, (grid, answer, rows, columns) in enumerate(placeable[transform]):
            row = column = 0
            if rng is not None and example != unmoved:
                row = rng.below(rows)
                column = rng.below(columns)
            inputs.append(grid.at(row, column))
            labels.append(answer.at(row, column))
        tokens = table.tobytes()
        yield b"".join(inputs).translate(tokens), b"".join(labels).translate(tokens)
