"""The published maze path by textbook breadth-first search, one maze at a time, to check the labeller."""

from collections import deque

import numpy as np

from dataset.tasks.maze.rules import GOAL, PATH, START, WALL


def plain_label(maze: np.ndarray) -> np.ndarray | None:
    """`maze` [height, width] with its path marked, or None where G is out of reach."""
    height, width = maze.shape
    start = (int(np.argmax(maze == START)) // width, int(np.argmax(maze == START)) % width)
    parents: dict[tuple[int, int], tuple[int, int] | None] = {start: None}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        if maze[cell] == GOAL:
            label = maze.copy()
            back = parents[cell]
            while back is not None and back != start:
                label[back] = PATH
                back = parents[back]
            return label
        row, col = cell
        for neighbour in ((row + 1, col), (row, col - 1), (row, col + 1), (row - 1, col)):
            inside = 0 <= neighbour[0] < height and 0 <= neighbour[1] < width
            if inside and maze[neighbour] != WALL and neighbour not in parents:
                parents[neighbour] = cell
                queue.append(neighbour)
    return None
