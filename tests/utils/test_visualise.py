"""Pictures of a model's steps, compared with text and pixels worked out by hand."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from utils.errors import UserError
from utils.visualise import Solving, in_terminal, save_png, square_side, sudoku_box


def solving(task: str, question: np.ndarray, solution: np.ndarray, answers: list[np.ndarray]) -> Solving:
    """Halting probabilities rise evenly from 0.25 to 0.75."""
    return Solving(task, question, solution, np.stack(answers), np.linspace(0.25, 0.75, len(answers)))


def sudoku(question: str, solution: str, *answers: str) -> Solving:
    """Cells are digits, `.` for a blank, `?` for a label that is not known."""

    def tokens(text: str) -> np.ndarray:
        return np.array([{".": 1, "?": -100}.get(c) or int(c) + 1 for c in text.replace(" ", "")])

    return solving("sudoku", tokens(question), tokens(solution), [tokens(answer) for answer in answers])


QUESTION, SOLUTION = "1... ..3. .1.. ...2", "1234 4231 2143 3412"  # no valid Sudoku, which does not matter here


def maze(question: str, solution: str, *answers: str) -> Solving:
    """Rows are separated by `/`."""

    def tokens(text: str) -> np.ndarray:
        return np.array(["# SGo".index(c) + 1 for c in text.replace("/", "")])

    return solving("maze", tokens(question), tokens(solution), [tokens(answer) for answer in answers])


def arc(question: str, solution: str, *answers: str, side: int = 30) -> Solving:
    """Rows are separated by `/`, `-` is a cell outside the grid; all answers start at row 3, column 7."""

    def field(text: str, row: int = 3, col: int = 7) -> np.ndarray:
        cells = np.array([[1 if c == "-" else int(c) + 2 for c in line] for line in text.split("/")])
        height, width = cells.shape
        tokens = np.zeros((side, side), np.int64)
        tokens[row : row + height + 1, col : col + width + 1] = 1
        tokens[row + height : row + height + 1, col + width : col + width + 1] = 0
        tokens[row : row + height, col : col + width] = cells
        return tokens.ravel()

    labels = field(solution)
    outside = np.where(labels == 0, 5, 0)  # what the model says where nothing is asked
    answered = [np.where(labels == 0, outside, field(answer)) for answer in answers]
    return solving("arc", field(question, 0, 4), np.where(labels == 0, -100, labels), answered)


def arithmetic(question: str, solution: str, *answers: str) -> Solving:
    def tokens(text: str) -> np.ndarray:
        return np.array(["_0123456789+=".index(c) for c in text])

    inputs = tokens(question)
    labels = np.where(inputs == 0, tokens(solution), -100)
    return solving("arithmetic", inputs, labels, [tokens(answer) for answer in answers])


SAMPLES = {
    "sudoku": sudoku(QUESTION, SOLUTION, "1.34 2231 2143 3411", SOLUTION, SOLUTION),
    "maze": maze("S  #/ # #/   G/#   ", "S  #/o# #/oooG/#   ", "So  / # #/oo G/#   ", "S  #/o# #/oooG/#   "),
    "arc": arc("0120", "12/34/56", "13/3-/56", "12/34/56"),
    "arithmetic": arithmetic("12+39=___", "12+39=051", "00000=041", "12+39=051"),
}


def plain(shown: Solving, width: int = 80, max_frames: int = 4) -> list[str]:
    return in_terminal(shown, color=False, max_frames=max_frames, width=width).split("\n")


def steps_shown(shown: Solving, max_frames: int) -> list[str]:
    return re.findall(r"steps? ([0-9-]+)", in_terminal(shown, color=False, max_frames=max_frames, width=20))


# ---------------------------------------------------------------------------------------------------------------
# Terminal
# ---------------------------------------------------------------------------------------------------------------


def test_sudoku_in_terminal() -> None:
    shown = sudoku(QUESTION, SOLUTION, "1.34 2231 2143 3411", "1234 4231 2143 3411", "1234 4231 2143 3411")
    assert plain(shown) == [
        "question        step 1          steps 2-3       target",
        "                halt 0.25       halt 0.75",
        "                3 wrong         1 wrong",
        "+-----+-----+   +-----+-----+   +-----+-----+   +-----+-----+",
        "| 1 . | . . |   | 1!. | 3 4 |   | 1 2 | 3 4 |   | 1 2 | 3 4 |",
        "| . . | 3 . |   |!2 2 | 3 1 |   | 4 2 | 3 1 |   | 4 2 | 3 1 |",
        "+-----+-----+   +-----+-----+   +-----+-----+   +-----+-----+",
        "| . 1 | . . |   | 2 1 | 4 3 |   | 2 1 | 4 3 |   | 2 1 | 4 3 |",
        "| . . | . 2 |   | 3 4 | 1!1 |   | 3 4 | 1!1 |   | 3 4 | 1 2 |",
        "+-----+-----+   +-----+-----+   +-----+-----+   +-----+-----+",
        "",
        "! marks a wrong cell",
    ]


def test_sudoku_in_colour() -> None:
    dim, green, red, end = "\x1b[2m", "\x1b[32m", "\x1b[1;31m", "\x1b[0m"
    shown = sudoku(QUESTION, SOLUTION, "1.34 4231 2143 3411", SOLUTION)
    assert in_terminal(shown, color=True, width=80).split("\n") == [
        "question        step 1          step 2",
        "                halt 0.25       halt 0.75",
        f"                {red}2 wrong{end}         {green}solved{end}",
        "+-----+-----+   +-----+-----+   +-----+-----+",
        f"| 1 . | . . |   | {dim}1{end}{red}!.{end} | {green}3 4{end} |   "
        f"| {dim}1{end} {green}2{end} | {green}3 4{end} |",
        f"| . . | 3 . |   | {green}4 2{end} | {dim}3{end} {green}1{end} |   "
        f"| {green}4 2{end} | {dim}3{end} {green}1{end} |",
        "+-----+-----+   +-----+-----+   +-----+-----+",
        f"| . 1 | . . |   | {green}2{end} {dim}1{end} | {green}4 3{end} |   "
        f"| {green}2{end} {dim}1{end} | {green}4 3{end} |",
        f"| . . | . 2 |   | {green}3 4{end} | {green}1{end}{red}!1{end} |   "
        f"| {green}3 4{end} | {green}1{end} {dim}2{end} |",
        "+-----+-----+   +-----+-----+   +-----+-----+",
        "",
        f"{dim}! marks a wrong cell{end}",
    ]


@pytest.mark.parametrize("task", SAMPLES)
@pytest.mark.parametrize("width", [1, 30, 200])
def test_colours_add_only_escape_codes(task: str, width: int) -> None:
    coloured = in_terminal(SAMPLES[task], color=True, width=width)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == in_terminal(SAMPLES[task], color=False, width=width)


def test_panels_stand_below_one_another_where_the_terminal_is_narrow() -> None:
    shown = sudoku(QUESTION, SOLUTION, "1.34 4231 2143 3412", SOLUTION)
    assert max(map(len, plain(shown, width=45))) == 45
    narrow = plain(shown, width=44)
    assert max(map(len, narrow)) == 29
    assert narrow[:2] == ["question        step 1", "                halt 0.25"]
    assert narrow[9:15] == ["+-----+-----+   +-----+-----+", "", "step 2", "halt 0.75", "solved", "+-----+-----+"]
    assert plain(shown, width=1)[:2] == ["question", "+-----+-----+"]


def test_a_short_title_takes_one_line() -> None:
    board = "123456789" * 9
    assert plain(sudoku(board, board, board))[:2] == [
        "question                    step 1, halt 0.25, solved",
        "+-------+-------+-------+   +-------+-------+-------+",
    ]


def test_small_boxes_have_two_rows_and_three_columns() -> None:
    board = "123456" * 6
    assert [line[:17] for line in plain(sudoku(board, board, board))[3:]] == [
        "+-------+-------+",
        *["| 1 2 3 | 4 5 6 |", "| 1 2 3 | 4 5 6 |", "+-------+-------+"] * 3,
    ]


def test_a_changed_clue_is_wrong_even_if_no_solution_is_known() -> None:
    lines = plain(sudoku(QUESTION, "????" * 4, "1111 1111 1111 1111"))
    assert lines[2] == "                2 wrong"
    assert lines[4:6] == ["| 1 . | . . |   | 1 1 | 1 1 |", "| . . | 3 . |   | 1 1 |!1 1 |"]
    kept = "\n".join(plain(sudoku(QUESTION, "????" * 4, "1111 1131 1111 1112")))
    assert "wrong" not in kept
    assert "solved" not in kept
    assert "target" not in kept


def test_maze_in_terminal() -> None:
    assert plain(SAMPLES["maze"]) == [
        "question   step 1      step 2",
        "           halt 0.25   halt 0.75",
        "           4 wrong     solved",
        "+----+     +----+      +----+",
        "|S  #|     |Sx !|      |S  #|",
        "| # #|     |?# #|      |o# #|",
        "|   G|     |oo?G|      |oooG|",
        "|#   |     |#   |      |#   |",
        "+----+     +----+      +----+",
        "",
        "x path where none should be, ? path missing, ! other wrong cell",
    ]


def test_arc_in_terminal() -> None:
    assert plain(SAMPLES["arc"]) == [
        "question      step 1      step 2",
        "              halt 0.25   halt 0.75",
        "              2 wrong     solved",
        "+---------+   +-----+     +-----+",
        "| 0 1 2 0 |   | 1!3 |     | 1 2 |",
        "+---------+   | 3!- |     | 3 4 |",
        "              | 5 6 |     | 5 6 |",
        "              +-----+     +-----+",
        "",
        "! marks a wrong cell, - no colour",
    ]


def test_arc_shows_the_border_where_an_answer_is_too_large() -> None:
    shown = arc("0", "12/34", "123/345/--7")
    assert plain(shown)[2:] == [
        "           2 wrong",
        "+---+      +-------+   +-------+",
        "| 0 |      | 1 2!3 |   | 1 2   |",
        "+---+      | 3 4!5 |   | 3 4   |",
        "           +-------+   +-------+",
        "",
        "! marks a wrong cell, - no colour",
    ]


def test_arc_at_the_edge_of_the_field_has_no_border_to_show() -> None:
    assert plain(arc("0", "12/34", "12/35", side=9))[3:7] == [
        "+---+      +-----+     +-----+",
        "| 0 |      | 1 2 |     | 1 2 |",
        "+---+      | 3!5 |     | 3 4 |",
        "           +-----+     +-----+",
    ]


def test_arc_without_solution_shows_the_rectangle_that_is_scored() -> None:
    answer = np.array([[4, 5, 1], [6, 7, 9], [1, 9, 9]])
    shown = Solving("arc", np.full(9, 3), np.full(9, -100), answer.reshape(1, 9), np.array([1.0]))
    assert plain(shown)[2:] == [
        "+-------+   +-----+",
        "| 1 1 1 |   | 2 3 |",
        "| 1 1 1 |   | 4 5 |",
        "| 1 1 1 |   +-----+",
        "+-------+",
    ]
    empty = Solving("arc", np.zeros(9), np.full(9, -100), np.zeros((1, 9)), np.array([1.0]))
    assert plain(empty)[2:] == ["+---+      +---+", "|   |      |   |", "+---+      +---+"]


def test_arithmetic_in_terminal() -> None:
    assert plain(SAMPLES["arithmetic"]) == [
        "question    step 1      step 2",
        "            halt 0.25   halt 0.75",
        "            1 wrong     solved",
        "12+39=___   12+39=041   12+39=051",
        "                   ^",
        "",
        "^ marks a wrong digit",
    ]


def test_arithmetic_leaves_out_places_without_question_and_label() -> None:
    shown = SAMPLES["arithmetic"]
    longer = Solving(
        "arithmetic",
        np.append(shown.inputs, [0, 0]),
        np.append(shown.labels, [-100, -100]),
        np.append(shown.answers, [[1, 2], [3, 4]], axis=1),
        shown.q_halt,
    )
    assert plain(longer) == plain(shown)


# ---------------------------------------------------------------------------------------------------------------
# Choice of steps
# ---------------------------------------------------------------------------------------------------------------


def boards(*numbers: int) -> Solving:
    """One answer per number: the board whose first `number` cells are right."""
    return sudoku("." * 16, "1" * 16, *("1" * right + "2" * (16 - right) for right in numbers))


def test_answers_that_stand_are_shown_once() -> None:
    assert steps_shown(boards(0, 0, 3, 16, 16, 16), max_frames=8) == ["1-2", "3", "4-6"]
    assert steps_shown(boards(5, 5, 5), max_frames=8) == ["1-3"]
    assert steps_shown(boards(5), max_frames=8) == ["1"]


def test_an_answer_that_comes_back_is_shown_again() -> None:
    assert steps_shown(boards(5, 6, 5), max_frames=8) == ["1", "2", "3"]


def test_halting_probability_is_that_of_the_last_step_shown() -> None:
    assert "halt 0.75" in plain(boards(3, 5, 5))[1]


def test_steps_between_split_the_changes_evenly() -> None:
    # 1 change per step, then 9 at once: half of all 16 lies within the jump, nearer to its beginning.
    assert steps_shown(boards(0, 1, 2, 3, 4, 5, 6, 15, 16), max_frames=3) == ["1", "7", "9"]
    assert steps_shown(boards(*range(17)), max_frames=5) == ["1", "5", "9", "13", "17"]


@pytest.mark.parametrize("max_frames", range(1, 12))
def test_first_and_last_answer_are_among_those_shown(max_frames: int) -> None:
    jumps = boards(0, 16, 0, 1, 2, 3, 4, 5, 6, 0, 16)
    steps = steps_shown(jumps, max_frames)
    assert len(set(steps)) == max_frames
    assert steps == sorted(steps, key=int)
    assert steps[-1] == "11"
    assert max_frames == 1 or steps[0] == "1"


# ---------------------------------------------------------------------------------------------------------------
# PNG
# ---------------------------------------------------------------------------------------------------------------

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
    pixels = drawn(Solving("maze", cells, cells, np.stack([cells] * 3), np.zeros(3)), tmp_path)
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


def test_text_needs_no_matplotlib_and_pictures_no_pyplot(tmp_path: Path) -> None:
    program = f"""
import sys
import numpy as np
from utils.visualise import Solving, in_terminal, save_png
shown = Solving("arithmetic", np.array([1]), np.array([1]), np.array([[1]]), np.array([1.0]))
in_terminal(shown, color=True)
assert "matplotlib" not in sys.modules
save_png(shown, {str(tmp_path / "picture.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=root, check=True)


# ---------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------


def test_unknown_task_is_refused() -> None:
    with pytest.raises(UserError, match=r"'sudoko': can draw sudoku, maze, arc, arithmetic\. Did you mean 'sudoku'\?"):
        Solving("sudoko", np.ones(16), np.ones(16), np.ones((1, 16)), np.zeros(1))


def test_sizes_of_no_grid_are_refused() -> None:
    assert [square_side(n) for n in (1, 16, 900)] == [1, 4, 30]
    assert [sudoku_box(n) for n in (4, 6, 9)] == [(2, 2), (2, 3), (3, 3)]
    for seq_len in (0, 17, -4):
        with pytest.raises(UserError, match="no square number"):
            square_side(seq_len)
    with pytest.raises(UserError, match=r"25x25 .*4x4 \(boxes 2x2\), 6x6 \(boxes 2x3\), 9x9 \(boxes 3x3\)"):
        sudoku_box(25)
    with pytest.raises(UserError, match="no square number"):
        Solving("maze", np.ones(15), np.ones(15), np.ones((1, 15)), np.zeros(1))
    with pytest.raises(UserError, match="5x5"):
        Solving("sudoku", np.ones(25), np.ones(25), np.ones((1, 25)), np.zeros(1))


def test_shapes_that_do_not_fit_are_refused() -> None:
    good = {"inputs": np.ones(16), "labels": np.ones(16), "answers": np.ones((2, 16)), "q_halt": np.zeros(2)}
    Solving("sudoku", **good)
    for name, bad in {
        "inputs": np.ones((4, 4)),
        "labels": np.ones(15),
        "answers": np.ones((3, 16)),
        "q_halt": np.zeros(3),
    }.items():
        with pytest.raises(ValueError, match=r"must be \[seq\], \[seq\], \[steps, seq\] and \[steps\]"):
            Solving("sudoku", **(good | {name: bad}))
    with pytest.raises(ValueError, match="apply the sigmoid"):
        Solving("sudoku", **(good | {"q_halt": np.array([0.5, 3.0])}))


def test_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_frames 0"):
        in_terminal(SAMPLES["maze"], color=False, max_frames=0)
    with pytest.raises(UserError, match="max_frames 0"):
        save_png(SAMPLES["maze"], tmp_path / "picture.png", max_frames=0)
