import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from dataset.tasks.maze.look import MazeLook
from evaluators.picture import save_png
from evaluators.solving import Solving
from evaluators.terminal import in_terminal
from tests.evaluators.solvings import SAMPLES, SOLUTION, arc, boards, sudoku
from utils.errors import UserError

CELL = 64  # pixels of a cell of small boards
PANEL = 332  # from one panel to the next
TOP, LEFT = 28 + 62, 28 + (300 - 4 * CELL) // 2  # of a 4x4 board in the first panel
RED_TINT, GREEN_TINT, WHITE = (249, 198, 196), (220, 241, 221), (255, 255, 255)


def drawn(shown: Solving, folder: Path, max_frames: int = 8) -> np.ndarray:
    """The picture's pixels, [height, width, 3]."""
    save_png(shown, folder / "picture.png", max_frames)
    return np.rint(matplotlib.image.imread(folder / "picture.png")[..., :3] * 255).astype(np.int64)


def colour_at(pixels: np.ndarray, panel: int, row: int, col: int, where: float = 0.12) -> tuple[int, ...]:
    """A pixel of a 4x4 board, `where` on the way from the cell's top-left corner to the other."""
    y, x = TOP + (row + where) * CELL, LEFT + panel * PANEL + (col + where) * CELL
    return tuple(pixels[int(y), int(x)].tolist())


def count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((pixels == colour).all(axis=2).sum())


def test_sudoku_png(tmp_path: Path) -> None:
    pixels = drawn(SAMPLES["sudoku"], tmp_path)
    assert pixels.shape == (28 + 62 + 4 * CELL + 28 + 34, 28 + 3 * PANEL + 300 + 28, 3)
    question, answer, solution = "1... ..3. .1.. ...2", "1.34 2231 2143 3411", SOLUTION
    given = np.array([c != "." for c in question.replace(" ", "")]).reshape(4, 4)
    right = np.array([a == b for a, b in zip(answer, solution, strict=True) if a != " "]).reshape(4, 4)
    for row in range(4):
        for col in range(4):
            tint = RED_TINT if not right[row, col] else WHITE if given[row, col] else GREEN_TINT
            assert colour_at(pixels, 1, row, col) == tint
            assert colour_at(pixels, 2, row, col) == (WHITE if given[row, col] else GREEN_TINT)
            assert colour_at(pixels, 0, row, col) == colour_at(pixels, 3, row, col) == WHITE
    # Three cells, less their lines and two of three with a digit (the other is a blank).
    assert 0.85 < count(pixels, RED_TINT) / (3 * CELL**2) < 0.99
    blank = pixels[TOP : TOP + CELL, LEFT + PANEL + CELL : LEFT + PANEL + 2 * CELL]
    assert count(blank, RED_TINT) > 0.93 * CELL**2


def test_sudoku_png_has_thick_lines_around_boxes_only(tmp_path: Path) -> None:
    pixels = drawn(SAMPLES["sudoku"], tmp_path)
    row = TOP + CELL // 8
    dark = [int((pixels[row, LEFT + i * CELL - 4 : LEFT + i * CELL + 4].sum(axis=1) < 150).sum()) for i in range(5)]
    assert dark == [4, 0, 2, 0, 4]


def test_digits_are_centred(tmp_path: Path) -> None:
    board = "2222" * 4
    pixels = drawn(sudoku(board, board, board), tmp_path)
    cell = pixels[TOP + 6 : TOP + CELL - 6, LEFT + 6 : LEFT + CELL - 6]
    for axis in (0, 1):
        inked = np.flatnonzero((cell.sum(axis=2) < 384).any(axis=1 - axis))
        assert abs(inked[0] + inked[-1] - (cell.shape[axis] - 1)) <= 3


def test_maze_png(tmp_path: Path) -> None:
    pixels = drawn(SAMPLES["maze"], tmp_path)
    wall, path, wrong, missed = (52, 58, 67), (247, 164, 55), (224, 32, 58), (224, 131, 0)
    start, goal = (29, 111, 209), (122, 55, 184)
    names: dict[tuple[int, ...], str] = {
        wall: "#",
        WHITE: " ",
        start: "S",
        goal: "G",
        path: "o",
        wrong: "x",
        missed: "?",
    }

    def seen(panel: int, where: float) -> str:
        rows = ("".join(names[colour_at(pixels, panel, row, col, where)] for col in range(4)) for row in range(4))
        return "/".join(rows)

    assert seen(0, 0.12) == "S  #/ # #/   G/#   "
    assert seen(1, 0.12) == "Sx x/?# #/oo?G/#   "  # wrong cells that are no path have an outline
    assert seen(1, 0.22) == "Sx  / # #/oo G/#   "  # within the outline: the answer as it is
    assert seen(2, 0.12) == seen(3, 0.12) == "S  #/o# #/oooG/#   "


def test_arc_png_has_the_usual_colours_and_crosses(tmp_path: Path) -> None:
    pixels = drawn(arc("0120", "0123/4567/8901/2345", "0123/4567/8901/2346"), tmp_path)
    palette = ["000000", "0074d9", "ff4136", "2ecc40", "ffdc00", "aaaaaa", "f012be", "ff851b", "7fdbff", "870c25"]
    solution = "0123456789012345"
    for panel in (1, 2):
        for i in range(16):
            shown = "6" if panel == 1 and i == 15 else solution[i]
            assert colour_at(pixels, panel, *divmod(i, 4)) == tuple(bytes.fromhex(palette[int(shown)]))
    assert colour_at(pixels, 1, 3, 3, where=0.5) == WHITE
    assert colour_at(pixels, 1, 3, 3, where=0.16) == (0, 0, 0)
    assert colour_at(pixels, 2, 3, 3, where=0.5) == (170, 170, 170)


def test_arithmetic_png_tints_the_answer_only(tmp_path: Path) -> None:
    pixels = drawn(SAMPLES["arithmetic"], tmp_path)
    tinted = np.argwhere((pixels == RED_TINT).all(axis=2))
    assert tinted[:, 1].min() >= 28 + 7 * CELL
    assert tinted[:, 1].max() < 28 + 8 * CELL
    assert tinted[:, 0].max() - tinted[:, 0].min() < CELL
    greens = (pixels == GREEN_TINT).all(axis=2).any(axis=0)
    assert np.flatnonzero(greens).min() >= 28 + 6 * CELL


@pytest.mark.parametrize("side", [4, 6, 9, 15, 30])
def test_png_size_suits_boards_of_all_sizes(tmp_path: Path, side: int) -> None:
    cells = np.full(side**2, 2)
    pixels = drawn(Solving(MazeLook(side, side), cells, cells, np.stack([cells] * 3), np.zeros(3)), tmp_path)
    assert 300 < pixels.shape[0] < 640
    assert 900 < pixels.shape[1] < 1600


def test_png_panels_make_a_grid(tmp_path: Path) -> None:
    pixels = drawn(boards(*range(17)), tmp_path)
    assert pixels.shape[1] == 28 + 4 * PANEL + 300 + 28
    assert pixels.shape[0] == 28 + 2 * (62 + 4 * CELL + 28) + 34
    few = drawn(boards(*range(17)), tmp_path, max_frames=2)
    assert few.shape[1] == 28 + 3 * PANEL + 300 + 28


def test_png_is_reproducible_and_folders_are_made(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "b" / "picture", str(tmp_path / "picture.png")
    save_png(SAMPLES["sudoku"], first)
    save_png(SAMPLES["sudoku"], second)
    assert first.read_bytes() == Path(second).read_bytes()
    assert first.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.thorough
def test_text_needs_no_matplotlib_and_pictures_no_pyplot(tmp_path: Path) -> None:
    program = f"""
import sys
import numpy as np
from dataset.tasks.arithmetic.look import ArithmeticLook
from evaluators.picture import save_png
from evaluators.solving import Solving
from evaluators.terminal import in_terminal
shown = Solving(ArithmeticLook(1), np.array([1]), np.array([1]), np.array([[1]]), np.array([1.0]))
in_terminal(shown, color=True)
assert "matplotlib" not in sys.modules
save_png(shown, {str(tmp_path / "picture.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=root, check=True)


def test_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_frames 0"):
        in_terminal(SAMPLES["maze"], color=False, max_frames=0)
    with pytest.raises(UserError, match="max_frames 0"):
        save_png(SAMPLES["maze"], tmp_path / "picture.png", max_frames=0)
