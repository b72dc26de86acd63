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
    sizes = {"vocab_size": task.vocab_size, "seq_len": task.seq_len, "hidden_size": 32}
    config = {**CONFIG, **sizes, "halt_max_steps": 20, "symmetries": False, "dropout": 0.0}
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


@pytest.mark.parametrize(
    ("task", "difficulty", "steps"),
    [
        pytest.param(Maze(30, 6, height=5), 1, 150, marks=pytest.mark.thorough, id="maze"),
        pytest.param(Futoshiki(*Futoshiki.own_size()), 4, 25, id="futoshiki"),
    ],
)
def test_tasks_are_solved_by_search(task: Task, difficulty: int, steps: int):
    rng = np.random.default_rng(0)
    examples = [task.random_example(rng, difficulty) for _ in range(12)]
    questions, answers = (np.stack(arrays) for arrays in zip(*examples, strict=True))
    model = trained(task, questions, answers, steps)
    assert has_rules(type(task))
    found = search(model, questions, accept_of(task), SearchRule(8, 50, dropout=0.0), len(questions))
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
