"""Packing against exhaustive search, instances that are known to fill rows, and best-fit decreasing."""

from collections.abc import Sequence

import numpy as np
import pytest

from dataset.text.packing import _Shelf, fill_rows, pack


def best_number_of_rows(lengths: Sequence[int], capacity: int) -> int:
    """By trying every row for every piece."""
    longest_first = sorted(lengths, reverse=True)

    def fits(piece: int, free: list[int]) -> bool:
        if piece == len(longest_first):
            return True
        length = longest_first[piece]
        return any(
            fits(piece + 1, [*free[:row], free[row] - length, *free[row + 1 :]])
            for row in range(len(free))
            if free[row] >= length and free[row] not in free[:row]
        )

    return next(rows for rows in range(len(lengths) + 1) if fits(0, [capacity] * rows))


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> int:
    """The number of rows that the usual heuristic needs."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in range(len(free)) if free[row] >= length]
        row = min(fitting, key=free.__getitem__, default=len(free))
        free[row:] = [capacity] if row == len(free) else free[row:]
        free[row] -= length
    return len(free)


def story_lengths(count: int, seed: int) -> list[int]:
    """Spread as those of TinyStories: half of them between 155 and 220 tokens, few short ones, a long tail."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(185), 0.28, count)) + (rng.random(count) < 0.08) * rng.exponential(150, count)
    return np.clip(lengths, 40, 512).astype(int).tolist()


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 30, 512])
def test_every_piece_is_in_one_row_that_holds_it(capacity: int):
    rng = np.random.default_rng(capacity)
    for count in (0, 1, 2, 50, 400):
        lengths = rng.integers(1, capacity + 1, count).tolist()
        rows = pack(lengths, capacity)
        assert sorted(piece for row in rows for piece in row) == list(range(count))
        assert all(row and sum(lengths[piece] for piece in row) <= capacity for row in rows)
        assert rows == pack(lengths, capacity)


def test_few_pieces_are_packed_about_as_well_as_can_be():
    rng = np.random.default_rng(0)
    used = best = 0
    for _ in range(150):
        lengths = rng.integers(1, 21, rng.integers(1, 10)).tolist()
        rows, least = len(pack(lengths, 20)), best_number_of_rows(lengths, 20)
        assert least <= rows <= least + 1
        used, best = used + rows, best + least
    assert used <= 1.02 * best


def test_the_best_fill_is_the_best_of_all_pairs():
    rng = np.random.default_rng(1)
    for _ in range(300):
        lengths = rng.integers(1, 40, rng.integers(1, 12)).tolist()
        shelf, free = _Shelf(lengths, 40), int(rng.integers(0, 41))
        singles = [length for length in lengths if length <= free]
        pairs = [a + b for i, a in enumerate(lengths) for b in lengths[:i] if a + b <= free]
        chosen = shelf.best_fill(free, pairs=True)
        assert sum(chosen) == max([0, *singles, *pairs])
        assert sum(shelf.best_fill(free, pairs=False)) == max([0, *singles])
        taken = [shelf.take(length) for length in chosen]
        assert len(set(taken)) == len(taken)
        assert [lengths[piece] for piece in taken] == list(chosen)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6])
def test_rows_that_were_cut_into_pieces_are_nearly_restored(parts: int):
    rng = np.random.default_rng(parts)
    lengths: list[int] = []
    for _ in range(300):
        cuts = np.sort(rng.choice(np.arange(1, 512), parts - 1, replace=False))
        lengths += np.diff([0, *cuts, 512]).tolist()
    assert len(pack(lengths, 512)) <= (300 if parts < 3 else 306)


def test_stories_fill_more_than_the_usual_heuristic_does():
    for seed in range(3):
        lengths = story_lengths(2048, seed)
        rows = len(pack(lengths, 512))
        assert sum(lengths) / (512 * rows) > 0.975
        assert rows < 0.985 * best_fit_decreasing(lengths, 512)
        assert rows <= len(fill_rows(lengths, 512, 0))
