import re

import numpy as np
import pytest

from dataset.tasks.arc.look import ArcLook
from dataset.tasks.arithmetic.look import ArithmeticLook
from evaluators.solving import Solving
from evaluators.terminal import in_terminal
from tests.evaluators.solvings import QUESTION, SAMPLES, SOLUTION, arc, plain, sudoku


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
    shown = Solving(ArcLook(3), np.full(9, 3), np.full(9, -100), answer.reshape(1, 9), np.array([1.0]))
    assert plain(shown)[2:] == [
        "+-------+   +-----+",
        "| 1 1 1 |   | 2 3 |",
        "| 1 1 1 |   | 4 5 |",
        "| 1 1 1 |   +-----+",
        "+-------+",
    ]
    empty = Solving(ArcLook(3), np.zeros(9), np.full(9, -100), np.zeros((1, 9)), np.array([1.0]))
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
        ArithmeticLook(11),
        np.append(shown.inputs, [0, 0]),
        np.append(shown.labels, [-100, -100]),
        np.append(shown.answers, [[1, 2], [3, 4]], axis=1),
        shown.q_halt,
    )
    assert plain(longer) == plain(shown)
