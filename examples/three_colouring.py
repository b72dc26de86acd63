"""3-colouring: give each node of a graph one of three colours, so that no edge joins two of one colour.

The board is the adjacency matrix of a graph of ten nodes, with the colours on its diagonal. There are many right
answers: colours may be renamed, and most graphs have colourings that differ in more than that.
"""

import numpy as np

from dataset.tasks.puzzle import Verdict
from dataset.tasks.symmetry import Permutations, Symmetry
from dataset.tasks.task import Task

NODES, COLOURS = 10, 3
APART, JOINED, OPEN, RED, GREEN, BLUE = range(1, 7)  # tokens: places in `symbols`, from 1 on


def first_colouring(edges: np.ndarray) -> np.ndarray | None:
    """The first colouring [nodes] of edges [nodes, nodes] in lexicographic order; None if there is none."""
    colours: list[int] = []

    def extend() -> bool:
        node = len(colours)
        if node == NODES:
            return True
        for colour in range(COLOURS):
            if all(colours[other] != colour for other in np.flatnonzero(edges[node, :node])):
                colours.append(colour)
                if extend():
                    return True
                colours.pop()
        return False

    return np.array(colours) if extend() else None


class ThreeColouring(Task):
    """3-colouring of ten nodes; the difficulty is the number of edges. The label is the first colouring of all."""

    name = "three_colouring"
    title = "ThreeColouring"
    symbols = "-#?RGB"
    shape = (NODES, NODES)
    blank = "?"
    difficulties = (12, 15, 18)

    def generate(self, rng: np.random.Generator, difficulty: int) -> tuple[np.ndarray, np.ndarray]:
        """Random edges between nodes that a hidden colouring sets apart."""
        hidden = rng.integers(COLOURS, size=NODES)
        first, second = np.nonzero(np.triu(hidden[:, None] != hidden))
        if len(first) < difficulty:
            return self.generate(rng, difficulty)
        chosen = rng.permutation(len(first))[:difficulty]
        question = np.full((NODES, NODES), APART)
        question[first[chosen], second[chosen]] = question[second[chosen], first[chosen]] = JOINED
        np.fill_diagonal(question, OPEN)
        answer = self.solve(question)
        assert answer is not None
        return question, answer

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        """The first colouring, which is the label."""
        board = question.reshape(NODES, NODES).copy()
        colours = first_colouring(board == JOINED)
        if colours is None:
            return None
        np.fill_diagonal(board, RED + colours)
        return board.reshape(-1)

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """Any colouring is right. What is answered beside the diagonal does not count."""
        edges, colours = question.reshape(NODES, NODES) == JOINED, np.diag(answer.reshape(NODES, NODES))
        if (colours < RED).any():
            return Verdict("wrong", f"{np.count_nonzero(colours < RED)} nodes have no colour")
        same = np.argwhere(np.triu(edges & (colours[:, None] == colours)))
        if len(same):
            return Verdict("wrong", f"the nodes {same[0, 0] + 1} and {same[0, 1] + 1} are joined and have one colour")
        return Verdict("solved", "no edge joins two nodes of one colour")

    def symmetries(self) -> list[Symmetry]:
        """Nodes may be numbered in another way; then another colouring comes first."""

        def numbered(board: np.ndarray, order: np.ndarray) -> np.ndarray:
            return board[np.ix_(order, order)]

        def numbered_back(board: np.ndarray, order: np.ndarray) -> np.ndarray:
            return numbered(board, np.argsort(order))

        return [Symmetry("renumber the nodes", numbered, numbered_back, Permutations(NODES), "relabelled")]
