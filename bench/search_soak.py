"""Many searches on Sudokus of all kinds, each compared with the exact solver: no board may be wrong, no status either.

    uv run python -m bench.search_soak --searches 100000
    uv run python -m bench.search_soak --searches 10000 --kinds one --sizes 3x3 --model sudoku_search

Puzzles have one solution, several, or none, and boxes of 2x2, 2x3 and 3x3 cells in turn; 9x9 boards have 26 to 36 clues
before some are taken away or a wrong one is added. The smaller boards are searched with an LDT of random weights, whose
proposals are bad, and so are 9x9 boards unless a model is named. Prints its counts as it goes, and ends with exit
status 1 if a board was wrong, or a status is not that of the exact solver.
"""

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import tyro

from dataset.tasks.sudoku.generate import generate_puzzle
from dataset.tasks.sudoku.rules import BOXES, TOKEN_OFFSET, Box, parse_box
from dataset.tasks.sudoku.solver import solutions_within
from dataset.tasks.sudoku.task import Sudoku
from evaluators.loading import load
from evaluators.reasoner import SYSTEMATIC
from evaluators.search import SearchResult, SearchRule
from evaluators.searches import run_search
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.errors import UserError, exit_on_user_error

KINDS = ("one", "several", "none")
_RANDOM = {"hidden_size": 16, "num_heads": 2, "L_layers": 1, "n_loops": 2}
_GUESSES = 20_000  # of the exact solver, for a puzzle
_BATCH = 300  # puzzles of one search, a third of each kind
_SLOTS = 64


@dataclass
class Flags:
    """Search many Sudokus, and compare what is found with the exact solver."""

    searches: int = 100_000
    """Puzzles that are searched."""
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    """Puzzles with one solution, with several, or with none."""
    sizes: list[str] = field(default_factory=lambda: [str(box) for box in BOXES])
    """Boxes."""
    model: str | None = None
    """The LDT for 9x9 boards: a name in weights/, a run folder or a checkpoint. By default one of random weights."""
    rounds: int = 3_000
    """Candidates that are tried for a puzzle before it is left undecided."""
    alone: bool = False
    """Search by the network alone, as published, which leaves most puzzles undecided; with 20 rounds of 4 chains."""
    seed: int = 0
    """Of the puzzles."""


def main(flags: Flags) -> None:
    """Search, and print the table after each tenth."""
    if unknown := set(flags.kinds) - set(KINDS):
        raise UserError(f"--kinds {' '.join(sorted(unknown))}: allowed are {', '.join(KINDS)}.")
    boxes = [parse_box(size) for size in flags.sizes]
    models = {box: model_of(box, flags.model if box == Box(3, 3) else None) for box in boxes}
    rule = replace(SYSTEMATIC, rounds=flags.rounds, seconds=None)
    if flags.alone:
        rule = SearchRule(chains=4, rounds=20)
    rng, counts, done, begun, next_table = np.random.default_rng(flags.seed), Counter[str](), 0, time.perf_counter(), 0
    while done < flags.searches:
        for box in boxes:
            task = Sudoku(box.cells, box.vocab_size)
            puzzles = puzzles_of_kinds(box, flags.kinds, min(_BATCH, flags.searches - done), rng)
            found = run_search(
                models[box], puzzles, accept_of(task), task.units(), rule, _SLOTS, int(rng.integers(2**31))
            )
            counts += compare(puzzles, found, task)
            done += len(puzzles)
            if done >= flags.searches:
                break
        if done >= next_table:
            next_table += flags.searches // 10
            print(f"{done:,} searches, {time.perf_counter() - begun:.0f} s: {table(counts)}", flush=True)
    sys.exit(int(counts["wrong"] + counts["contradicts the exact solver"] > 0))


def model_of(box: Box, name: str | None) -> LatticeDeductionTransformer:
    """The LDT of this name, or one of random weights.

    Raises:
        UserError: the model is no LDT.
    """
    if name is None:
        torch.manual_seed(0)
        sizes = {"vocab_size": box.vocab_size, "seq_len": box.cells}
        return LatticeDeductionTransformer({**_RANDOM, **sizes}).eval()
    model = load(name, "cpu").head.model
    if not isinstance(model, LatticeDeductionTransformer):
        raise UserError(f"--model {name}: a search needs an LDT (arch=ldt).")
    return model


def accept_of(task: Sudoku):
    """Which boards obey the rules and keep the clues, as `evaluators.search.Accept`."""
    return lambda questions, answers: task.check(questions, answers)["solved"]


def puzzles_of_kinds(box: Box, kinds: list[str], count: int, rng: np.random.Generator) -> np.ndarray:
    """Puzzles, tokens [count, cells]: one of each kind out of the same random puzzle, and so on."""
    made: list[np.ndarray] = []
    while len(made) < count:
        clues = int(rng.integers(26, 37)) if box == Box(3, 3) else int(rng.integers(box.cells // 2))
        draws = random.Random(int(rng.integers(2**63)))
        puzzle, answer = (np.array(board) for board in generate_puzzle(box, draws, clues))
        wrong = puzzle.copy()  # a clue more, which the solution does not have
        cell = int(rng.choice(np.flatnonzero(puzzle == 0)))
        wrong[cell] = (answer[cell] - 1 + rng.integers(1, box.side)) % box.side + 1
        fewer = np.where(rng.random(box.cells) < rng.uniform(0.05, 0.5), 0, puzzle)
        of_kind = {"one": puzzle, "several": fewer, "none": wrong}
        made += [of_kind[kind] + TOKEN_OFFSET for kind in kinds]
    return np.stack(made[:count])


def compare(puzzles: np.ndarray, found: SearchResult, task: Sudoku) -> Counter[str]:
    """Counts of what was found, against the exact solver."""
    right = task.check(puzzles, found.answers)["solved"]
    counts = Counter[str](searches=len(puzzles))
    for row, puzzle in enumerate(puzzles):
        known = solutions_within(puzzle - TOKEN_OFFSET, task.box, _GUESSES)
        number = "unknown" if known is None else ("none", "one", "several")[len(known)]
        status = "solved" if found.solved[row] else "unsolvable" if found.unsolvable[row] else "undecided"
        counts[f"{number}: {status}"] += 1
        counts["wrong"] += bool(found.solved[row] and not right[row])
        if known is not None and len(known) == 1 and found.solved[row]:
            counts["wrong"] += bool((found.answers[row] - TOKEN_OFFSET != known[0]).any())
        contradicts = {"none": "solved", "one": "unsolvable", "several": "unsolvable"}.get(number) == status
        counts["contradicts the exact solver"] += bool(contradicts)
    counts["by the rules alone"] += int((found.solved & (found.rows == 0)).sum())
    counts["boards rejected"] += found.rejected
    return counts


def table(counts: Counter[str]) -> str:
    """The counts in one line, those that must be 0 first."""
    first = ("wrong", "contradicts the exact solver")
    return ", ".join(f"{name} {counts[name]:,}" for name in [*first, *sorted(set(counts) - set(first))])


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Flags)))
