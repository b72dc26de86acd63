"""The turns of the grid among the symmetries of a task, and the symbols that may be renamed."""

from collections.abc import Sequence
from math import prod

import numpy as np

from dataset.tasks.symmetry import Symmetry
from utils.errors import UserError
from utils.grid_turns import grid_turns

_MOST_TRIED = 512


def turns_of(name: str, symmetries: Sequence[Symmetry], shape: tuple[int, int], vocab_size: int) -> list[int]:
    """The numbers (`utils.grid_turns`) of the turns that symmetries with `cells_only` make one after the other.

    Args:
        name: the name of the task, for messages.
        symmetries: those of the task. A family with so many choices that not all can be tried plays no part.
        shape: rows and columns of a board.
        vocab_size: size of the vocabulary.

    Raises:
        UserError: a symmetry with `cells_only` does more than move cells.
    """
    made = [np.arange(shape[0] * shape[1])]
    for symmetry in symmetries:
        if not symmetry.cells_only or len(made) * len(symmetry.choices) > _MOST_TRIED:
            continue
        permutations = [
            _permutation(name, symmetry, symmetry.choices[choice], shape, vocab_size)
            for choice in range(len(symmetry.choices))
        ]
        made = [cells[permutation] for cells in made for permutation in permutations]
    return [number for number, turn in grid_turns(*shape).items() if any(np.array_equal(turn, one) for one in made)]


def _permutation(name: str, symmetry: Symmetry, choice: object, shape: tuple[int, int], vocab_size: int) -> np.ndarray:
    """The permutation that one change makes: cell s of the result is cell p[s] of the original."""
    cells = prod(shape)
    moved = np.asarray(symmetry.apply(np.arange(cells).reshape(shape), choice))
    board = np.random.default_rng(0).integers(1, vocab_size, cells)
    shown = np.asarray(symmetry.apply(board.reshape(shape), choice))
    permutation = moved.reshape(-1)
    if moved.shape != shape or not np.array_equal(np.sort(permutation), np.arange(cells)):
        fault = "does not give back each cell once"
    elif not np.array_equal(shown.reshape(-1), board[permutation]):
        fault = "does more than move cells"
    else:
        return permutation
    raise UserError(
        f"the task {name}: its symmetry {symmetry.name!r} has cells_only=True, but {fault}. Leave that out."
    )


def renamed_by(symmetries: Sequence[Symmetry]) -> list[int]:
    """The tokens that may be renamed among one another, those of the largest family of renamings; else none."""
    return sorted(max((symmetry.renames for symmetry in symmetries), key=len, default=()))
