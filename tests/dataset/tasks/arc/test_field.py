import numpy as np
import pytest

from dataset.tasks.arc.field import crop, encode


def plain_field(grid: list[list[int]], row: int, column: int) -> list[int]:
    """Cell by cell, as the format describes it."""
    height, width = len(grid), len(grid[0])
    field = [[0] * 30 for _ in range(30)]
    for i in range(30):
        for j in range(30):
            inside_rows, inside_columns = row <= i < row + height, column <= j < column + width
            if inside_rows and inside_columns:
                field[i][j] = grid[i - row][j - column] + 2
            elif (i == row + height and inside_columns) or (j == column + width and inside_rows):
                field[i][j] = 1
    return [token for line in field for token in line]


def plain_crop(tokens: list[int]) -> tuple[int, int]:
    """Heights from 1 up, the allowed width shrinking; the first maximum of the area wins."""
    best, size, width = 0, (0, 0), 30
    for height in range(1, 31):
        line = tokens[(height - 1) * 30 : height * 30]
        run = next((i for i, token in enumerate(line) if not 2 <= token <= 11), 30)
        width = min(width, run)
        if height * width > best:
            best, size = height * width, (height, width)
    return size


@pytest.mark.parametrize(
    ("height", "width", "row", "column"),
    [
        *[(3, 4, 0, 0), (3, 4, 7, 9), (3, 4, 27, 26), (3, 4, 27, 0), (3, 4, 0, 26), (3, 4, 26, 25), (30, 30, 0, 0)],
        *[
            (30, 1, 0, 29),
            (1, 30, 29, 0),
            (1, 1, 29, 29),
            (29, 29, 1, 1),
            (29, 29, 0, 0),
            (30, 5, 0, 25),
            (30, 5, 0, 24),
        ],
    ],
)
def test_a_grid_is_placed_with_its_border_inside_the_field(height: int, width: int, row: int, column: int) -> None:
    grid = np.random.default_rng(height * width).integers(0, 10, (height, width), dtype=np.uint8)
    assert encode(grid, row, column).tolist() == plain_field(grid.tolist(), row, column)


def test_a_grid_that_leaves_the_field_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves the 30x30 field"):
        encode(np.zeros((3, 4), dtype=np.uint8), 28, 0)


def test_crop_agrees_with_a_plain_scan() -> None:
    rng = np.random.default_rng(0)
    fields = rng.integers(2, 12, (300, 30, 30), dtype=np.uint8)
    for field, holes in zip(fields, range(300), strict=True):  # few and many cells that are no colour
        field[rng.integers(0, 30, holes), rng.integers(0, 30, holes)] = rng.integers(0, 2, holes)
        if holes % 3 == 0:
            field[rng.integers(1, 30) :] = 0
            field[:, rng.integers(1, 30) :] = 0
    fields = fields.reshape(300, 900)
    for field, grid in zip(fields, crop(fields), strict=True):
        height, width = plain_crop(field.tolist())
        assert grid.shape == (height, width)
        np.testing.assert_array_equal(grid, field.reshape(30, 30)[:height, :width] - 2)


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ([[0, 5], [5, 5]], (0, 0)),  # the corner is no colour
        ([[1]], (0, 0)),
        ([[12, 5]], (0, 0)),  # past the last colour
        ([[5, 5, 5, 5], [5, 0, 0, 0]], (1, 4)),  # the larger area
        ([[5, 5], [5, 0]], (1, 2)),  # equal areas: the lower one
        ([[5, 5, 0], [5, 5, 5]], (2, 2)),  # the allowed width does not grow again
    ],
)
def test_crop_of_hand_made_fields(lines: list[list[int]], size: tuple[int, int]) -> None:
    field = np.zeros((30, 30), dtype=np.int64)
    field[: len(lines), : len(lines[0])] = lines
    (grid,) = crop(field.reshape(1, 900))
    assert grid.shape == size
    assert grid.dtype == np.uint8


def test_encode_then_crop_is_the_identity() -> None:
    rng = np.random.default_rng(1)
    grids = [rng.integers(0, 10, rng.integers(1, 31, 2), dtype=np.uint8) for _ in range(50)]
    for grid, cropped in zip(grids, crop(np.stack([encode(grid) for grid in grids])), strict=True):
        np.testing.assert_array_equal(grid, cropped)
