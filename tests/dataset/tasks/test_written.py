"""What a person writes for a puzzle: every way to write it gives the same tokens, and what is malformed is named."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dataset.tasks.arc.task import Arc
from dataset.tasks.arithmetic.task import Arithmetic
from dataset.tasks.maze.task import Maze
from dataset.tasks.sudoku.task import Sudoku
from dataset.tasks.task import Task
from utils.errors import UserError

TASKS = [Sudoku(81, 11), Sudoku(36, 8), Sudoku(16, 6), Maze(49, 6), Maze(54, 6, height=6), Arithmetic(15, 13)]
GRIDS = [task for task in TASKS if task.name != "arithmetic"]
RNG = np.random.default_rng


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{task.seq_len}")
def test_what_is_decoded_is_encoded_again(task: Task):
    for seed in range(2):
        question = task.random_question(RNG(seed))
        assert task.encode(task.decode(question)).tolist() == question.tolist()
        assert task.questions(task.decode(question))[0].tokens.tolist() == question.tolist()
        answer = task.solve(question)
        assert answer is not None
        assert task.verify(question, answer).status == "solved"


WAYS: list[Callable[[Task, np.ndarray], object]] = [
    lambda task, question: task.rows(question),
    lambda task, question: "\n".join(task.rows(question)),
    lambda task, question: "\n".join(row.rstrip() for row in task.rows(question)) + "\n",
    lambda task, question: [list(row) for row in task.rows(question)],
    lambda task, question: task.grid(question),
    lambda task, question: task.grid(question).tolist(),
    lambda task, question: tuple(task.rows(question)),
]


@pytest.mark.parametrize("task", GRIDS, ids=lambda task: f"{task.name}-{task.seq_len}")
@pytest.mark.parametrize("way", WAYS, ids=range(len(WAYS)))
def test_all_ways_to_write_a_board_mean_the_same(task: Task, way: Callable[[Task, np.ndarray], object]):
    question = task.random_question(RNG(3))
    written = way(task, question)
    assert not task.is_batch(written)
    assert task.encode(written).tolist() == question.tolist()


@pytest.mark.parametrize("task", GRIDS, ids=lambda task: f"{task.name}-{task.seq_len}")
def test_several_boards_are_told_from_one(task: Task):
    questions = [task.random_question(RNG(seed)) for seed in range(2)]
    for batch in (
        [task.decode(question) for question in questions],
        [task.grid(question) for question in questions],
        np.stack([task.grid(question) for question in questions]),
        [task.decode(questions[0])],
        ["\n".join(task.rows(question)) for question in questions],
    ):
        assert task.is_batch(batch)
        assert [task.encode(item).tolist() for item in batch] == [q.tolist() for q in questions][: len(batch)]


def test_a_sudoku_may_have_a_frame_and_any_sign_for_a_blank():
    task = Sudoku(16, 6)
    frame = "+-----+-----+\n| 1 . | . 4 |\n| . 4 | 1 . |\n+-----+-----+\n| 2 . | . 3 |\n| . 3 | 2 . |\n+-----+-----+\n"
    for text in (frame, "1..4.41.2..3.32.", "1004041020030320", "1__4_41_2__3_32_", "1,,0,0,4,0410,2003,0320"):
        assert task.decode(task.encode(text)) == "1..4.41.2..3.32."
    rows = [[1, None, None, 4], [None, 4, 1, 0], [2, 0, 0, 3], [0, 3, 2, 0]]
    assert task.decode(task.encode(rows)) == "1..4.41.2..3.32."
    assert task.decode(task.encode(torch.tensor([[1, 0, 0, 4], [0, 4, 1, 0], [2, 0, 0, 3], [0, 3, 2, 0]]))) == (
        "1..4.41.2..3.32."
    )


def test_an_addition_may_be_a_text_or_a_pair():
    task = Arithmetic(9, 13)
    for puzzle in ("7+34", " 07 + 34 =", (7, 34), np.array([7, 34])):
        assert task.decode(task.encode(puzzle)) == "7+34="
        assert not task.is_batch(puzzle)
    assert task.is_batch(["7+34", "1+1"])
    assert task.is_batch([(7, 34), (1, 1)])
    question = task.encode("7+34")
    answer = task.solve(question)
    assert answer is not None
    assert task.decode(answer, question) == "41"


def test_arc_reads_grids_and_tasks():
    task = Arc(900, 12)
    pair = {"input": [[1, 2]], "output": [[2], [1]]}
    (question,) = task.questions({"train": [pair], "test": [pair]}, "abc")
    assert question.name == "abc"
    assert question.label is not None
    assert task.decode(question.tokens) == [[1, 2]]
    assert task.decode(question.label) == [[2], [1]]
    assert task.rows(question.label) == ["2", "1"]
    assert task.verify(question.tokens, question.label, question.label).status == "solved"
    assert task.verify(question.tokens, question.tokens, question.label).status == "wrong"
    unknown = task.verify(question.tokens, question.label)
    assert (unknown.status, unknown.checked) == ("undecided", False)


@pytest.mark.parametrize(
    ("task", "puzzle", "parts"),
    [
        (Sudoku(81, 11), "5" * 80, ["a Sudoku of 9x9", "80 cells", "9 rows of 9 cells, or 81 in one row"]),
        (Sudoku(16, 6), "1..4.41.2..3.37.", ["'7' at row 4, column 3", "digits 1 to 4"]),
        (Sudoku(16, 6), [[1, 2, 3], [1]], ["2 rows of between 1 and 3 cells"]),
        (Sudoku(16, 6), [[1.0] * 4] * 4, ["1.0 at row 1, column 1"]),
        (Sudoku(16, 6), [[9] * 4] * 4, ["9 at row 1, column 1", "digits 1 to 4"]),
        (Sudoku(16, 6), "", ["the text is empty"]),
        (Sudoku(16, 6), 5, ["got 5 of type int"]),
        (Maze(25, 6), "S   G" * 5, ["it has 5 S", "A maze has one S"]),
        (Maze(25, 6), "S" + " " * 24, ["it has no G"]),
        (Maze(25, 6), "S    \n  x  \n     \n     \n    G", ["'x' at row 2, column 3", "# for a wall"]),
        (Maze(25, 6), "S o  \n     \n     \n     \n    G", ["'o' at row 1, column 3"]),
        (Arithmetic(9, 13), "123+4", ["an operand of 3 digits", "at most 2"]),
        (Arithmetic(9, 13), "1*2", ["got '1*2'", "such as 12+34"]),
        (Arithmetic(9, 13), [1, 2, 3], ["a pair of numbers"]),
        (Arc(900, 12), [[1, 10]], ["cell 10 is no colour"]),
        (Arc(900, 12), {"train": []}, ["the lists 'train' and 'test'"]),
    ],
)
def test_what_is_malformed_is_named(task: Task, puzzle: object, parts: list[str]):
    with pytest.raises(UserError) as error:
        task.questions(puzzle)
    for part in parts:
        assert part in str(error.value)


def test_a_task_of_ones_own_needs_to_say_nothing():
    class Reversal(Task):
        name, title = "reversal", "Reversal"

    task = Reversal(4, 5)
    tokens = task.encode("12 4")
    assert tokens.tolist() == [1, 2, 0, 4]
    assert task.encode([[1, 2], [0, 4]]).tolist() == [1, 2, 0, 4]
    assert task.decode(tokens) == "12 4"
    assert (task.verify(tokens, tokens).status, task.verify(tokens, tokens).checked) == ("undecided", False)
    assert task.verify(tokens, tokens, tokens).status == "solved"
    assert task.verify(tokens, tokens, np.array([1, 2, 0, 3])).reason.startswith("1 cells differ")
    with pytest.raises(UserError, match="cannot make up a puzzle"):
        task.random_question(RNG(0))
    with pytest.raises(UserError, match=r"'9' at row 1, column 2.*the characters ' 1234'"):
        task.encode("19 4")
