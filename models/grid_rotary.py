"""Rotary positions on a grid: part of each head turns with the row of a cell, and part with its column."""

from math import isqrt
from typing import Literal

import torch
from torch import Tensor, nn

from models.view import Rotation
from utils.errors import UserError


class GridRotaryEmbedding(nn.Module):
    """Angles of rotary position embeddings on a grid in row-major order, in the "rotate-half" layout.

    With h = head_dim / 2, both the row and the column have the frequencies theta^(-2i / h), i = 0 .. h / 2 - 1. The
    layout says which channels turn with which of the two:
        halves: the first half of a head with the row, and the second with the column, each half rotated by itself;
        quarters: the quarters with row, column, row, column, the head rotated as a whole.

    Args:
        head_dim: width of a head, a multiple of 4.
        height, width: sides of the grid.
        theta: base of the frequencies.
        layout: see above.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, height: int, width: int, theta: float, layout: Literal["halves", "quarters"]):
        super().__init__()
        half = head_dim // 2
        frequencies = 1.0 / (theta ** (torch.arange(0, half, 2, dtype=torch.float32) / half))
        cells = torch.arange(height * width)
        row, column = (torch.outer(place.float(), frequencies) for place in (cells // width, cells % width))
        order = (row, row, column, column) if layout == "halves" else (row, column, row, column)
        angles = torch.cat(order, dim=1)
        self.sections = 2 if layout == "halves" else 1
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self) -> Rotation:
        return Rotation(self.cos, self.sin, self.sections)


def grid_sides(seq_len: int, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) of a grid of `seq_len` cells; None: square.

    Raises:
        UserError: the grid has another number of cells.
    """
    if height is None and width is None:
        height = width = isqrt(seq_len)
    elif height is None or width is None:
        given = height or width or 1
        height, width = (height or seq_len // given, width or seq_len // given)
    if height * width != seq_len:
        raise UserError(
            f"arch: a grid of {height} x {width} cells has not the {seq_len} cells of these data. Set "
            "arch.board_height and arch.board_width, or choose pos_encodings=rope."
        )
    return height, width
