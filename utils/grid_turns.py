"""The turns and mirror images of a grid as permutations of its cells."""

import numpy as np


def grid_turns(rows: int, columns: int) -> dict[int, np.ndarray]:
    """Number -> permutation, int64 [cells]: cell s of the result is cell p[s] of the original.

    Turn 2k + m turns the grid k times counter-clockwise, and then mirrors it left-right if m is 1. There are eight of
    a square; of other grids the four that keep the shape, and of a single row or column the two that differ.
    """
    grid = np.arange(rows * columns).reshape(rows, columns)
    turned = {2 * k: np.rot90(grid, k) for k in range(4) if rows == columns or k % 2 == 0}
    turned |= {number + 1: np.fliplr(view) for number, view in turned.items()}
    found: dict[bytes, int] = {}
    for number in sorted(turned):
        found.setdefault(turned[number].tobytes(), number)
    return {number: turned[number].reshape(-1).copy() for number in found.values()}
