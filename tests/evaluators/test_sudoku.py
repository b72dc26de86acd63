from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dataset.shards import PuzzleDatasetMetadata
from dataset.sudoku import BOXES, TOKEN_OFFSET, Box, generate_puzzles
from evaluators.sudoku import Sudoku
from tests.dataset.exact_cover import exact_solutions
from utils.errors import UserError

MIDDLE = BOXES[1]


def metadata(seq_len: int, vocab_size: int) -> PuzzleDatasetMetadata:
    return PuzzleDatasetMetadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=vocab_size,
        seq_len=seq_len,
        num_puzzle_identifiers=1,
        total_groups=1,
        mean_puzzle_examples=1,
        sets=["all"],
    )


def evaluator(box: Box = MIDDLE) -> Sudoku:
    return Sudoku("unused", metadata(box.cells, box.vocab_size))


def puzzles(count: int, box: Box = MIDDLE) -> tuple[torch.Tensor, torch.Tensor]:
    boards = np.array(list(generate_puzzles(count, box, np.random.default_rng(0)))).astype(np.int32) + TOKEN_OFFSET
    return torch.from_numpy(boards[:, 0].copy()), torch.from_numpy(boards[:, 1].copy())


def judged(inputs: torch.Tensor, preds: torch.Tensor) -> dict[str, float] | None:
    sudoku = evaluator()
    sudoku.begin_eval()
    sudoku.update_batch({"inputs": inputs}, {"preds": preds})
    return sudoku.result(None, rank=0, world_size=1)


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_solutions_are_solved(box: Box):
    inputs, solutions = puzzles(3, box)
    sudoku = evaluator(box)
    sudoku.update_batch({"inputs": inputs}, {"preds": solutions})
    assert sudoku.result(None, 0, 1) == {"Sudoku/valid": 1.0, "Sudoku/clues_kept": 1.0, "Sudoku/solved": 1.0}


def test_each_metric_sees_its_own_mistakes():
    inputs, solutions = puzzles(8)
    preds = solutions.clone()
    preds[0] = solutions[1]  # a Sudoku of another puzzle
    blank = int((inputs[2] == TOKEN_OFFSET).nonzero()[0])
    preds[2, blank] = preds[2, blank] % 6 + 1 + TOKEN_OFFSET  # clues kept, rules broken
    preds[3] = inputs[3]  # left as it was
    preds[4] = 0
    assert judged(inputs, preds) == {"Sudoku/valid": 5 / 8, "Sudoku/clues_kept": 6 / 8, "Sudoku/solved": 4 / 8}


def test_any_solution_of_a_puzzle_with_several_counts():
    inputs, solutions = puzzles(1)
    several = inputs[0].numpy().copy()
    several[np.flatnonzero(several > TOKEN_OFFSET)[0]] = TOKEN_OFFSET
    found = np.array(list(exact_solutions(several - TOKEN_OFFSET, MIDDLE))) + TOKEN_OFFSET
    assert len(found) > 1
    result = judged(torch.from_numpy(several).repeat(len(found), 1), torch.from_numpy(found))
    assert result is not None
    assert result["Sudoku/solved"] == 1.0
    assert (found != solutions.numpy()).any()


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


def test_the_outputs_it_asks_for_are_enough():
    assert Sudoku.required_outputs == {"inputs", "preds"}


def test_another_task_is_refused():
    with pytest.raises(UserError, match="fit no Sudoku"):
        Sudoku("unused", metadata(900, 6))


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
