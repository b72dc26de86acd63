"""Solves puzzles by systematic search: the rules close branches, and a network says which to try first.

A lattice is closed under the rule of the task's units (`evaluators.propagation`). If cells are open then, one candidate
of one cell is tried; if every way on from there ends in a contradiction, that candidate dies, and the search goes on
without it. The network only orders the search: it is the rules alone that close a branch. So the search is complete,
and a puzzle ends as

    solved      a board that obeys the rules of the task and keeps the clues
    unsolvable  every branch is closed, which proves that there is no solution
    undecided   neither, within the allowed rounds or seconds

Each puzzle has one row of the network's batch. Where the rules alone finish a puzzle, the network is not called.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from evaluators.propagation import Propagation
from evaluators.search import Accept, SearchResult, SearchRule
from models.lattice.candidates import Candidates
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.counter_random import random_words, seed_of
from utils.random_streams import Stream

# (closed lattices bool [rows, cells, candidates], number of the call) -> the probability of each candidate, fp32 alike
Propose = Callable[[np.ndarray, int], np.ndarray]
_SYMMETRY = 1  # separates the draws of symmetries from others of the stream
_UNKNOWN = 1e-6  # probability of a candidate that lives although the network gave it none
_PER_CANDIDATE = 0.1  # certainty that makes up for one more candidate of a cell, see `choose`


def propose_with(model: LatticeDeductionTransformer, seed: int, loops: int | None) -> Propose:
    """What the digit head proposes, under a random symmetry in each call.

    Args:
        model: on its device, in evaluation mode.
        seed: of the symmetries.
        loops: loops of the network; None: as trained.
    """

    @torch.inference_mode()
    def propose(lattices: np.ndarray, call: int) -> np.ndarray:
        alive = torch.from_numpy(lattices).to(model.device)
        places = torch.arange(len(lattices), device=model.device)
        row_seeds = random_words(seed_of(seed, Stream.SEARCH, call), places, 1)[:, 0]
        symmetry = model.draw_symmetry(_SYMMETRY, row_seeds)
        if symmetry is None:
            digit: Tensor = model.network.last(alive, loops=loops).digit
        else:
            digit = symmetry.undo(model.network.last(symmetry.apply(alive), loops=loops).digit)
        return digit.float().masked_fill(~alive, -torch.inf).softmax(-1).nan_to_num(0.0).cpu().numpy()

    return propose


def choose(lattices: np.ndarray, proposals: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The open cell of each row that is decided next, and the candidate that is tried: (cells, candidates), [rows].

    A cell with few candidates fails early, and one of which the network is certain fails rarely: the cell is that with
    the largest probability of a candidate less a tenth of the number of its candidates.

    Args:
        lattices: bool [rows, cells, candidates].
        proposals: probabilities, fp32 alike; None: all candidates are alike, so that it is the first of the cells with
            the fewest candidates, and the first of these.
    """
    count = lattices.sum(2)
    weight = lattices.astype(np.float32) if proposals is None else np.where(lattices, proposals + _UNKNOWN, 0.0)
    certainty = weight.max(2) / weight.sum(2).clip(_UNKNOWN)
    cells = np.where(count > 1, certainty - _PER_CANDIDATE * count, -np.inf).argmax(1)
    return cells, weight[np.arange(len(cells)), cells].argmax(1)


@dataclass(frozen=True, eq=False)
class _Node:
    """A lattice of the tree, how many candidates have been assumed to get there, and the proposals that hold for it."""

    lattice: np.ndarray
    depth: int = 0
    proposals: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class _Puzzle:
    """The place of a puzzle among the inputs, and the branches that are left of it; the search stands at the last."""

    place: int
    branches: list[_Node]


def systematic_search(
    model: LatticeDeductionTransformer,
    inputs: np.ndarray,
    accept: Accept,
    units: Sequence[Sequence[int]],
    rule: SearchRule,
    slots: int,
    seed: int = 0,
    propose: Propose | None = None,
    report: Callable[[int, int], None] | None = None,
    record: bool = False,
) -> SearchResult:
    """Search for the solutions of puzzles.

    Args:
        model: on its device, in evaluation mode.
        inputs: tokens [n, cells].
        accept: the rules, with which every board is checked.
        units: see `Task.units`.
        rule: of it `rounds` (the most candidates that are tried for a puzzle), `seconds`, `call_depth` and `loops`.
        slots: puzzles at once.
        seed: of the symmetries under which the network is called.
        propose: what to try first; None: what the network proposes.
        report: see `evaluators.search.search`.
        record: keep the board of each puzzle after each step of the search, with open cells as in the question.

    Returns:
        The result, in which `rounds` are the candidates that were tried and `restarts` those of them that failed.
    """
    propose = propose or propose_with(model, seed, rule.loops)
    return _Systematic(model, inputs, accept, Propagation(units, inputs.shape[1]), rule, propose, record).run(
        slots, report
    )


class _Systematic:
    """The puzzles that are searched at the moment, and what has become of the others."""

    def __init__(
        self,
        model: LatticeDeductionTransformer,
        inputs: np.ndarray,
        accept: Accept,
        propagation: Propagation,
        rule: SearchRule,
        propose: Propose,
        record: bool,
    ):
        self.inputs, self.accept, self.propagation, self.rule, self.propose = inputs, accept, propagation, rule, propose
        # everything but the calls of the network is done on the host
        self.candidates = Candidates(*(part.cpu() for part in model.candidates))
        n, cells = inputs.shape
        self.questions = torch.from_numpy(inputs.astype(np.int64))
        self.lattices = self.candidates.lattice_of(self.questions).numpy()
        self.solved, self.unsolvable = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self.answers = np.zeros((n, cells), np.int64)
        self.rounds, self.failed, self.rows = (np.zeros(n, np.int64) for _ in range(3))
        self.history: list[list[np.ndarray]] | None = [[] for _ in range(n)] if record else None
        self.calls = self.rejected = 0

    def run(self, slots: int, report: Callable[[int, int], None] | None) -> SearchResult:
        begun, running, waiting = time.perf_counter(), list[_Puzzle](), 0
        while waiting < len(self.inputs) or running:
            if self.rule.seconds is not None and time.perf_counter() - begun >= self.rule.seconds:
                break
            new = range(waiting, min(len(self.inputs), waiting + slots - len(running)))
            waiting += len(new)
            running += self._settle([_Puzzle(place, [_Node(self.lattices[place])]) for place in new])
            running = [puzzle for puzzle in running if self.rounds[puzzle.place] < self.rule.rounds]
            if running:
                self._branch(running)
                running = self._settle(running)
            if report is not None:
                report(waiting - len(running), int(self.solved.sum()))
        boards = None
        if self.history is not None:
            none = np.zeros((0, self.inputs.shape[1]), np.uint8)
            boards = [np.stack(steps) if steps else none for steps in self.history]
        return SearchResult(
            self.solved, self.unsolvable, self.answers, self.rounds, self.failed, self.rows, self.calls, self.rejected,
            time.perf_counter() - begun, boards,
        )  # fmt: skip

    def _branch(self, puzzles: list[_Puzzle]) -> None:
        """Try a candidate of each puzzle, and keep the lattice without it for the case that this fails."""
        self._ask([puzzle for puzzle in puzzles if self._needs_proposals(puzzle.branches[-1])])
        nodes = [puzzle.branches[-1] for puzzle in puzzles]
        lattices, proposals = np.stack([node.lattice for node in nodes]), None
        if self.rule.call_depth != 0:
            proposals = np.stack([np.asarray(node.proposals) for node in nodes])
        for puzzle, node, cell, candidate in zip(puzzles, nodes, *choose(lattices, proposals), strict=True):
            tried, other = node.lattice.copy(), node.lattice.copy()
            tried[cell], other[cell, candidate] = False, False
            tried[cell, candidate] = True
            puzzle.branches[-1] = replace(node, lattice=other)
            puzzle.branches.append(_Node(tried, node.depth + 1, node.proposals))
            self.rounds[puzzle.place] += 1

    def _needs_proposals(self, node: _Node) -> bool:
        return self.rule.call_depth is None or node.depth < self.rule.call_depth

    def _ask(self, puzzles: list[_Puzzle]) -> None:
        """Call the network on the lattices of some puzzles."""
        if not puzzles:
            return
        proposals = self.propose(np.stack([puzzle.branches[-1].lattice for puzzle in puzzles]), self.calls)
        self.calls += 1
        for puzzle, own in zip(puzzles, proposals, strict=True):
            puzzle.branches[-1] = replace(puzzle.branches[-1], proposals=own)
            self.rows[puzzle.place] += 1

    def _settle(self, puzzles: list[_Puzzle]) -> list[_Puzzle]:
        """Close the lattices of some puzzles under the rules, and go back where that fails: the puzzles still open."""
        still_open: list[_Puzzle] = []
        while puzzles:
            closed, failed = self.propagation.close(np.stack([puzzle.branches[-1].lattice for puzzle in puzzles]))
            whole = (closed.sum(2) == 1).all(1) & ~failed
            boards = self._boards(closed, puzzles) if whole.any() or self.history is not None else None
            right = self._check(boards, np.array([puzzle.place for puzzle in puzzles]), whole)
            again: list[_Puzzle] = []
            for row, puzzle in enumerate(puzzles):
                if self.history is not None and boards is not None:
                    self.history[puzzle.place].append(boards[row].astype(np.uint8))
                if not failed[row] and not whole[row]:
                    puzzle.branches[-1] = replace(puzzle.branches[-1], lattice=closed[row])
                    still_open.append(puzzle)
                elif not right[row] and self._goes_back(puzzle):
                    again.append(puzzle)
            puzzles = again
        return still_open

    def _goes_back(self, puzzle: _Puzzle) -> bool:
        """Leave a branch that has failed for the last one before it; False if that proves that there is no solution."""
        puzzle.branches.pop()
        self.failed[puzzle.place] += bool(puzzle.branches)
        self.unsolvable[puzzle.place] = not puzzle.branches
        return bool(puzzle.branches)

    def _check(self, boards: np.ndarray | None, places: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Check the boards without open cells by the rules of the task, and keep the right ones: which these are."""
        right = np.zeros(len(places), np.bool_)
        if boards is not None and whole.any():
            right[whole] = self.accept(self.inputs[places[whole]], boards[whole])
            self.solved[places[right]], self.answers[places[right]] = True, boards[right]
            self.rejected += int((whole & ~right).sum())
        return right

    def _boards(self, lattices: np.ndarray, puzzles: list[_Puzzle]) -> np.ndarray:
        """Tokens [rows, cells] of lattices, with open cells as in the question."""
        questions = self.questions[[puzzle.place for puzzle in puzzles]]
        return self.candidates.tokens_of(torch.from_numpy(lattices), questions).numpy()
