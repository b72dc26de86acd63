"""Mazes and the tokens of their data sets.

A maze is an array of tokens [height, width], or flat in row-major order. Token 0 is padding; the others are the index
in `# SGo` plus 1. The label is the maze with a shortest path from S to G marked "o".
"""

from math import isqrt

from utils.errors import UserError

CHARACTERS = "# SGo"
PAD, WALL, SPACE, START, GOAL, PATH = range(6)
VOCAB_SIZE = 6
MOVES = ((1, 0), (0, -1), (0, 1), (-1, 0))  # down, left, right, up: (row, column)


def grid_of(seq_len: int, vocab_size: int, height: int | None = None) -> tuple[int, int]:
    """(height, width) of the mazes of a data set, square unless `height` is given.

    Raises:
        UserError: no maze has these sizes.
    """
    if vocab_size != VOCAB_SIZE:
        raise UserError(
            f"vocab_size {vocab_size}: mazes have {VOCAB_SIZE} tokens. "
            "Choose a data set built with `python -m dataset.build_maze_dataset`."
        )
    if height is None:
        height = isqrt(seq_len)
        if height**2 != seq_len:
            raise UserError(f"seq_len {seq_len} is no square number: give the `height` of the mazes.")
    elif height < 1 or seq_len % height:
        raise UserError(f"mazes of {height} rows: seq_len {seq_len} must be a multiple of the height.")
    return height, seq_len // height
