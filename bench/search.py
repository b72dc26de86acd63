"""Sudokus by search: with the network, with the rules, with both, and by classical solvers, as one table.

    uv run python -m bench.search PUZZLES.csv --puzzles 1000
    uv run python -m bench.search PUZZLES.csv --methods network --puzzles 60 --seconds 20

The file has the columns question and answer of Sudoku-Extreme. Each puzzle is solved alone, so that the seconds are
what somebody waits for it. A board counts as solved only if the rules of the task accept it; it is wrong if a method
gives it as a solution and they reject it, or if it is not the answer of the file. Methods:

    network       the LDT alone: chains that start again after a conflict
    both          the systematic search, in which the network is called at the root
    both_always   the same with the network called at every branch
    rules         the same without the network: the first candidate of the cell with the fewest
    exact         the exact solver of the task
    sat           a SAT solver, if python-sat is installed
"""

import csv
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro

from dataset.tasks.sudoku.rules import TOKEN_OFFSET
from dataset.tasks.sudoku.solver import Guesses, solutions
from dataset.tasks.sudoku.task import Sudoku
from evaluators.loading import load
from evaluators.reasoner import SYSTEMATIC, Reasoner
from evaluators.search import SearchRule
from evaluators.searches import run_search
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.errors import UserError, exit_on_user_error

METHODS = ("network", "both", "both_always", "rules", "exact", "sat")
_MOST_GUESSES = 10**9


class Found(NamedTuple):
    """What a method found for one puzzle."""

    answer: np.ndarray | None  # tokens [cells]; None: no solution was found
    branches: int  # candidates tried, guesses or decisions; of `network` rounds
    rows: int  # lattices that the network was called on


Solve = Callable[[np.ndarray], Found]  # of a question in tokens [cells]


@dataclass
class Flags:
    """Compare ways to solve Sudokus."""

    file: Annotated[Path, tyro.conf.Positional]
    """A CSV file with the columns question and answer."""
    methods: list[str] | None = None
    """Which to measure. By default all but network and both_always, which take long."""
    puzzles: int = 1000
    """Puzzles, drawn from the file with the seed."""
    model: str = "sudoku_search"
    """The LDT: a name in weights/, a run folder or a checkpoint."""
    chains: int = 8
    """Chains of a puzzle, for network."""
    dropout: float = 0.0
    """Dropout rate, for network; published: 0.05, which makes a call on a CPU three times as slow."""
    seconds: float = 60.0
    """The most time for a puzzle, for the searches."""
    loops: int | None = None
    """Loops of the network in a call. By default as in training."""
    threads: int = 2
    """Threads of PyTorch."""
    seed: int = 0
    """Of the choice of puzzles and of the search."""


def main(flags: Flags) -> None:
    """Measure each method and print its row of the table."""
    methods = flags.methods or ["both", "rules", "exact", "sat"]
    if unknown := [name for name in methods if name not in METHODS]:
        raise UserError(f"--methods {' '.join(unknown)}: allowed are {', '.join(METHODS)}.")
    torch.set_num_threads(flags.threads)
    reasoner = load(flags.model, "cpu")
    if not isinstance(reasoner.task, Sudoku):
        raise UserError(f"--model {flags.model}: this benchmark needs a model for Sudoku.")
    task, (questions, labels) = reasoner.task, read_puzzles(flags.file, reasoner.task, flags.puzzles, flags.seed)
    print(f"{len(questions):,} puzzles of {flags.file.name}; {flags.threads} threads\n")
    print(HEADER, flush=True)
    for name in methods:
        solve = solver_of(name, reasoner, task, flags)
        if solve is None:
            print(f"{name}: python-sat is not installed", flush=True)
            continue
        print(row_of(name, list(measure(solve, task, questions, labels))), flush=True)


def read_puzzles(file: Path, task: Sudoku, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(questions, answers) of random rows of a CSV file, tokens [n, cells]."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    chosen = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))[:count]]
    questions, labels = (np.stack([task.encode(row[key]) for row in chosen]) for key in ("question", "answer"))
    return questions.astype(np.int64), labels.astype(np.int64)


# -- the methods -------------------------------------------------------------------------------------------------------


def solver_of(name: str, reasoner: Reasoner, task: Sudoku, flags: Flags) -> Solve | None:
    """How a method solves a puzzle; None: a package that it needs is missing."""
    if name == "exact":
        return lambda question: by_exact_solver(question, task)
    if name == "sat":
        return sat_solver(task)
    depths = {"both": SYSTEMATIC.call_depth, "both_always": None, "rules": 0}
    rule = SearchRule(chains=flags.chains, rounds=10**9, dropout=flags.dropout)
    if name in depths:
        rule = replace(SYSTEMATIC, call_depth=depths[name])
    rule = replace(rule, seconds=flags.seconds, loops=flags.loops)
    model = reasoner.head.model
    assert isinstance(model, LatticeDeductionTransformer)
    return lambda question: by_search(question, model, task, rule, flags.seed)


def by_search(
    question: np.ndarray, model: LatticeDeductionTransformer, task: Sudoku, rule: SearchRule, seed: int
) -> Found:
    """By one of the searches."""

    def accept(questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return task.check(questions, answers)["solved"]

    found = run_search(model, question[None], accept, task.units(), rule, 1, seed)
    return Found(found.answers[0] if found.solved[0] else None, int(found.rounds[0]), int(found.rows[0]))


def by_exact_solver(question: np.ndarray, task: Sudoku) -> Found:
    """By the exact solver, which stops at the first solution."""
    guesses = Guesses(_MOST_GUESSES)
    board = next(solutions(question - TOKEN_OFFSET, task.box, guesses), None)
    return Found(None if board is None else board + TOKEN_OFFSET, _MOST_GUESSES - guesses.left, 0)


def sat_solver(task: Sudoku) -> Solve | None:
    """By CaDiCaL; every puzzle is a formula of its own, whose making counts. None: python-sat is not installed."""
    try:
        solvers: Any = importlib.import_module("pysat.solvers")
    except ModuleNotFoundError:
        return None
    rules = list(clauses_of(task))
    side = task.box.side

    def solve(question: np.ndarray) -> Found:
        clues = [[int(cell * side + question[cell] - 1)] for cell in np.flatnonzero(question > TOKEN_OFFSET)]
        with solvers.Solver(name="cadical153", bootstrap_with=rules + clues) as solver:
            model = solver.get_model() if solver.solve() else None
            decisions = int(solver.accum_stats()["decisions"])
        if model is None:
            return Found(None, decisions, 0)
        true = np.array(model[: task.seq_len * side]).reshape(task.seq_len, side) > 0
        return Found(true.argmax(1) + 1 + TOKEN_OFFSET, decisions, 0)

    return solve


def clauses_of(task: Sudoku) -> Iterator[list[int]]:
    """The rules as clauses; variable cell * side + digit is true if the digit, from 1, stands in the cell."""
    side = task.box.side
    for cell in range(task.seq_len):
        yield [cell * side + digit for digit in range(1, side + 1)]
        for one, other in combinations(range(1, side + 1), 2):
            yield [-(cell * side + one), -(cell * side + other)]
    for unit in task.units():
        for digit in range(1, side + 1):
            yield [cell * side + digit for cell in unit]
            for one, other in combinations(unit, 2):
                yield [-(one * side + digit), -(other * side + digit)]


# -- the table ---------------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """What is known about one puzzle after a method has tried it."""

    solved: bool
    wrong: bool
    seconds: float
    processor: float  # seconds of all threads
    branches: int
    rows: int


def measure(solve: Solve, task: Sudoku, questions: np.ndarray, labels: np.ndarray) -> Iterator[Measured]:
    """Solve one puzzle after the other."""
    solve(questions[0])  # what happens only once
    for question, label in zip(questions, labels, strict=True):
        begun, processor = time.perf_counter(), time.process_time()
        found = solve(question)
        seconds, used = time.perf_counter() - begun, time.process_time() - processor
        right = same = False
        if found.answer is not None:
            right = bool(task.check(question[None], found.answer[None])["solved"][0])
            same = np.array_equal(found.answer, label)
        wrong = found.answer is not None and not (right and same)
        yield Measured(right, wrong, seconds, used, found.branches, found.rows)


HEADER = (
    "| method | solved | wrong | median s | 95 % within s | longest s | processor s, median | branches, median | "
    "branches, mean | network rows, mean | without the network |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def row_of(name: str, puzzles: Sequence[Measured]) -> str:
    """A method as a row of the table."""
    columns = {key: np.array([getattr(puzzle, key) for puzzle in puzzles], np.float64) for key in Measured._fields}
    seconds, branches = columns["seconds"], columns["branches"]
    alone = columns["solved"].astype(bool) & (columns["rows"] == 0)
    cells = [
        f"{100 * columns['solved'].mean():.1f} %", f"{columns['wrong'].sum():.0f}", f"{np.median(seconds):.4f}",
        f"{np.percentile(seconds, 95):.4f}", f"{seconds.max():.3f}", f"{np.median(columns['processor']):.4f}",
        f"{np.median(branches):.0f}", f"{branches.mean():.1f}", f"{columns['rows'].mean():.1f}",
        f"{100 * alone.mean():.1f} %",
    ]  # fmt: skip
    return f"| `{name}` | {' | '.join(cells)} |"


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Flags)))
