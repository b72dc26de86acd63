from typing import Any

import pytest
import torch
import torch.distributed as dist

from evaluators.rules import Rules
from tests.dataset.tasks.sudoku.judged import evaluator, puzzles


def test_padding_rows_do_not_count_and_evaluations_start_from_nothing():
    inputs, solutions = puzzles(3)
    sudoku = evaluator()
    for _ in range(2):
        sudoku.begin_eval()
        sudoku.update_batch({"inputs": inputs}, {"preds": inputs})
        padded, preds = torch.cat([inputs, torch.zeros_like(inputs)]), torch.cat([solutions, solutions])
        sudoku.update_batch({"inputs": padded}, {"preds": preds})
        assert sudoku.result(None, 0, 1) == {"Sudoku/valid": 0.5, "Sudoku/clues_kept": 1.0, "Sudoku/solved": 0.5}
    sudoku.begin_eval()
    assert sudoku.result(None, 0, 1) == {}
    assert sudoku.result(None, rank=1, world_size=1) is None


def test_an_interrupted_evaluation_goes_on_from_its_counts():
    inputs, solutions = puzzles(4)
    whole, first, second = evaluator(), evaluator(), evaluator()
    parts = (inputs[:3], solutions[:3]), (inputs[3:], inputs[3:])
    for questions, answers in parts:
        whole.update_batch({"inputs": questions}, {"preds": answers})
    first.update_batch({"inputs": parts[0][0]}, {"preds": parts[0][1]})
    second.load_state(first.state())
    first.update_batch({"inputs": parts[0][0]}, {"preds": parts[0][1]})  # the state is a copy
    second.update_batch({"inputs": parts[1][0]}, {"preds": parts[1][1]})
    assert second.result(None, 0, 1) == whole.result(None, 0, 1)


def test_the_outputs_it_asks_for_are_enough():
    assert Rules.required_outputs == {"inputs", "labels", "preds"}


@pytest.mark.parametrize("group", [None, "some group"])
def test_ranks_are_added_up(monkeypatch: pytest.MonkeyPatch, group: Any):
    """With torch.distributed played by the test: the other rank counted ten examples, of which 4, 3 and 2 were good."""

    def all_reduce(counts: torch.Tensor, group: Any) -> None:
        groups.append(group)
        counts += torch.tensor([10, 4, 3, 2])

    groups = []
    monkeypatch.setattr(dist, "get_backend", lambda group: groups.append(group) or "gloo")
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    inputs, solutions = puzzles(6)
    sudoku = evaluator()
    sudoku.update_batch({"inputs": inputs}, {"preds": solutions})
    for _ in range(2):  # asking twice changes nothing
        result = sudoku.result(None, 0, 2, group)
        assert result == {"Sudoku/valid": 10 / 16, "Sudoku/clues_kept": 9 / 16, "Sudoku/solved": 8 / 16}
        assert sudoku.result(None, 1, 2, group) is None
    assert set(groups) == {group}
    assert len(groups) == 8
