"""Solves puzzles with an LDT by search: many random chains for each puzzle, which start again after a conflict.

Each puzzle has a slot of several chains, which are rows of one batch. A round is one deduction step of every row, with
fresh symmetries and decisions, and with dropout as a source of variety. A chain in conflict starts again from the
puzzle. A puzzle leaves its slot when a chain has solved it, or undecided after a number of rounds, and the next one
takes the slot. A board counts as solved only if it obeys the rules of the task and keeps the clues, so no answer is
wrong; a chain whose board does not pass starts again. (LDT, arXiv 2605.08605, which does not check the boards.)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.lattice.lattice import given_cells
from models.lattice.loss_head import random_choice
from models.recursive_reasoning.ldt import Choose, LatticeDeductionTransformer
from utils.counter_random import random_words, seed_of
from utils.random_streams import Stream

# (questions, answers), tokens [n, cells] -> which answers are right by the rules, bool [n]
Accept = Callable[[np.ndarray, np.ndarray], np.ndarray]
# (round, a seed for each row) -> how open cells are decided in that round
ChooseInRound = Callable[[int, Tensor], Choose]
_SYMMETRY = 1  # separates the draws of symmetries from those of decisions


@dataclass(frozen=True)
class SearchRule:
    """How puzzles are searched.

    Attributes:
        chains: chains of each puzzle.
        rounds: rounds after which a puzzle is given up.
        conflict_threshold: a chain is in conflict if the probability of the conflict head exceeds this.
        dropout: dropout rate, a source of variety.
        seconds: stop after this time, with the remaining puzzles undecided; None: no limit.
        loops: loops of the network in a call; None: as in training.
        propagate: search systematically, by the rules as well as the network (`evaluators.systematic_search`), in which
            `chains`, `conflict_threshold` and `dropout` play no part.
        call_depth: of a systematic search: the network is called where fewer candidates than this are assumed, and its
            proposals hold for all that follows from there; 0: it is never called; None: it is called everywhere.
    """

    chains: int = 64
    rounds: int = 1000
    conflict_threshold: float = 0.6
    dropout: float = 0.05
    seconds: float | None = None
    loops: int | None = None
    propagate: bool = False
    call_depth: int | None = 1


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found; arrays have an entry for each puzzle."""

    solved: np.ndarray  # bool [n]
    unsolvable: np.ndarray  # bool [n], proven to have no solution; only a systematic search can do that
    answers: np.ndarray  # tokens [n, cells] of the solved puzzles; 0 in other rows
    rounds: np.ndarray  # int64 [n], rounds spent; 0 where time ran out before the puzzle got a slot
    restarts: np.ndarray  # int64 [n], how often one of its chains started again
    rows: np.ndarray  # int64 [n], lattices of the puzzle that the network was called on
    calls: int  # calls of the network
    rejected: int  # boards that a chain took for solved although they break a rule or a clue
    seconds: float
    boards: list[np.ndarray] | None = None  # with `record`, of each puzzle tokens [rounds, cells], see `search`


def search(
    model: LatticeDeductionTransformer,
    inputs: np.ndarray,
    accept: Accept,
    rule: SearchRule,
    slots: int,
    seed: int = 0,
    choose_in_round: ChooseInRound | None = None,
    report: Callable[[int, int], None] | None = None,
    record: bool = False,
) -> SearchResult:
    """Search for the solutions of puzzles.

    Args:
        model: on its device, in evaluation mode.
        inputs: tokens [n, cells].
        accept: the rules, with which every board is checked.
        rule: how to search.
        slots: puzzles at once.
        seed: of all random choices.
        choose_in_round: how open cells are decided; None: at random, with the model's temperature.
        report: called after each round in which a puzzle has left its slot, with the numbers of puzzles that have left
            and that are solved.
        record: keep the board of each puzzle after each round, with undecided cells as in the question: of the chain
            that solved it, with its restarts, or of the first chain if none did.
    """
    return _Search(model, inputs, accept, rule, slots, seed, choose_in_round, record).run(report)


class _Search:
    """The slots, and which puzzle is in which slot."""

    def __init__(
        self,
        model: LatticeDeductionTransformer,
        inputs: np.ndarray,
        accept: Accept,
        rule: SearchRule,
        slots: int,
        seed: int,
        choose_in_round: ChooseInRound | None,
        record: bool,
    ):
        self.model, self.inputs, self.accept, self.rule, self.seed = model, inputs, accept, rule, seed
        temperature = model.settings.temperature
        self.choose_in_round = choose_in_round or (lambda _, row_seeds: random_choice(row_seeds, temperature))
        n, self.device = len(inputs), model.device
        self.owner = np.full(slots, -1)  # the puzzle of each slot; -1: idle
        self.waiting = 0  # the next puzzle without a slot
        self.solved, self.answers = np.zeros(n, dtype=bool), np.zeros_like(inputs, dtype=np.int64)
        self.rounds, self.restarts = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.calls = self.rejected = 0
        # [slots, chains, cells, candidates]; no candidate is alive in the rows of idle slots, so they are in conflict
        shape = (slots, rule.chains, model.network.cells, model.network.candidates)
        self.puzzle = torch.zeros(shape, dtype=torch.bool, device=self.device)
        self.lattice = self.puzzle.clone()
        self.restarted = torch.zeros(slots, dtype=torch.int64, device=self.device)
        # of each slot, with `record`, the boards [chains, cells] after each round; of each puzzle those of one chain
        self.history: list[list[np.ndarray]] | None = [[] for _ in range(slots)] if record else None
        self.boards = [np.zeros((0, inputs.shape[1]), np.uint8) for _ in range(n)] if record else None

    @torch.inference_mode()
    def run(self, report: Callable[[int, int], None] | None) -> SearchResult:
        torch.manual_seed(seed_of(self.seed, Stream.SEARCH))  # of dropout
        begun, left = time.perf_counter(), 0
        while self._fill() and (self.rule.seconds is None or time.perf_counter() - begun < self.rule.seconds):
            self._round()
            now = self.waiting - int((self.owner >= 0).sum())
            if report is not None and now > left:
                report(now, int(self.solved.sum()))
            left = now
        for slot in np.flatnonzero(self.owner >= 0):
            self._leave(int(slot))
        seconds = time.perf_counter() - begun
        unsolvable, rows = np.zeros_like(self.solved), self.rounds * self.rule.chains
        return SearchResult(
            self.solved, unsolvable, self.answers, self.rounds, self.restarts, rows, self.calls, self.rejected, seconds,
            self.boards,
        )  # fmt: skip

    def _fill(self) -> bool:
        """Give waiting puzzles to idle slots. False when no puzzle is left."""
        for slot in np.flatnonzero(self.owner < 0)[: len(self.inputs) - self.waiting]:
            self.owner[slot] = self.waiting
            tokens = torch.from_numpy(self.inputs[self.waiting].astype(np.int64)).to(self.device)
            self.puzzle[slot] = self.lattice[slot] = self.model.lattice_of(tokens)
            self.restarted[slot] = 0
            self.waiting += 1
        return bool((self.owner >= 0).any())

    def _round(self) -> None:
        """One deduction step of every row, and what follows from it."""
        rule, rows = self.rule, self.puzzle.shape[0] * self.puzzle.shape[1]
        places = torch.arange(rows, device=self.device)
        row_seeds = random_words(seed_of(self.seed, Stream.SEARCH, self.calls), places, 1)[:, 0]
        found, _ = self.model.step(
            self.lattice.flatten(0, 1),
            given_cells(self.puzzle.flatten(0, 1)),
            self.choose_in_round(self.calls, row_seeds),
            self.model.draw_symmetry(_SYMMETRY, row_seeds),
            rule.dropout,
            rule.conflict_threshold,
            rule.loops,
        )
        self.calls += 1
        busy = self.owner >= 0
        self.rounds[self.owner[busy]] += 1
        conflict, solved = (flags.view(self.puzzle.shape[:2]) for flags in (found.conflict, found.solved))
        self.lattice = torch.where(conflict[:, :, None, None], self.puzzle, found.lattice.view_as(self.puzzle))
        if self.history is not None:
            boards = self._boards(found.lattice.view(*self.puzzle.shape), self.owner[:, None].repeat(rule.chains, 1))
            for slot in np.flatnonzero(busy):
                self.history[slot].append(boards[slot].astype(np.uint8))
        # the only values that the host waits for
        done = solved.cpu().numpy() & busy[:, None]
        if done.any():
            self._check(*np.nonzero(done))
        self.restarted += conflict.sum(1)
        for slot in np.flatnonzero(self.owner >= 0):
            if self.rounds[self.owner[slot]] >= rule.rounds:
                self._leave(int(slot))

    def _check(self, slots: np.ndarray, chains: np.ndarray) -> None:
        """Check the boards of some chains: a right one solves its puzzle, and a chain with a wrong one starts again."""
        at = torch.from_numpy(slots).to(self.device), torch.from_numpy(chains).to(self.device)
        puzzles = self.owner[slots]
        boards = self._boards(self.lattice[at], puzzles)
        right = self.accept(self.inputs[puzzles], boards)
        if not right.all():
            self.rejected += int((~right).sum())
            wrong = torch.from_numpy(~right).to(self.device)
            at_wrong = at[0][wrong], at[1][wrong]
            self.lattice[at_wrong] = self.puzzle[at_wrong]
        for index in np.flatnonzero(right):
            puzzle = puzzles[index]
            if not self.solved[puzzle]:  # the first of its chains
                self.solved[puzzle], self.answers[puzzle] = True, boards[index]
                self._leave(int(slots[index]), int(chains[index]))

    def _boards(self, lattice: Tensor, puzzles: np.ndarray) -> np.ndarray:
        """Tokens [..., cells] of lattices of these puzzles, with undecided cells as in the question."""
        questions = torch.from_numpy(self.inputs[puzzles].astype(np.int64)).to(self.device)
        return self.model.candidates.tokens_of(lattice, questions).cpu().numpy()

    def _leave(self, slot: int, chain: int = 0) -> None:
        """The puzzle leaves its slot, which is idle then: no candidate is alive in its rows.

        Args:
            slot: the slot.
            chain: the chain whose boards are kept.
        """
        if self.history is not None and self.boards is not None and self.history[slot]:
            self.boards[self.owner[slot]] = np.stack([boards[chain] for boards in self.history[slot]])
            self.history[slot].clear()
        self.puzzle[slot] = self.lattice[slot] = False
        self.restarts[self.owner[slot]] = int(self.restarted[slot])
        self.owner[slot] = -1
