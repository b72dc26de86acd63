"""Mazes as a task."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from dataset.tasks.look import Look
from dataset.tasks.maze.augmentation import MazeAugmentation
from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.look import MazeLook
from dataset.tasks.maze.paths import label_mazes, path_lengths
from dataset.tasks.maze.rules import CHARACTERS, GOAL, PATH, SPACE, START, WALL, grid_of
from dataset.tasks.maze.symmetries import maze_keys
from dataset.tasks.puzzle import Solutions, Verdict
from dataset.tasks.symmetry import Symmetry, turns_and_flips
from dataset.tasks.task import Task
from dataset.tasks.written import Notation
from utils.errors import UserError


class Maze(Task):
    """Mazes of one height and width.

    Most mazes have many shortest paths, but token accuracy accepts only one of them. The checks:
        valid_path: the cells answered "o" are free cells, and together with S and G they form one path between the two,
            without branches, shortcuts or stray cells. The answers at S and G, and which other token is answered at
            the remaining cells, do not matter;
        shortest_path: in addition, the maze has no shorter path.

    Args:
        seq_len: number of cells of a maze.
        vocab_size: number of tokens.
        height: number of rows of a maze; None for square mazes.

    Raises:
        UserError: no mazes have these sizes.
    """

    name: ClassVar[str] = "maze"
    title: ClassVar[str] = "Maze"
    published: ClassVar[tuple[tuple[int, int], ...]] = ((900, 6),)
    checks: ClassVar[tuple[str, ...]] = ("valid_path", "shortest_path")
    solved_check: ClassVar[str] = "shortest_path"
    builder: ClassVar[str | None] = "dataset.build_maze_dataset"

    def __init__(self, seq_len: int, vocab_size: int, height: int | None = None):
        super().__init__(seq_len, vocab_size)
        self.height, self.width = grid_of(seq_len, vocab_size, height)

    def check(self, inputs: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        """See `Task.check`."""
        mazes = inputs.reshape(-1, self.height, self.width)
        ends = (mazes == START) | (mazes == GOAL)
        marked = (answers.reshape(mazes.shape) == PATH) & ~ends
        off_walls = (~marked | (mazes == SPACE)).all(axis=(1, 2))
        # The shortest path over marked cells only visits all of them exactly if they form a path.
        moves = np.count_nonzero(marked, axis=(1, 2)) + 1
        valid = off_walls & (path_lengths(mazes, marked | ends) == moves)
        return {"valid_path": valid, "shortest_path": valid & (path_lengths(mazes) == moves)}

    def symmetries(self) -> Sequence[Symmetry]:
        """See `Task.symmetries`: rotations and flips. The turned path is a shortest one, but not that of the labels."""
        return [turns_and_flips(self.height, self.width, answer="relabelled")]

    def candidates(self) -> np.ndarray:
        """See `Task.candidates`: a free cell may be on the path."""
        allowed = np.eye(self.vocab_size, dtype=np.bool_)
        allowed[SPACE, PATH] = True
        return allowed

    def key(self, question: np.ndarray) -> bytes:
        """See `Task.key`."""
        return maze_keys(question.reshape(1, self.height, self.width))[0]

    def augmentation(self) -> MazeAugmentation:
        """See `Task.augmentation`: the symmetries, on whole batches."""
        return MazeAugmentation(self.height, self.width)

    def look(self) -> Look:
        """See `Task.look`."""
        return MazeLook(self.height, self.width)

    def notation(self) -> Notation:
        """See `Task.notation`: `#` is a wall, a space or a dot a free cell, S the start and G the goal."""
        symbols = {character: token for token, character in enumerate(CHARACTERS, start=1) if token != PATH}
        symbols |= {".": SPACE}
        allowed = "# for a wall, a space or . for a free cell, one S and one G"
        return Notation(
            f"a maze of {self.height}x{self.width}", self.height, self.width, symbols, _token_of_number, allowed
        )

    def encode(self, puzzle: Any) -> np.ndarray:
        """See `Task.encode`; numbers are the tokens of the data sets: 1 wall, 2 free, 3 S, 4 G."""
        tokens = super().encode(puzzle)
        for token in (START, GOAL):
            count = int(np.count_nonzero(tokens == token))
            if count != 1:
                name = CHARACTERS[token - 1]
                raise UserError(
                    f"{self.notation().name}: it has {count if count else 'no'} {name}. A maze has one S, where "
                    "the path starts, and one G, where it ends. Correct the maze."
                )
        return tokens

    def encode_answer(self, answer: Any, question: np.ndarray) -> np.ndarray:
        """See `Task.encode_answer`: the maze with the path marked `o`."""
        notation = self.notation()
        return replace(notation, symbols={**notation.symbols, CHARACTERS[PATH - 1]: PATH}).read(answer)

    def rows(self, tokens: np.ndarray, question: np.ndarray | None = None) -> list[str]:
        """See `Task.rows`: an answer is its maze with the cells answered `o` marked."""
        if question is not None:
            marked = (tokens == PATH) & (question != START) & (question != GOAL)
            tokens = np.where(marked, PATH, question)
        return super().rows(tokens)

    def solutions(self, question: np.ndarray) -> Solutions:
        """See `Task.solutions`: shortest paths."""
        maze = question.reshape(1, self.height, self.width)
        moves = int(path_lengths(maze)[0])
        if moves < 0:
            return Solutions("none", "it has no solution, because no path leads from S to G")
        return Solutions("unknown", f"there is a path of {moves} moves, and perhaps others of the same length")

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """See `Task.solve`: the shortest path that data sets have as the label."""
        maze = question.reshape(1, self.height, self.width)
        return label_mazes(maze).reshape(-1) if path_lengths(maze)[0] >= 0 else None

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Task.verify`; any shortest path counts as solved."""
        maze = question.reshape(1, self.height, self.width)
        shortest = int(path_lengths(maze)[0])
        if shortest < 0:
            return Verdict("undecided", "it has no solution, because no path leads from S to G")
        checks = {name: bool(passed[0]) for name, passed in self.check(question[None], answer[None]).items()}
        if checks["shortest_path"]:
            return Verdict("solved", f"a shortest path from S to G, of {shortest} moves")
        marked = (answer == PATH) & (question != START) & (question != GOAL)
        if checks["valid_path"]:
            moves = int(np.count_nonzero(marked)) + 1
            return Verdict("wrong", f"a path from S to G of {moves} moves, and there is one of {shortest}")
        if walls := int(np.count_nonzero(marked & (question != SPACE))):
            return Verdict("wrong", f"{walls} of the marked cells {'is a wall' if walls == 1 else 'are walls'}")
        return Verdict("wrong", "the marked cells are no path from S to G without gaps and branches")

    def generate(self, rng: np.random.Generator, difficulty: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """See `Task.generate`; there is one difficulty, which depends on the size."""
        maze = next(generate_mazes(1, self.height, self.width, rng))
        return maze.reshape(-1), label_mazes(maze[None]).reshape(-1)


def _token_of_number(number: int) -> int | None:
    return number if number in (WALL, SPACE, START, GOAL) else None
