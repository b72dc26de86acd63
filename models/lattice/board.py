"""What the LDT knows of a task: the shape of its boards, the candidates of its cells, and their symmetries."""

from math import isqrt

from pydantic import BaseModel, ConfigDict, Field

from utils.errors import UserError

_FIRST_VALUE = 2  # of square boards: the token of the first digit; 0 is padding and 1 a blank


class Board(BaseModel):
    """The boards of a task at one size. It is part of the configuration of a model, so checkpoints contain it."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(ge=1)
    """Rows of the grid; a sequence has one."""
    columns: int = Field(ge=1)
    """Columns of the grid."""
    allowed: list[list[int]]
    """For each token of a question, the tokens that its cell may have in the answer."""
    turns: list[int] = [0]
    """The turns (`utils.grid_turns`) under which right answers stay right."""
    renamed: list[int] = []
    """Tokens that may be renamed among one another."""
    units: dict[str, list[list[int]]] = {}
    """Kind -> groups of cells in which no symbol may stand twice."""

    @property
    def cells(self) -> int:
        """Cells of a board."""
        return self.rows * self.columns

    @property
    def candidates(self) -> list[int]:
        """The tokens that cells may have in an answer, in ascending order."""
        return sorted({token for tokens in self.allowed for token in tokens})

    @property
    def open_token(self) -> int | None:
        """The token of a question whose cell has several candidates, of several the first; None: there is none."""
        return next((token for token, allowed in enumerate(self.allowed) if token and len(allowed) > 1), None)

    @property
    def has_symmetries(self) -> bool:
        """Whether a board can be turned, mirrored or have its symbols renamed."""
        return len(self.turns) > 1 or len(self.renamed) > 1

    @property
    def follows_from_sizes(self) -> bool:
        """Whether this is what `square_board` gives, apart from the units."""
        side, values = self.rows, self.candidates
        if self.columns != side or len(values) != side:
            return False
        return self.model_copy(update={"units": {}}) == square_board(self.cells, len(self.allowed))


def board_for(board: Board | None, seq_len: int, vocab_size: int) -> Board:
    """`board`, or without one that of the Sudoku of these sizes.

    Raises:
        UserError: the board is of other sizes, or there is none and the sizes are those of no Sudoku.
    """
    if board is None:
        return square_board(seq_len, vocab_size)
    if (board.cells, len(board.allowed)) != (seq_len, vocab_size):
        raise UserError(
            f"arch.board: this LDT is for boards of {board.rows} x {board.columns} cells with {len(board.allowed)} "
            f"tokens; these data have {seq_len} cells and {vocab_size} tokens. Choose data of its size."
        )
    return board


def square_board(seq_len: int, vocab_size: int) -> Board:
    """The board of square Sudoku-like grids, in which blanks may become any digit; without units.

    Boxes are taken to be square where the side is a square number, so that they can be turned by 90 degrees; others
    (6x6: 2 rows of 3 columns) cannot.

    Raises:
        UserError: these are the sizes of no Sudoku.
    """
    side, values = isqrt(seq_len), list(range(_FIRST_VALUE, vocab_size))
    if side**2 != seq_len or len(values) != side:
        raise UserError(
            "arch: the LDT needs to know which candidates a cell has. That is so for data of a task with candidates "
            "(`Task.candidates`), and for square grids whose cells take as many values as the grid is wide. "
            f"These data have {seq_len} cells and {len(values)} values (vocab_size {vocab_size}), and no such task. "
            "Choose other data (config/arch/ldt.yaml says which), or another architecture."
        )
    turns = list(range(8)) if isqrt(side) ** 2 == side else [0, 1, 4, 5]
    allowed = [values] * _FIRST_VALUE + [[value] for value in values]
    return Board(rows=side, columns=side, allowed=allowed, turns=turns, renamed=values)
