"""The boards of the LDT: sizes, refusals, relations of cells, and symmetries of a part of the candidates."""

from typing import Any

import pytest
import torch

from models.factory import complete_arch, with_board
from models.lattice.attention import relations_of
from models.lattice.board import Board, square_board
from models.lattice.candidates import Candidates
from models.lattice.symmetry import cell_permutations, draw_symmetries
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from tests.models.small_lattice import CONFIG
from utils.config import validate
from utils.errors import UserError
from utils.settings import PretrainConfig

# two rows of three cells; tokens: 1 wall, 2 free (may become 3, a mark), 4 a letter
GRID: dict[str, Any] = {"rows": 2, "columns": 3, "allowed": [[1], [1], [2, 3], [3], [4]], "turns": [0, 1, 4, 5]}
SIZES = {**CONFIG, "vocab_size": 5, "seq_len": 6}


def test_lattices_of_a_task():
    candidates = Candidates.of(Board.model_validate(GRID))
    questions = torch.tensor([[1, 2, 2, 4, 0, 3]])
    lattice = candidates.lattice_of(questions)
    assert lattice[0].int().tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0],
                                         [0, 0, 1, 0]]  # fmt: skip
    lattice[0, 1, 1] = False
    assert candidates.tokens_of(lattice, questions).tolist() == [[1, 3, 2, 4, 1, 3]]


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_a_grid_that_is_no_square(positions: str):
    model = LatticeDeductionTransformer({**SIZES, "board": GRID, "pos_encodings": positions}).eval()
    assert model.permutations.tolist() == [[0, 1, 2, 3, 4, 5], [2, 1, 0, 5, 4, 3], [5, 4, 3, 2, 1, 0],
                                           [3, 4, 5, 0, 1, 2]]  # fmt: skip
    inputs = torch.tensor([[1, 2, 2, 4, 2, 1]])
    for _, outputs in model.answer_steps({"inputs": inputs}, 3):
        answer = outputs["logits"].argmax(-1)
        assert answer[inputs != 2].tolist() == [1, 4, 1]
        assert answer[inputs == 2].min() >= 2
        assert answer[inputs == 2].max() <= 3


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"board": GRID, "seq_len": 12}, "2 x 3 cells"),
        ({"board": {**GRID, "turns": [0]}, "symmetries": True}, "no turns of its grid"),
        ({"board": GRID, "pos_encodings": "relations"}, "needs a task with units"),
    ],
)
def test_what_the_task_does_not_have_is_refused(overrides: dict[str, Any], expected: str):
    with pytest.raises(UserError, match=expected):
        LatticeDeductionTransformer({**SIZES, **overrides})


def test_symmetries_are_those_of_the_task():
    def uses(turns: list[int], symmetries: object) -> bool:
        return LatticeDeductionTransformer(
            {**SIZES, "board": {**GRID, "turns": turns}, "symmetries": symmetries}
        ).uses_symmetries

    assert [uses([0], "auto"), uses([0, 1], "auto"), uses([0, 1], True), uses([0, 1], False)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_only_the_symbols_of_the_task_are_renamed():
    board = Board.model_validate(GRID)
    drawn = draw_symmetries(1, torch.arange(200), cell_permutations(board), 4, torch.tensor([1, 3]))
    assert sorted({tuple(row) for row in drawn.candidates.tolist()}) == [(0, 1, 2, 3), (0, 3, 2, 1)]
    assert len({tuple(row) for row in drawn.cells.tolist()}) == 4


def test_relations_of_a_small_grid():
    """Two rows and two columns, of which the first column is no unit."""
    board = Board(rows=2, columns=2, allowed=[[1], [1]], units={"row": [[0, 1], [2, 3]], "column": [[1, 3]]})
    itself, cls, none, row, column = relations_of(board).int().tolist()
    assert itself == torch.eye(5).int().tolist()
    assert cls == [[0, 0, 0, 0, 1]] * 4 + [[1] * 5]
    assert row == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0] * 5]
    assert column == [[0] * 5, [0, 0, 0, 1, 0], [0] * 5, [0, 1, 0, 0, 0], [0] * 5]
    assert none == [[0, 0, 1, 1, 0], [0, 0, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]


def test_with_relations_cells_are_told_apart_by_their_units_alone():
    """Rows within a band may be exchanged, after which the output is the exchanged one; other rows may not."""
    units = {"row": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]],
             "box": [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]}  # fmt: skip
    board = square_board(16, 6).model_copy(update={"units": units})
    torch.manual_seed(0)  # of a hundred random networks, the conflict head of one does not see the difference
    model = LatticeDeductionTransformer(
        {**CONFIG, "vocab_size": 6, "seq_len": 16, "board": board.model_dump(), "pos_encodings": "relations"}
    )
    lattice = torch.rand(1, 16, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    rows = torch.arange(16).view(4, 4)
    plain = model.network.last(lattice)
    for order, same in (([1, 0, 2, 3], True), ([0, 2, 1, 3], False)):
        moved = rows[order].flatten()
        found = model.network.last(lattice[:, moved])
        assert torch.allclose(found.keep, plain.keep[:, moved], atol=1e-5) == same
        assert torch.allclose(found.conflict, plain.conflict, atol=1e-6) == same


def with_data(board: dict[str, Any] | None, **keys: Any) -> dict[str, Any]:
    """The keys of an LDT that is trained on data with these boards."""
    arch = {
        "name": "recursive_reasoning.ldt@LatticeDeductionTransformer",
        "loss": {"name": "lattice.loss_head@LatticeLossHead", "loss_type": "softmax_cross_entropy"},
        **keys,
    }
    config = validate(PretrainConfig, {"arch": arch, "data_paths": ["data/x"], "evaluators": []})
    complete = config.model_copy(update={"arch": complete_arch(config.arch)})
    return with_board(complete, lambda: board).arch.own_keys


def test_a_configuration_gets_the_boards_of_its_data():
    found = with_data(GRID)
    assert (found["board"]["allowed"], found["symmetries"]) == (GRID["allowed"], True)
    assert not with_data({**GRID, "turns": [0]})["symmetries"]
    assert with_data(GRID, symmetries=False)["symmetries"] is False


def test_a_sudoku_needs_no_board_but_for_relations():
    board = square_board(36, 8).model_dump() | {"units": {"row": [[0, 1]]}}
    found = with_data(board)
    assert (found["board"], found["symmetries"]) == (None, True)
    assert with_data(board, pos_encodings="relations")["board"] == board
    assert with_data(None)["board"] is None
