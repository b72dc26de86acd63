"""The published labels of mazes, computed with a few batched tensor operations on the device of the mazes.

`dataset.tasks.maze.paths.label_mazes` follows the path move by move. Here every cell points to the cell reached by the
first move that gets closer to G, and the path from S is found by pointer doubling: the first 2**k cells of the path and
the jumps of 2**k moves give twice as many cells.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.tasks.maze.rules import GOAL, MOVES, PATH, START


def mark_paths(mazes: Tensor, remainders: Tensor) -> Tensor:
    """The mazes with the path marked, like `dataset.tasks.maze.paths.label_mazes`, S and G kept: [n, height, width].

    Args:
        mazes: tokens [n, height, width]. The result for a maze without S is undefined.
        remainders: uint8 [n, height, width], see `dataset.tasks.maze.paths.goal_remainders`. Rotating or flipping a
            maze rotates or flips them, so they are computed once for all symmetries.
    """
    n, height, width = mazes.shape
    own = torch.arange(height * width, device=mazes.device).view(height, width)
    padded = F.pad(remainders, (1, 1, 1, 1), value=255)  # no move leads out of the maze
    nearer = (remainders + 3) & 3  # one less modulo 4
    following = own.expand(n, height, width)
    for down, right in reversed(MOVES):  # the first possible move is written last, so it wins
        neighbour = padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        following = torch.where(neighbour == nearer, own + (down * width + right), following)

    jump, cells = following.flatten(1), mazes.flatten(1)
    path = (cells == START).to(torch.uint8).argmax(1, keepdim=True)
    while True:
        path = torch.cat((path, jump.gather(1, path)), dim=1)
        if path.shape[1] >= height * width:  # no path is longer; reading the actual lengths would wait for the device
            break
        jump = jump.gather(1, jump)
    marked = cells.scatter(1, path, PATH)
    return torch.where((cells == START) | (cells == GOAL), cells, marked).view_as(mazes)
