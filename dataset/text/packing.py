"""Packing pieces of text into rows of a fixed length without cutting them: one-dimensional bin packing.

Stories have similar lengths, which makes packing hard. With stories of 150 to 250 tokens, a row of 512 holds two or
three. The usual best-fit-decreasing heuristic leaves 5 % of the positions empty, because it uses up the short pieces in
rows that two pieces would fill well, and then has none left for rows of three that fit exactly. `pack` searches for the
length from which a piece should get only one partner; that leaves about 2 % empty.
"""

from collections.abc import Sequence

GOOD_ENOUGH = 0.99  # filled fraction of all positions at which `pack` stops searching


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of piece indices such that no row is longer than `capacity` and every piece is in exactly one row.

    The result is deterministic. Pieces of equal length are interchangeable, so the order of the pieces decides which of
    them share a row.

    Args:
        lengths: length of each piece, 1..capacity.
        capacity: length of a row.
    """
    assert all(1 <= length <= capacity for length in lengths)
    enough = sum(lengths) / (GOOD_ENOUGH * capacity)
    # Two pieces longer than capacity / 2 do not fit together; three pieces of up to capacity / 3 do.
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
    """Fill one row after another, starting each with the longest remaining piece.

    The free space of a row is filled with the one or two pieces that fit best, repeatedly, until nothing fits. If the
    first piece is at least `one_partner_from` long, the second is simply the longest piece that fits; pairs are not
    considered for it.

    Args:
        lengths: length of each piece, 1..capacity.
        capacity: length of a row.
        one_partner_from: length of the first piece from which the second piece is chosen alone.

    Returns:
        Rows of piece indices.
    """
    remaining = _Shelf(lengths, capacity)
    rows: list[list[int]] = []
    while longest := remaining.longest(capacity):
        row = [remaining.take(longest)]
        free = capacity - longest
        pairs = longest < one_partner_from
        while chosen := remaining.best_fill(free, pairs):
            row.extend(map(remaining.take, chosen))
            free -= sum(chosen)
            pairs = True
        rows.append(row)
    return rows


class _Shelf:
    """The remaining pieces, grouped by length."""

    def __init__(self, lengths: Sequence[int], capacity: int):
        self.pieces: list[list[int]] = [[] for _ in range(capacity + 1)]
        for piece, length in enumerate(lengths):
            self.pieces[length].append(piece)
        # bit n is set if there are pieces of length n, so finding the longest up to a limit takes one operation; bit 0
        # is always set, and is found if there is none
        self.there = 1 + sum(1 << length for length, pieces in enumerate(self.pieces) if pieces)

    def take(self, length: int) -> int:
        """Remove a piece of this length and return its index."""
        pieces = self.pieces[length]
        piece = pieces.pop()
        if not pieces:
            self.there ^= 1 << length
        return piece

    def longest(self, limit: int) -> int:
        """The largest available length up to `limit`; 0 if there is none."""
        return (self.there & ((2 << limit) - 1)).bit_length() - 1

    def best_fill(self, free: int, pairs: bool) -> tuple[int, ...]:
        """One or (with `pairs`) two lengths with the largest sum up to `free`; () if nothing fits."""
        # `longest` is written out here, because its calls would take half of the time
        there = self.there
        first = (there & ((2 << free) - 1)).bit_length() - 1
        if not first or first == free or not pairs:
            return (first,) if first else ()
        most, best = first, (first,)
        while 2 * first > most and most < free:  # otherwise no pair with this longer piece can be better
            limit = first if 2 * first < free else free - first
            second = (there & ((2 << limit) - 1)).bit_length() - 1
            if second == first and len(self.pieces[first]) == 1:
                second = (there & ((1 << first) - 1)).bit_length() - 1
            if second and first + second > most:
                most, best = first + second, (first, second)
            first = (there & ((1 << first) - 1)).bit_length() - 1
        return best
