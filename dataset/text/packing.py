"""Filling rows of a fixed length with pieces of text, none of them cut: one-dimensional bin packing.

Stories have similar lengths, which makes packing hard: of stories between 150 and 250 tokens, rows of 512 hold two or
three, and the usual best-fit-decreasing heuristic leaves 5 % of the positions empty, because it spends the short
pieces on rows that would do with two and then has none left for threes that fit exactly. `pack` looks for the length
from which a piece should be content with one partner; that leaves about 2 % empty.
"""

from collections.abc import Sequence

GOOD_ENOUGH = 0.99  # share of real positions at which `pack` stops looking for better


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of piece numbers such that no row is longer than `capacity`; every piece is in exactly one row.

    The same for the same arguments. Pieces of equal length are exchangeable, so the order of the pieces decides which
    of them share a row.

    Args:
        lengths: length of each piece, 1..capacity.
        capacity: length of a row.
    """
    assert all(1 <= length <= capacity for length in lengths)
    enough = sum(lengths) / (GOOD_ENOUGH * capacity)
    # Above capacity / 2 two long pieces do not fit together; below capacity / 3 three of a kind fit.
    low, high = capacity // 3, capacity // 2
    step = max(1, (high - low) // 4)
    tries = {0: fill_rows(lengths, capacity, 0)}
    candidates = [low + step, low + 2 * step, low + 3 * step]
    while True:
        for candidate in candidates:
            if min(map(len, tries.values())) <= enough:
                break
            if candidate not in tries:
                tries[candidate] = fill_rows(lengths, capacity, candidate)
        best = min(tries, key=lambda candidate: (len(tries[candidate]), candidate))
        step //= 2
        if step < 1 or best == 0 or len(tries[best]) <= enough:
            return tries[best]
        candidates = [best - step, best + step]


def fill_rows(lengths: Sequence[int], capacity: int, one_partner_from: int) -> list[list[int]]:
    """Fill one row after the other, each begun with the longest piece that is left.

    What is left of a row gets the one or two pieces that fill it best, again and again until nothing fits. Where the
    first piece is at least `one_partner_from` long, the piece after it is the longest that fits, without a look at
    pairs.
    """
    shelf = _Shelf(lengths, capacity)
    rows: list[list[int]] = []
    while longest := shelf.longest(capacity):
        row = [shelf.take(longest)]
        free = capacity - longest
        pairs = longest < one_partner_from
        while chosen := shelf.best_fill(free, pairs):
            row.extend(map(shelf.take, chosen))
            free -= sum(chosen)
            pairs = True
        rows.append(row)
    return rows


class _Shelf:
    """Pieces by length."""

    def __init__(self, lengths: Sequence[int], capacity: int):
        self.pieces: list[list[int]] = [[] for _ in range(capacity + 1)]
        for piece, length in enumerate(lengths):
            self.pieces[length].append(piece)
        # bit n is set where there are pieces of length n: the longest up to a limit is then one operation
        self.there = sum(1 << length for length, pieces in enumerate(self.pieces) if pieces)

    def take(self, length: int) -> int:
        """Remove a piece of that length."""
        pieces = self.pieces[length]
        piece = pieces.pop()
        if not pieces:
            self.there ^= 1 << length
        return piece

    def longest(self, limit: int) -> int:
        """The greatest length up to `limit`; 0 if there is none."""
        return max(0, (self.there & ((2 << limit) - 1)).bit_length() - 1)

    def best_fill(self, free: int, pairs: bool) -> tuple[int, ...]:
        """One or (with `pairs`) two lengths whose sum is nearest to `free` from below; () if nothing fits."""
        first = self.longest(free)
        if not first or first == free or not pairs:
            return (first,) if first else ()
        most, best = first, (first,)
        while 2 * first > most and most < free:  # a pair whose longer piece is shorter cannot be better
            second = self.longest(min(first, free - first))
            if second == first and len(self.pieces[first]) == 1:
                second = self.longest(first - 1)
            if second and first + second > most:
                most, best = first + second, (first, second)
            first = self.longest(first - 1)
        return best
