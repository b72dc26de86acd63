"""Mazes: the shortest path from S to G."""

from dataset.tasks.maze.task import Maze

__all__ = ["Maze"]
