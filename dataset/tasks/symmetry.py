"""Symmetries of a task: changes of an example under which a right answer stays right, each with its inverse.

A `Symmetry` is a family of changes, one for each of its `choices`: the four quarter turns, or all ways to rename the
digits. What follows from the symmetries of a task: augmentation (`dataset.tasks.symmetric`), keys that tell whether two
puzzles are equivalent, and the checks that refuse a symmetry which makes labels wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any, Literal, Protocol

import numpy as np

from dataset.dihedral import dihedral_transform, inverse_dihedral_transform

Change = Callable[[np.ndarray, Any], np.ndarray]


class Choices(Protocol):
    """A list of choices, which need not be stored, from 0 to its length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def random_choice(choices: Choices, rng: np.random.Generator) -> Any:
    """One of the choices, all equally probable; there may be more of them than an index can count."""
    draw = getattr(choices, "draw", None)
    return choices[int(rng.integers(len(choices)))] if draw is None else draw(rng)


@dataclass(frozen=True)
class Symmetry:
    """A family of changes of a board.

    Attributes:
        name: what it does, for messages.
        apply: (board, choice) -> board. Both are tokens [height, width]; padding (0) must stay padding.
        undo: (board, choice) -> board, the inverse of `apply` with the same choice.
        choices: all choices, the one that changes nothing among them. For an augmentation, each is equally probable.
        answer: what becomes of the answer: it is `transformed` as the question is; `kept` as it is, such as the sum
            when two operands change places; or `relabelled`: computed anew by `Task.solve`, where the transformed
            answer would still be right, but is not the one that the task has as its label.
        cells_only: it moves cells and does nothing else, on every board in the same way, as turns of the grid do. Then
            a model that works on sets of candidates may be called under it.
        renames: the tokens that it renames among one another, in all ways, if that is what it does.
        canonical: board -> the same board for all boards that this symmetry makes from one another; None: find it by
            trying all choices. For a symmetry with too many choices to try.
    """

    name: str
    apply: Change
    undo: Change
    choices: Choices
    answer: Literal["transformed", "kept", "relabelled"] = "transformed"
    canonical: Callable[[np.ndarray], np.ndarray] | None = None
    cells_only: bool = False
    renames: tuple[int, ...] = ()


def pair(
    name: str,
    apply: Callable[[np.ndarray], np.ndarray],
    undo: Callable[[np.ndarray], np.ndarray],
    answer: Literal["transformed", "kept", "relabelled"] = "transformed",
    cells_only: bool = False,
) -> Symmetry:
    """The symmetry of a single change, which is made or not; see `Symmetry` for `answer` and `cells_only`."""
    return Symmetry(
        name,
        lambda board, made: apply(board) if made else board,
        lambda board, made: undo(board) if made else board,
        (False, True),
        answer,
        cells_only=cells_only,
    )


def turns_and_flips(
    height: int, width: int, answer: Literal["transformed", "kept", "relabelled"] = "transformed"
) -> Symmetry:
    """The rotations and flips that keep the shape of a board: eight of a square, otherwise four."""
    choices = tuple(range(8)) if height == width else (0, 2, 4, 5)
    return Symmetry("turn or flip", dihedral_transform, inverse_dihedral_transform, choices, answer, None, True)


def renaming(tokens: Sequence[int], name: str = "rename the symbols") -> Symmetry:
    """All ways to rename the `tokens` among one another, such as the digits of a Latin square."""
    own = np.array(tokens)

    def table(permutation: np.ndarray) -> np.ndarray:
        names = np.arange(256, dtype=np.int64)
        names[own] = own[permutation]
        return names

    def canonical(board: np.ndarray) -> np.ndarray:
        """The tokens in the order in which they appear."""
        cells = board.ravel()
        seen = [token for token in dict.fromkeys(cells.tolist()) if token in tokens]
        order = [*seen, *(token for token in tokens if token not in seen)]
        names = np.arange(256, dtype=np.int64)
        names[order] = own
        return names[cells].reshape(board.shape)

    return Symmetry(
        name,
        lambda board, permutation: table(permutation)[board],
        lambda board, permutation: np.argsort(table(permutation))[board],
        Permutations(len(own)),
        canonical=canonical,
        renames=tuple(tokens),
    )


class Permutations(Choices):
    """All permutations of 0..n-1, int64 [n], by number; none is stored. The first changes nothing."""

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return factorial(self.n)

    def __getitem__(self, index: int) -> np.ndarray:
        """The permutation with this number.

        Raises:
            IndexError: there is none.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        rest, left = int(index), list(range(self.n))
        order: list[int] = []
        for remaining in range(self.n - 1, -1, -1):
            place, rest = divmod(rest, factorial(remaining))
            order.append(left.pop(place))
        return np.array(order, np.int64)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """See `random_choice`."""
        return rng.permutation(self.n)
