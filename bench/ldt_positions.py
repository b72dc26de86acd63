"""Position tables of the LDT against relations of cells: hard 6x6 Sudokus, equal steps, several seeds.

    uv run python -m bench.ldt_positions --steps 400 --seeds 3

Prints for each run the share of held-out puzzles that a single chain solves in 32 calls without starting again, and the
share that a search of 4 chains solves in 4 and in 16 rounds.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from dataset.tasks.board import board_of
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box
from dataset.tasks.sudoku.task import Sudoku
from evaluators.acceptance import accept_of
from evaluators.search import SearchRule, search
from models.lattice.loss_head import LatticeLossHead
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from models.training import TrainState
from utils.distributed import Ranks
from utils.settings import OptimizationConfig

BOX, CALLS = Box(2, 3), 32
ACCEPT = accept_of(Sudoku(BOX.cells, BOX.vocab_size))


@dataclass
class Flags:
    """Compare position encodings of the LDT."""

    steps: int = 400
    """Optimizer steps of each training."""
    batch: int = 64
    """Puzzles of a step."""
    seeds: int = 3
    """Trainings of each kind."""
    hidden: int = 64
    """Width."""
    loops: int = 8
    """Loops of the stack of two blocks."""
    train: int = 500
    """Training puzzles."""
    test: int = 200
    """Held-out puzzles."""
    min_clues: int = 0
    """Least number of clues; 0: until none can be left out."""


def compare(options: Flags) -> None:
    """All trainings, one row of figures for each."""
    count = options.train + options.test
    found = list(generate_puzzles(count, BOX, np.random.default_rng(0), options.min_clues))
    questions, answers = (np.stack([pair[index] for pair in found]).astype(np.int64) + TOKEN_OFFSET for index in (0, 1))
    print("positions    seed    single chain    4 rounds    16 rounds    seconds of one core")
    for seed in range(options.seeds):
        for positions in ("learned", "relations"):
            begun = time.process_time()
            head = trained(positions, seed, questions[: options.train], answers[: options.train], options)
            seconds = time.process_time() - begun
            shares = evaluated(head.model.eval(), questions[options.train :])
            print(
                f"{positions:<13}{seed:<8}{shares[0]:<16.1%}{shares[1]:<12.1%}{shares[2]:<13.1%}{seconds:.0f}",
                flush=True,
            )


def trained(positions: str, seed: int, questions: np.ndarray, answers: np.ndarray, options: Flags) -> LatticeLossHead:
    """An LDT after training."""
    config = {
        "vocab_size": BOX.vocab_size,
        "seq_len": BOX.cells,
        "hidden_size": options.hidden,
        "num_heads": 4,
        "L_layers": 2,
        "n_loops": options.loops,
        "pos_encodings": positions,
        "board": board_of(Sudoku(BOX.cells, BOX.vocab_size), [(questions, answers)]),
    }
    torch.manual_seed(seed)
    head = LatticeLossHead(LatticeDeductionTransformer(config), "softmax_cross_entropy")
    optimization = OptimizationConfig(
        global_batch_size=options.batch, seed=seed, optimizer="adamw", lr=3e-3, lr_min_ratio=0.01, weight_decay=0.1,
        grad_clip_norm=1.0,
    )  # fmt: skip
    warmup = options.steps // 10
    state = TrainState(head, optimization, Ranks(), options.steps, warmup)
    rng = np.random.default_rng(seed)
    for _ in range(options.steps):
        rows = rng.integers(len(questions), size=options.batch)
        batch = {"inputs": torch.from_numpy(questions[rows]), "labels": torch.from_numpy(answers[rows])}
        state.train_step({**batch, "puzzle_identifiers": torch.zeros(options.batch)})
    return head


def evaluated(model: LatticeDeductionTransformer, questions: np.ndarray) -> tuple[float, float, float]:
    """Shares solved by the single chain, and by search within 4 and 16 rounds."""
    solved = np.zeros(len(questions), np.bool_)
    for _, outputs in model.answer_steps({"inputs": torch.from_numpy(questions)}, CALLS):
        answers = outputs["logits"].argmax(-1).numpy()
        solved |= (outputs["q_halt_logits"].numpy() > 0) & ACCEPT(questions, answers)
    found = search(model, questions, ACCEPT, SearchRule(chains=4, rounds=16), slots=32)
    return float(solved.mean()), float((found.solved & (found.rounds <= 4)).mean()), float(found.solved.mean())


if __name__ == "__main__":
    compare(tyro.cli(Flags))
