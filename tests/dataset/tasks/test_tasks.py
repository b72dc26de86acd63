"""The registry of tasks: a new task is one package, and nothing else knows tasks by name."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

import dataset.tasks
from dataset.puzzle_dataset import PuzzleSplit
from dataset.shards import load_metadata
from dataset.tasks import build_commands, load_task, task_built_by, task_names, task_of, task_packages
from dataset.tasks.arc.task import Arc
from dataset.tasks.arithmetic.task import Arithmetic
from dataset.tasks.maze.task import Maze
from dataset.tasks.question_answer import QuestionAnswer
from dataset.tasks.sudoku.look import SudokuLook
from dataset.tasks.sudoku.rules import BOXES
from dataset.tasks.sudoku.task import Sudoku
from evaluators.evaluation import make_evaluators, picture_example
from models.losses import ACTLossHead
from tests.dataset.small import SEQ_LEN, VOCAB, small_metadata, write_small
from tests.models.small import small_model
from tests.runs import ROOT
from utils.errors import UserError
from utils.settings import EvaluatorConfig

GROUPS = [[1], [1], [1]]
TOY = '''
import numpy as np

from dataset.tasks.task import Task


class Reversal(Task):
    """The label is the question read backwards."""

    name = "toy"
    title = "Reversal"
    checks = ("reversed", "kept")
    published = ((7, 3),)
    builder = "dataset.tasks.toy.build"

    def check(self, inputs, answers):
        return {"reversed": (answers == inputs[:, ::-1]).all(axis=1), "kept": (answers == inputs).all(axis=1)}
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the package of a task, beside those of dataset/tasks."""
    folder = tmp_path / "more_tasks"
    (folder / "toy").mkdir(parents=True)
    (folder / "toy" / "__init__.py").write_text(TOY)
    monkeypatch.setattr(dataset.tasks, "__path__", [*dataset.tasks.__path__, str(folder)])
    yield folder / "toy"
    sys.modules.pop("dataset.tasks.toy", None)
    if hasattr(dataset.tasks, "toy"):
        delattr(dataset.tasks, "toy")


def config(name: str, **options: object) -> EvaluatorConfig:
    return EvaluatorConfig.model_validate({"name": name, **options})


def test_the_tasks_are_the_packages_and_the_files_that_define_one():
    packages = sorted(path.parent.name for path in (ROOT / "dataset" / "tasks").glob("*/__init__.py"))
    assert task_packages() == packages
    assert task_names() == sorted([*packages, "question_answer"])
    assert {"arc", "arithmetic", "maze", "sudoku"} <= set(packages)
    assert [load_task(name) for name in task_names()] == [Arc, Arithmetic, Maze, QuestionAnswer, Sudoku]
    with pytest.raises(UserError, match=r"'sudoko': the tasks are arc, .*sudoku\. Did you mean 'sudoku'\?"):
        load_task("sudoko")


def test_a_new_task_is_discovered_with_all_that_it_says(toy: Path):
    assert "toy" in task_names()
    task = load_task("toy")
    assert task_of(small_metadata(GROUPS, task="toy")) is task
    assert task_of(small_metadata(GROUPS, seq_len=7, vocab_size=3)) is task
    assert task_built_by("dataset.tasks.toy.build") is task
    assert "  python -m dataset.tasks.toy.build --output-dir here\n" in build_commands("here") + "\n"
    with pytest.raises(UserError, match=r"augmentation=toy: the task toy has no augmentation"):
        task.of(4, 10).augmentation()


def test_a_new_task_has_columns_in_an_evaluation(toy: Path, tmp_path: Path):
    root = write_small(tmp_path / "data", GROUPS, "test", task="toy")
    (evaluator,) = make_evaluators([config("toy@Reversal")], root, load_metadata(root, "test"))
    inputs = torch.tensor([[1, 2, 3, 4], [1, 2, 2, 1], [5, 0, 0, 0]])
    evaluator.update_batch({"inputs": inputs}, {"preds": torch.tensor([[4, 3, 2, 1], [1, 2, 2, 1], [0, 5, 0, 0]])})
    assert evaluator.result(None, 0, 1) == {"Reversal/reversed": 2 / 3, "Reversal/kept": 1 / 3}


def test_a_new_task_has_a_picture_and_a_text(toy: Path, tmp_path: Path):
    root = write_small(tmp_path / "data", GROUPS, "test", task="toy")
    head = ACTLossHead(small_model(seq_len=SEQ_LEN, vocab_size=VOCAB, num_puzzle_identifiers=4))
    path = tmp_path / "example.png"
    text = picture_example(head, PuzzleSplit([root], "test").sources[0], torch.device("cpu"), path)
    assert text is not None
    assert "question" in text
    assert "+-----+" in text  # 4 cells make a square of 2 x 2
    pixels = matplotlib.image.imread(path)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 3


def test_the_plain_look_shows_tokens_as_characters(toy: Path):
    look = load_task("toy").of(9, 13).look()
    assert (look.height, look.width, look.characters) == (3, 3, " 123456789abc")
    assert (load_task("toy").of(7, 3).look().height, load_task("toy").of(7, 3).look().width) == (1, 7)
    assert look.character(13) == "?"


@pytest.mark.parametrize("source", ["", TOY.replace('"toy"', '"tai"'), TOY + "\n\nclass Second(Reversal):\n    pass\n"])
def test_a_package_that_defines_no_task_or_two_is_named(toy: Path, source: str):
    (toy / "__init__.py").write_text(source)
    with pytest.raises(UserError, match=r"toy/__init__.py must define or import one subclass of Task"):
        load_task("toy")


def test_a_task_may_be_made_of_another_one(toy: Path):
    variant = "from dataset.tasks.maze.task import Maze\n\n\nclass Toy(Maze):\n    name = 'toy'\n    title = 'Toy'\n"
    (toy / "__init__.py").write_text(variant)
    assert load_task("toy").of(54, 6, height=6).look().width == 9


def test_evaluators_of_another_task_name_both(tmp_path: Path):
    metadata = small_metadata(GROUPS, seq_len=16, vocab_size=6, task="maze")
    with pytest.raises(UserError, match=r"sudoku@Sudoku: the task of .*data is maze, not sudoku"):
        make_evaluators([config("sudoku@Sudoku")], tmp_path / "data", metadata)
    published = small_metadata(GROUPS, seq_len=900, vocab_size=6)
    with pytest.raises(UserError, match=r"data \(which has the sizes of maze\): .* fit no Sudoku"):
        make_evaluators([config("sudoku@Sudoku")], tmp_path / "data", published)
    small = small_metadata(GROUPS)
    with pytest.raises(UserError, match=r"sudoku@Sudoku: .*data: seq_len 4 and vocab_size 10 fit no Sudoku"):
        make_evaluators([config("sudoku@Sudoku")], tmp_path / "data", small)
    with pytest.raises(UserError, match="arithmetic has no class Sums; its evaluator is arithmetic@Arithmetic"):
        make_evaluators([config("arithmetic@Sums")], tmp_path / "data", small)
    with pytest.raises(UserError, match="no module evaluators.sudoko, so it must be a task; .*Did you mean 'sudoku'"):
        make_evaluators([config("sudoko@Sudoku")], tmp_path / "data", small)


@pytest.mark.parametrize("cells", [16, 36, 81])
def test_a_sudoku_is_drawn_with_its_boxes(cells: int):
    box = next(box for box in BOXES if box.cells == cells)
    look = Sudoku.of(box.cells, box.vocab_size).look()
    assert isinstance(look, SudokuLook)
    assert (look.height, look.width, look.box) == (box.side, box.side, (box.rows, box.cols))


@pytest.mark.parametrize(
    ("task", "sizes", "message"),
    [
        (Maze, (15, 6), "no square number"),
        (Maze, (17, 6), "no square number"),
        (Sudoku, (25, 7), r"25 .*16 and 6 \(boxes 2x2\), 36 and 8 \(boxes 2x3\), 81 and 11 \(boxes 3x3\)"),
        (Arc, (900, 11), "900 and 12"),
        (Arithmetic, (8, 13), r"3n \+ 3 tokens"),
        (Arithmetic, (9, 12), "a vocabulary of 13"),
    ],
)
def test_sizes_that_fit_no_such_task_are_refused(task: type, sizes: tuple[int, int], message: str):
    with pytest.raises(UserError, match=message):
        task.of(*sizes)


def named_tasks(source: str) -> set[str]:
    """Tasks that the code names in identifiers, imports or strings; docstrings and comments do not count."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    words: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            words.append(node.value)
        for field in ("id", "attr", "name", "arg", "module", "asname"):
            if isinstance(value := getattr(node, field, None), str):
                words.append(value)
    parts = {part.lower() for word in words for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", word)}
    return parts & set(task_names())


def test_the_scan_sees_names():
    assert named_tasks('"""sudoku"""\nx = arch  # maze\n') == set()
    source = "from a.sudoku import b\nMazeLook()\nx = {'arc': 1}\nf(ARC=arithmetic_size)"
    assert named_tasks(source) == {"sudoku", "maze", "arc", "arithmetic"}


# benchmarks of one task: of what was published for it, or with its generator or its exact solver
BENCHMARKS_OF_ONE_TASK = {"export_formats", "full_arc", "arc_votes", "search", "search_soak", "ldt_positions"}
NEUTRAL = [
    *ROOT.glob("*.py"),
    *(ROOT / "utils").rglob("*.py"),
    *(ROOT / "models").rglob("*.py"),
    # but for those of one task
    *(path for path in (ROOT / "bench").rglob("*.py") if path.stem not in BENCHMARKS_OF_ONE_TASK),
    *(path for path in (ROOT / "evaluators").glob("*.py") if path.name != "arc.py"),
    *(path for path in (ROOT / "dataset").glob("*.py") if not path.name.startswith("build_")),
]


@pytest.mark.parametrize("path", NEUTRAL, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_code_names_a_task(path: Path):
    source = path.read_text()
    if path.name == "settings.py":
        for published_default in ('"data/arc-aug-1000"', '"arc@ARC"'):
            source = source.replace(published_default, '""')
    assert named_tasks(source) == set()
