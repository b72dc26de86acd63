import numpy as np
import pytest
import torch

from dataset.tasks.sudoku.rules import BOXES, TOKEN_OFFSET, Box
from dataset.tasks.sudoku.task import Sudoku
from tests.dataset.tasks.sudoku.exact_cover import exact_solutions
from tests.dataset.tasks.sudoku.judged import MIDDLE, evaluator, puzzles
from utils.errors import UserError


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


def test_another_task_is_refused():
    with pytest.raises(UserError, match="fit no Sudoku"):
        Sudoku.of(900, 6)


def test_units_are_rows_columns_and_boxes():
    rows, columns = [[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 4, 8, 12], [1, 5, 9, 13]]
    units = [list(unit) for unit in Sudoku(16, 6).units()]
    assert units[:2] == rows
    assert units[4:6] == columns
    assert units[8:] == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert list(Sudoku(36, 8).units()[13]) == [3, 4, 5, 9, 10, 11]
    assert len(Sudoku(81, 11).units()) == 27
