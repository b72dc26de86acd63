"""Training an LDT and searching with it, for tasks other than Sudoku."""

from typing import Any

import numpy as np
import pytest
import torch

from dataset.tasks.board import board_of
from dataset.tasks.maze.task import Maze
from dataset.tasks.task import Task
from evaluators.acceptance import accept_of, has_rules
from evaluators.search import SearchRule, search
from examples.futoshiki import Futoshiki
from models.lattice.loss_head import LatticeLossHead
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from tests.models.small import train_state
from tests.models.small_lattice import CONFIG
from utils.distributed import Ranks

ROWS = 16
SETTINGS: dict[str, Any] = {"global_batch_size": ROWS, "seed": 0, "optimizer": "adamw", "lr": 0.01}


def trained(task: Task, questions: np.ndarray, answers: np.ndarray, steps: int) -> LatticeDeductionTransformer:
    """A tiny LDT after a few steps on all the examples."""
    config = {**CONFIG, "vocab_size": task.vocab_size, "seq_len": task.seq_len, "halt_max_steps": 20}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LatticeDeductionTransformer({**config, "board": board_of(task, [(questions, answers)])})
    state = train_state(LatticeLossHead(model, "softmax_cross_entropy"), SETTINGS, Ranks(), steps)
    rng, losses = np.random.default_rng(0), []
    for _ in range(steps):
        rows = rng.integers(len(questions), size=ROWS)
        tokens = {"inputs": questions[rows], "labels": answers[rows]}
        batch = {name: torch.from_numpy(values.astype(np.int64)) for name, values in tokens.items()}
        losses.append(state.train_step({**batch, "puzzle_identifiers": torch.zeros(ROWS)})["train/lm_loss"])
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    return model.eval()


@pytest.mark.parametrize("task", [Maze(35, 6, height=5), Futoshiki(*Futoshiki.own_size())], ids=lambda task: task.name)
def test_tasks_are_solved_by_search(task: Task):
    rng = np.random.default_rng(0)
    examples = [task.random_example(rng, 1 if task.name == "maze" else 4) for _ in range(12)]
    questions, answers = (np.stack(arrays) for arrays in zip(*examples, strict=True))
    model = trained(task, questions, answers, 25)
    assert has_rules(type(task))
    found = search(model, questions, accept_of(task), SearchRule(8, 20, dropout=0.0), len(questions))
    assert found.solved.sum() > 2
    for question, answer in zip(questions[found.solved], found.answers[found.solved], strict=True):
        assert task.verify(question, answer).status == "solved"
    closed = model.lattice_of(torch.from_numpy(questions)).sum(-1).numpy() == 1
    kept = closed & found.solved[:, None]
    np.testing.assert_array_equal(found.answers[kept], questions[kept])


def test_rules_that_are_a_verdict_on_each_answer():
    """A task without array rules accepts the boards of which `verify` says that they are solved."""
    task = Futoshiki(*Futoshiki.own_size())
    question, answer = task.random_example(np.random.default_rng(0), 11)
    wrong = np.where(answer == 1, 2, answer)
    found = accept_of(task)(np.stack([question] * 3), np.stack([answer, wrong, question]))
    assert found.tolist() == [True, False, False]
