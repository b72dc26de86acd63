"""The published labels of mazes as a few batched tensor operations, on whatever device the mazes are.

`dataset.maze.label_mazes` follows the path move by move. Here every cell points to where the first move that comes
nearer to G leads, and the path from S is found by doubling: its first 2**k cells and the jumps of 2**k moves give twice
as many.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.maze import GOAL, MOVES, PATH, START


def mark_paths(mazes: Tensor, remainders: Tensor) -> Tensor:
    """Mazes with the path marked, S and G kept: [n, height, width], as `dataset.maze.label_mazes` marks it.

    Args:
        mazes: tokens [n, height, width]. What comes out for one that has no S is undefined.
        remainders: uint8 [n, height, width], see `dataset.maze.goal_remainders`. A turned or flipped maze has them
            turned or flipped, so they are found once for all its symmetries.
    """
    n, height, width = mazes.shape
    own = torch.arange(height * width, device=mazes.device).view(height, width)
    padded = F.pad(remainders, (1, 1, 1, 1), value=255)  # no move leaves the maze
    nearer = (remainders + 3) & 3  # one less modulo 4
    following = own.expand(n, height, width)
    for down, right in reversed(MOVES):  # the first possible move is written last
        neighbour = padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        following = torch.where(neighbour == nearer, own + (down * width + right), following)

    jump, cells = following.flatten(1), mazes.flatten(1)
    path = (cells == START).to(torch.uint8).argmax(1, keepdim=True)
    while True:
        path = torch.cat((path, jump.gather(1, path)), dim=1)
        if path.shape[1] >= height * width:  # no path is longer; how long each is would have to be read from the device
            break
        jump = jump.gather(1, jump)
    marked = cells.scatter(1, path, PATH)
    return torch.where((cells == START) | (cells == GOAL), cells, marked).view_as(mazes)
