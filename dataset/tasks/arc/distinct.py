"""Distinct augmentations of an ARC task, drawn in the same way as by the published builder."""

from collections.abc import Sequence

import numpy as np

from dataset.dihedral import dihedral_transform, inverse_dihedral_transform
from dataset.legacy_random import LegacyRandom
from dataset.tasks.arc.field import MAX_SIDE, NUM_COLOURS
from dataset.tasks.arc.files import Pair

TRIALS_PER_AUGMENTATION = 5
TRANSFORMS = 8

# A random number for each cell of an input (index 0) and an output (index 1), see `Fingerprints`. Any seed would do.
_CELL_NUMBERS = np.random.default_rng(0).integers(0, 1 << 64, size=(2, MAX_SIDE, MAX_SIDE), dtype=np.uint64)


class Fingerprints:
    """Fingerprints of a task under augmentations, equal if the multisets of (input, output) grids are equal.

    They are computed without transforming any grid. The hash of a pair is the sum over its cells of (colour + 1) *
    (random number of the cell's new position), modulo 2**64. So the random numbers are summed once for each symmetry
    and colour, and the hash for a permutation of the colours is a product with these sums. Two different pairs collide
    with probability 2**-61 (less than one in 10**7 for all comparisons of a 1000-fold build together). The hash of each
    pair is mixed before summing over pairs; otherwise exchanging cells between pairs would not change the sum.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        colours = np.arange(NUM_COLOURS)[:, None]
        self._sums = np.zeros((TRANSFORMS, NUM_COLOURS, len(pairs)), dtype=np.uint64)
        for index, pair in enumerate(pairs):
            for numbers, grid in zip(_CELL_NUMBERS, (pair.input, pair.output), strict=True):
                if grid is None:
                    continue
                moved = [
                    inverse_dihedral_transform(_corner(numbers, dihedral_transform(grid, transform)), transform)
                    for transform in range(TRANSFORMS)
                ]
                has_colour = (grid.reshape(-1) == colours).astype(np.uint64)  # [10, cells]
                self._sums[:, :, index] += (has_colour @ np.stack(moved, axis=-1).reshape(grid.size, TRANSFORMS)).T

    def __call__(self, transforms: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """The fingerprints uint64 [n] of the augmentations `transforms` [n] and `colours` [n, 10]."""
        result = np.empty(len(transforms), dtype=np.uint64)
        values = colours.astype(np.uint64) + np.uint64(1)
        for transform in range(TRANSFORMS):
            chosen = transforms == transform
            result[chosen] = _mix(values[chosen] @ self._sums[transform]).sum(axis=1, dtype=np.uint64)
        return result


def _corner(numbers: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return numbers[: grid.shape[0], : grid.shape[1]]


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: a nonlinear bijection of uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw_augmentations(rng: LegacyRandom, pairs: Sequence[Pair], num_aug: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `num_aug` augmentations that differ from each other and from the identity, in at most 5 * num_aug trials.

    Returns:
        transforms uint8 [puzzles] and colours uint8 [puzzles, 10], starting with the identity. If the trials run out,
        there are fewer than `num_aug` augmentations.
    """
    transforms = [np.zeros(1, dtype=np.uint8)]
    colours = [np.arange(NUM_COLOURS, dtype=np.uint8)[None]]
    fingerprints = Fingerprints(pairs)
    seen = set(fingerprints(transforms[0], colours[0]).tolist())
    trials = TRIALS_PER_AUGMENTATION * num_aug
    while trials and len(seen) <= num_aug:
        # At least this many trials are needed, so the random stream is the same as with one trial at a time.
        count = min(trials, num_aug + 1 - len(seen))
        trials -= count
        drawn_transforms = np.empty(count, dtype=np.uint8)
        drawn_colours = np.tile(colours[0], (count, 1))
        for trial, movable in enumerate(drawn_colours[:, 1:]):  # colour 0 is never permuted
            drawn_transforms[trial] = rng.below(TRANSFORMS)
            rng.shuffle(movable)
        new = []
        for trial, fingerprint in enumerate(fingerprints(drawn_transforms, drawn_colours).tolist()):
            if fingerprint not in seen:
                seen.add(fingerprint)
                new.append(trial)
        transforms.append(drawn_transforms[new])
        colours.append(drawn_colours[new])
    return np.concatenate(transforms), np.concatenate(colours)


def all_symmetries() -> tuple[np.ndarray, np.ndarray]:
    """The identity, then the eight symmetries of the square in order, without permuted colours.

    Returns:
        transforms uint8 [9] and colours uint8 [9, 10], as `draw_augmentations`.
    """
    transforms = np.concatenate((np.zeros(1, np.uint8), np.arange(TRANSFORMS, dtype=np.uint8)))
    return transforms, np.tile(np.arange(NUM_COLOURS, dtype=np.uint8), (len(transforms), 1))
