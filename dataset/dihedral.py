"""The eight symmetries of the square, numbered as in the published data sets."""

import numpy as np

# Every symmetry is its own inverse, except the two quarter turns 1 and 3, which undo each other.
DIHEDRAL_INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)


def dihedral_transform(grid: np.ndarray, transform: int) -> np.ndarray:
    """Apply symmetry 0..7 to the two leading axes of `grid`.

    0 identity; 1, 2, 3 quarter turns counter-clockwise (`np.rot90`); 4 flip left-right; 5 flip up-down;
    6 transpose; 7 one quarter turn, then flip left-right (the anti-transpose).

    Raises:
        ValueError: there is no such transform.
    """
    match transform:
        case 0:
            return grid
        case 1 | 2 | 3:
            return np.rot90(grid, k=transform)
        case 4:
            return np.fliplr(grid)
        case 5:
            return np.flipud(grid)
        case 6:
            return np.swapaxes(grid, 0, 1)
        case 7:
            return np.fliplr(np.rot90(grid, k=1))
    raise ValueError(f"dihedral transform {transform}: allowed are 0..7")


def inverse_dihedral_transform(grid: np.ndarray, transform: int) -> np.ndarray:
    """Undo `dihedral_transform(grid, transform)`."""
    return dihedral_transform(grid, DIHEDRAL_INVERSE[transform])
