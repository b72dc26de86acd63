"""The test bench of tasks catches each fault that is planted, with an example, and finds none where there is none."""

import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from dataset.check_task import Flags, check
from dataset.task_checks import Finding, all_findings, draw_examples, majority_guess, read_examples, symmetries
from dataset.task_choice import choose_task
from dataset.tasks.look import INK
from dataset.tasks.maze.task import Maze
from dataset.tasks.sheet import save_sheet
from dataset.tasks.symmetry import Symmetry, turns_and_flips
from dataset.tasks.task import Task
from tests.dataset.small import write_small
from tests.dataset.tasks import planted
from tests.runs import ROOT
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("nothing_is_given")
FAULTS: dict[type[Task], tuple[str, str]] = {
    planted.WrongLabel: ("labels", r"the label of '[a-f]{12}' with the answer '[a-f]{12}' is wrong: place \d is wrong"),
    planted.BrokenSymmetry: (
        "symmetries",
        r"'backwards', the label stops being right: of '[a-f]{12}' .* which is wrong",
    ),
    planted.BrokenUndo: ("symmetries", r"'move', undo: does not give back the question of '[a-f]{12}'"),
    planted.AcceptsEverything: ("broken answers", r"verify accepts everything \(one token changed: \d+ of \d+"),
    planted.Leak: (
        "leak",
        r"5 of 40 test puzzles are equivalent to a training puzzle, such as '[a-f]{12}' to '[a-f]{12}'",
    ),
    planted.LossyDecode: ("round trip", r"encode\(decode\(question\)\) is another question than '[a-e]{12}'"),
    planted.Repeats: ("repeats", r"4 of 40 training puzzles are different"),
    planted.OtherRandomness: ("repeats", r"different puzzles for"),
    planted.ConstantAnswer: ("balance", r"right in \d+% of the places and \d\d\.\d% of the puzzles"),
    planted.Bool: ("labels", r"`verify` returns True, not a Verdict, for the question '[a-f]{12}' with the answer"),
    planted.Crash: (
        "broken answers",
        r"`verify` stopped with an error: IndexError: no such place, at .*planted\.py line \d+, for the question "
        r"'[a-f]{12}' with the answer 'cc[a-f]{10}'. Correct it there",
    ),
    planted.Unsolved: ("solve", r"solve gives 'b[a-f]{11}' for 'b[a-f]{11}', whose label .* that is wrong: place \d"),
    planted.OtherSolution: (
        "solve",
        r"solve gives '([a-f])\1{11}' for '[a-f]{12}', .* right too, but of several right",
    ),
    planted.NoSolution: ("solve", r"solve gives no answer to '[a-f]{12}', whose label is '[a-f]{12}'"),
    planted.RandomSolution: ("solve", r"different answers when it is called twice for '[a-f]{12}', whose label is"),
    planted.SolvedInPlace: ("solve", r"solve changes the array that it is given, '[a-f]{12}', whose label is"),
    planted.SolveCrash: (
        "solve",
        r"`solve` stopped with an error: IndexError: .*planted\.py line \d+, for the question",
    ),
    planted.SymmetryCrash: (
        "symmetries",
        r"`symmetries` stopped with an error: .*planted\.py line \d+, for the board '",
    ),
}


def findings(kind: type[Task], count: int = 40) -> list[Finding]:
    task = kind.of(*kind.own_size())
    return list(all_findings(task, draw_examples(task, count, 0)))


def faults(found: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.detail for finding in found if finding.kind == "fault"}


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_planted_fault_is_caught(kind: type[Task]):
    check_name, detail = FAULTS[kind]
    found = faults(findings(kind))
    assert check_name in found
    assert re.search(detail, found[check_name]), found[check_name]


def test_a_task_without_a_fault_has_none():
    found = findings(planted.Rotation)
    assert faults(found) == {}
    assert {finding.check for finding in found if finding.kind == "ok"} == {
        "round trip", "labels", "broken answers", "solve", "symmetries", "leak", "repeats", "balance",
    }  # fmt: skip


class TurnedMaze(Maze):
    """A maze whose turned path is taken for the label: it is a shortest path, but not that of the tie-break."""

    def symmetries(self) -> list[Symmetry]:
        return [turns_and_flips(self.height, self.width)]


def test_mazes_must_be_labelled_anew_when_they_are_turned():
    examples = draw_examples(Maze(25, 6), 3, 1)
    for kind, expected in ((TurnedMaze, True), (Maze, False)):
        found = faults(list(symmetries(kind(25, 6), examples, np.random.default_rng(0))))
        assert ("symmetries" in found) == expected
        if expected:
            assert "the label stops being the label" in found["symmetries"]
            assert 'answer="relabelled"' in found["symmetries"]


@pytest.mark.parametrize("name", ["futoshiki", "three_colouring", "word_problem"])
def test_the_example_tasks_are_clean(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]):
    path = ROOT / "examples" / f"{name}.py"
    assert len(path.read_text().splitlines()) < 120
    picture = tmp_path / "ten.png"
    found = check(Flags(str(path), examples=6, picture=picture))
    assert faults(found) == {}
    assert "no fault was found" in capsys.readouterr().out
    pixels = matplotlib.image.imread(picture)[::3, ::3]
    assert len({tuple(pixel) for row in pixels.tolist() for pixel in row}) > 3


def test_the_task_of_the_documentation_is_clean(tmp_path: Path):
    text = (ROOT / "docs" / "your_own_task.md").read_text()
    (tmp_path / "sorting.py").write_text(text.split("```python\n")[1].split("```")[0])
    kind = choose_task(str(tmp_path / "sorting.py"))
    assert faults(findings(kind, 20)) == {}


def test_the_look_of_the_documentation_draws(tmp_path: Path):
    """Its walls, tokens 2, are dark; `...` stands for the rest of the class."""
    text = (ROOT / "docs" / "your_own_task.md").read_text()
    part = next(block for block in text.split("```python\n") if "class Walls(" in block).split("```")[0]
    rest = 'name, title, symbols, shape, blank = "walls", "Walls", ".#ab", (2, 2), "."'
    code = "from dataset.tasks.task import Task\n" + part.replace("    ...\n", f"    {rest}\n")
    (tmp_path / "walls.py").write_text(code)
    task = choose_task(str(tmp_path / "walls.py"))(4, 5)
    save_sheet(task, [(np.array([1, 2, 2, 1]), np.array([3, 0, 0, 4]))], tmp_path / "walls.png")
    pixels = (matplotlib.image.imread(tmp_path / "walls.png")[:, :, :3] * 255).round()
    assert (pixels == np.array(INK)).all(axis=2).mean() > 0.1


def test_the_examples_of_a_data_set_are_checked(tmp_path: Path):
    write_small(tmp_path, [[1]] * 12, "train", task="arithmetic")
    with pytest.raises(UserError, match="a data set of the task arithmetic, not rotation"):
        read_examples(planted.Rotation(12, 7), tmp_path, 5)
    with pytest.raises(UserError, match="the task arc makes no examples"):
        check(Flags("arc"))
    with pytest.raises(UserError, match="--examples 1: must be at least 2"):
        check(Flags("arithmetic", examples=1))


def test_the_majority_guess_is_the_most_frequent_token_of_each_place():
    train = [(np.zeros(3), np.array(label)) for label in ([1, 2, 0], [1, 3, 2], [2, 3, 2], [1, 3, 2])]
    test = [(np.zeros(3), np.array(label)) for label in ([1, 3, 2], [1, 0, 2], [2, 2, 2], [1, 3, 2])]
    accuracy, exact, constant = majority_guess(Task(3, 4), train, test)
    assert accuracy == pytest.approx(9 / 11)
    assert (exact, constant) == (0.75, 0.5)


def test_a_task_is_chosen_by_its_name_or_its_file(tmp_path: Path):
    assert choose_task("maze") is Maze
    with pytest.raises(UserError, match=r"task=.*nothing\.py: there is no such file"):
        choose_task(str(tmp_path / "nothing.py"))
