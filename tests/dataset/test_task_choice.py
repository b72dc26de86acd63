"""A task of one's own: named by its file on the command line, built, trained on, and never run for a checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.build_task_dataset import Config, build, collect
from dataset.opening import open_augmentation
from dataset.puzzle_dataset import PuzzleSplit
from dataset.shards import load_metadata, load_shard
from dataset.task_checks import draw_examples
from dataset.task_choice import choose_task, give_tasks, task_overrides
from dataset.tasks import load_task, task_names, task_of
from dataset.tasks.given import given_tasks
from dataset.tasks.symmetric import SymmetryAugmentation, same_answer
from evaluators.evaluation import make_evaluators
from tests.dataset.tasks.planted import BrokenSymmetry, Repeats, Rotation, WrongLabel
from tests.runs import ROOT
from utils.errors import UserError
from utils.settings import EvaluatorConfig

FUTOSHIKI = ROOT / "examples" / "futoshiki.py"
OWN = """
from dataset.tasks.task import Task


class Own(Task):
    name = "own"
    title = "Own"
    symbols = "ab"
    shape = (1, 2)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_is_given: None) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "own.py") -> str:
    Path(name).write_text(text)
    return name


def test_the_settings_that_follow_from_a_task_come_before_those_that_are_given():
    arguments = ["lr=1", f"task={FUTOSHIKI}", "epochs=2"]
    assert task_overrides(arguments) == [
        'data_paths=["data/futoshiki"]',
        "data_paths_test=[]",
        "data_builder=null",
        'data_builder={module: dataset.build_task_dataset, options: {task: "futoshiki", output_dir: "data/futoshiki"}}',
        'evaluators=[{name: "futoshiki@Futoshiki"}]',
        'augmentation="futoshiki"',
        "lr=1",
        "epochs=2",
    ]
    assert 'output_dir: "data/x"' in task_overrides([*arguments, "data_paths=[data/x]"])[3]
    assert "module: dataset.build_maze_dataset" in task_overrides(["task=maze"])[3]
    assert task_overrides(["lr=1"]) == ["lr=1"]
    assert give_tasks(arguments) == ["lr=1", "epochs=2"]
    for several in (["task=maze", "task=sudoku"], ["task=maze,sudoku"]):
        with pytest.raises(UserError, match="a run has one task"):
            task_overrides(several)


def test_a_file_is_run_only_when_it_is_given():
    name = write(OWN + "\nfrom pathlib import Path\n\nPath('run').write_text('x')\n")
    for stated in ("own", "own.py", "./own.py", str(Path("own.py").resolve())):
        with pytest.raises(
            UserError, match=r"task '.*': the tasks are .* give the file on the command line: task=path"
        ):
            load_task(stated)
    assert not Path("run").exists()
    task = choose_task(name)
    assert Path("run").read_text() == "x"
    assert load_task("own") is task
    assert "own" in task_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "own.py must define one task, .* there is none"),
        (OWN + OWN.replace("class Own", "class Two"), "must define one task, .* there is Own, Two"),
        ("import nothing_of_this_name\n", "own.py line 1: ModuleNotFoundError"),
        ("x = 1\nclass Own(:\n", "own.py line 2: SyntaxError"),
        ("\n\n1 / 0\n", "own.py line 3: ZeroDivisionError"),
        (OWN.replace('name = "own"', 'name = "maze"'), "there is already a task called 'maze'"),
        (OWN.replace('    name = "own"\n', ""), "Own needs `name`"),
        (OWN.replace('"own"', '"own task"'), "name 'own task': letters, digits and _ are allowed"),
        (OWN.replace('"Own"', '"a/b"'), "title 'a/b'"),
        (OWN + "\n    def generate(self, rng): ...\n", r"must be defined as generate\(self, rng, difficulty\)"),
        (
            OWN + "\n    def verify(self, q, a): ...\n",
            r"must be defined as verify\(self, question, answer, label=None\)",
        ),
        (OWN.replace('"ab"', '"aa"'), "symbols: 'a' is there twice"),
        (OWN.replace('"ab"', '("a b", "c")'), "words must not hold spaces"),
        (OWN.replace('"ab"', "[str(i) for i in range(256)]"), "there are 256. At most 255"),
        (OWN.replace("(1, 2)", "12"), "shape 12: expected are rows and columns"),
        (OWN + "    blank = 'a?'\n", r"blank 'a\?': '\?' is no symbol of the task. The symbols are 'ab'"),
        (OWN + "    blank = 1\n", "blank 1: expected is a text of symbols, or a tuple"),
        (OWN + "    difficulties = 2\n", r"difficulties 2: expected are whole numbers in a tuple, such as \(1, 2, 3\)"),
        (OWN + "    difficulties = 'easy'\n", "difficulties 'easy': expected are whole numbers"),
        (OWN + "    difficulties = ()\n", r"difficulties \(\): expected are whole numbers"),
        (OWN + "    test_difficulties = ('a', 2)\n", r"test_difficulties \('a', 2\): expected are whole numbers"),
        (
            OWN + "\n    def genrate(self, rng, difficulty): ...\n",
            "Own has no `generate`; did you mean it by `genrate`, which the class has",
        ),
        (OWN + "\n    def verfy(self, q, a, l): ...\n", "Own has no `verify`; did you mean it by `verfy`"),
        (OWN + "    dificulties = (1, 2)\n", "Own has no `difficulties`; did you mean it by `dificulties`"),
        (OWN + "\n    def solve(self): ...\n", r"must be defined as solve\(self, question\)"),
        (OWN + "\n    def symmetries(self, k): ...\n", r"must be defined as symmetries\(self\)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, message: str):
    with pytest.raises(UserError, match=message):
        choose_task(write(text))


def test_names_of_ones_own_are_no_misspelt_methods():
    own = (
        OWN
        + "    solver = rows_of = place = 1\n\n    def lookup(self): ...\n\n    @staticmethod\n    def solve(q): ...\n"
    )
    assert choose_task(write(own)).name == "own"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            "np.ones(4, int)",
            r"`generate` returned one array, 4 values of type int64. It must return a question and its",
        ),
        ("(1, 2, 3)", "`generate` returned a tuple of 3 values. It must return a question and its answer"),
        ("None", "`generate` returned None"),
        ("([1, 1, 1], [1, 1, 1, 1])", r"gave a question that is 3 values of type int64. Expected are 4 tokens"),
        ("([1, 1, 1, 1.5], [1, 1, 1, 1])", "gave a question that is 4 values of type float64. Expected are 4 tokens"),
        ("([[1, 1], [1]], [1, 1, 1, 1])", r"gave a question of lists of different lengths, \[\[1, 1\], \[1\]\]"),
        ("([1] * 4, [[1] * 4])", r"gave an answer of the shape \(1, 4\). A board has 2 rows and 2 columns"),
        ("([1] * 4, [1, 2, 3, -1])", "gave an answer with the tokens -1 to 3. Tokens are 0"),
        ("([1] * 4, None)", "gave an answer that is None, 1 value of type object"),
        (
            "1 / 0",
            r"`generate` stopped with an error: ZeroDivisionError: division by zero, at own.py line 13, for diff",
        ),
    ],
)
def test_what_a_generator_must_not_give_is_said(made: str, message: str):
    generate = f"\n    def generate(self, rng, difficulty):\n        return {made}\n"
    kind = choose_task(write("import numpy as np\n" + OWN.replace("(1, 2)", "(2, 2)") + generate))
    for use in (
        lambda: draw_examples(kind(4, 3), 2, 0),
        lambda: collect(kind(4, 3), "train", 2, (1,), np.random.default_rng(0), set()),
    ):
        with pytest.raises(UserError, match="the task own.*" + message):
            use()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("3", "`symmetries` returns 3. It must return a list"),
        ("[np.fliplr]", "returns <function fliplr .* in its list. It must return a list of what Symmetry"),
        ("[Symmetry('x', np.roll, np.roll, 4)]", "the choices of 'x' are 4. Expected is a list that is not empty"),
        ("[pair('x', np.fliplr, np.fliplr, 'same')]", "'x' has answer='same'. Allowed are transformed, kept, relab"),
        ("[pair('x', lambda b: b[0], np.fliplr)]", r"a symmetry makes a board of \(2,\) of one of \(1, 2\)"),
    ],
)
def test_what_symmetries_must_not_be_is_said(made: str, message: str):
    head = "import numpy as np\nfrom dataset.tasks.symmetry import Symmetry, pair\n"
    kind = choose_task(write(head + OWN + f"\n    def symmetries(self):\n        return {made}\n"))
    with pytest.raises(UserError, match="the task own.*" + message):
        kind(2, 3).key(np.array([1, 2], np.uint8))


def test_a_data_set_of_an_own_task_is_built_and_evaluated(tmp_path: Path):
    kind = choose_task(str(FUTOSHIKI))
    build(Config(task="futoshiki", output_dir="own", train_size=12, test_size=8, num_aug=2, seed=3))
    metadata = load_metadata("own", "train")
    assert (metadata.task, metadata.total_groups, metadata.total_puzzles) == ("futoshiki", 12, 36)
    assert task_of(metadata) is kind
    task = kind.of(49, 11)
    keys: dict[str, list[bytes]] = {}
    for split in ("train", "test"):
        shard = load_shard("own", split, "all", load_metadata("own", split))
        assert all(task.verify(q, a).status == "solved" for q, a in zip(shard.inputs, shard.labels, strict=True))
        keys[split] = [task.key(question) for question in shard.inputs]
    assert keys["train"][::3] == keys["train"][1::3] == keys["train"][2::3]
    assert len({*keys["train"], *keys["test"]}) == 20
    (rules,) = make_evaluators([EvaluatorConfig(name="futoshiki@Futoshiki")], Path("own"), metadata)
    shard = load_shard("own", "test", "all", metadata)
    inputs, labels = (torch.from_numpy(tokens.astype(np.int64)) for tokens in (shard.inputs, shard.labels))
    answers = labels.clone()
    answers[0, 0] = answers[0, 2]
    rules.update_batch({"inputs": inputs, "labels": labels}, {"preds": answers})
    assert rules.result(None, 0, 1) == {"Futoshiki/solved": 7 / 8, "Futoshiki/exact": 7 / 8}


def test_the_same_options_build_the_same_bytes():
    choose_task(str(FUTOSHIKI))
    for folder in ("one", "two"):
        build(Config(task="futoshiki", output_dir=folder, train_size=3, test_size=2, seed=1))
    assert Path("one/checksums.json").read_text() == Path("two/checksums.json").read_text()


def test_any_right_answer_is_solved_and_only_the_label_is_exact():
    task = choose_task(str(ROOT / "examples" / "three_colouring.py")).of(100, 7)
    question, label = task.random_example(np.random.default_rng(0))
    other = np.where(label == 4, 5, np.where(label == 5, 4, label))  # the colours exchanged
    judged = task.judge(*(np.stack(rows) for rows in ([question] * 3, [label, other, question], [label] * 3)))
    assert judged["solved"].tolist() == [True, True, False]
    assert judged["exact"].tolist() == [True, False, False]


def test_wrong_labels_and_exhausted_generators_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"a label is not right by `verify`: '[a-f]{12}' with the answer '[a-f]{12}'"):
        collect(WrongLabel(12, 7), "train", 50, (1,), rng, set())
    monkeypatch.setattr("dataset.build_task_dataset._MOST_REPEATS", 50)
    monkeypatch.setattr("dataset.build_task_dataset._NOTED_REPEATS", 20)
    known: set[bytes] = set()
    with pytest.raises(UserError, match="`generate` repeats itself: after 4 different train puzzles of 50") as caught:
        collect(Repeats(12, 7), "train", 50, (1,), rng, known)
    assert "the next 50 were there already, 0 of them in the other split" in str(caught.value)
    assert "train: the last 20 puzzles were there already; 4 of 50 are found" in capsys.readouterr().err
    with pytest.raises(
        UserError, match=r"after 0 different test puzzles of 3, the next 50 .*, 50 of them in the other"
    ):
        collect(Repeats(12, 7), "test", 3, (1,), rng, known)


def test_an_augmentation_is_drawn_afresh_and_keeps_labels_right():
    task = Rotation(12, 7)
    examples = [task.random_example(np.random.default_rng(seed)) for seed in range(16)]
    inputs, labels = (np.stack(rows) for rows in zip(*examples, strict=True))
    augmentation = task.augmentation()
    assert isinstance(augmentation, SymmetryAugmentation)
    drawn: list[np.ndarray] = []
    for seed in (5, 6, 5):
        batch = torch.from_numpy(inputs).int(), torch.from_numpy(labels).int()
        batch[1][:, 0] = -100  # a place where nothing is asked for
        moved, answers = augmentation.apply(*batch, None, augmentation.draw(seed, torch.arange(16)))
        assert moved.dtype == answers.dtype == torch.int32
        assert (answers == -100).sum() == 16
        for question, answer in zip(moved.numpy(), answers.numpy(), strict=True):
            assert same_answer(np.roll(question, 1), answer.clip(0))
        drawn.append(moved.numpy())
    assert np.array_equal(drawn[0], drawn[2])
    assert (drawn[0] != drawn[1]).any(axis=1).sum() > 8


def test_a_symmetry_that_makes_labels_wrong_is_refused_before_training():
    given_tasks()["rotation"] = Rotation
    build(Config(task="rotation", output_dir="own", train_size=20, test_size=4))
    assert isinstance(open_augmentation("rotation", PuzzleSplit(["own"], "train")), SymmetryAugmentation)
    given_tasks()["rotation"] = BrokenSymmetry
    with pytest.raises(UserError, match=r"'backwards', the label stops being right: of '[a-f]{12}' with the answer"):
        open_augmentation("rotation", PuzzleSplit(["own"], "train"))


def test_questions_in_files_become_a_data_set():
    rows = [{"question": f"{i}+{i}=", "answer": 2 * i, "more": None} for i in range(60)]
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("folder").mkdir()
    for split, part in (("train", rows[:50]), ("test", rows[50:])):
        lines = [f'"{row["question"]}",{row["answer"]}' for row in part]
        Path(f"folder/{split}.csv").write_text("\n".join(["Question,Answer", *lines]) + "\n")
    for source, sizes in (("sums.jsonl", None), ("./folder", (50, 10))):
        kind = choose_task(source)
        folder = f"built-{kind.data_name}"
        build(Config(task=kind.name, output_dir=folder))
        found: dict[str, int] = {}
        for split in ("train", "test"):
            metadata = load_metadata(folder, split)
            shard, task = load_shard(folder, split, "all", metadata), kind.of(metadata.seq_len, metadata.vocab_size)
            found[split] = len(shard.inputs)
            for question, label in zip(shard.inputs, shard.labels, strict=True):
                number = int(str(task.decode(question)).split("+")[0])
                assert task.decode(label, question) == str(2 * number)
                assert task.verify(question, label, label).status == "solved"
        assert sum(found.values()) == 60
        assert sizes is None or tuple(found.values()) == sizes
    assert task_overrides(["task=sums.jsonl"])[0] == 'data_paths=["data/sums"]'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"question": "a", "answers": "b"}', r"x.jsonl line 1: there is no column 'answer' .* Did you mean 'answers'"),
        ('{"question": "a", "answer": ["b"]}', r"line 1: answer is \['b'\]. Expected is a text"),
        ("[1]", "line 1: .1.. Expected is an object"),
        ("{", "line 1: not JSON"),
        ("", "no question is left for the train split"),
        ("\n".join(f'{{"question": "{i}\\u0001", "answer": "b"}}' for i in range(40)), "the control character 0x01"),
    ],
)
def test_what_is_wrong_with_questions_is_said(lines: str, message: str):
    Path("x.jsonl").write_text(lines + "\n")
    with pytest.raises(UserError, match=message):
        build(Config(task=choose_task("x.jsonl").name, output_dir="own"))


def test_sources_that_are_not_there_are_refused():
    Path("empty").mkdir()
    for source, message in (
        ("no.jsonl", "there is no such file"),
        ("./empty", "no file whose name begins with 'train'"),
        ("hf:name", "is named hf:owner/name"),
        ("reasoning_jym:x", "the tasks are"),
    ):
        with pytest.raises(UserError, match=message):
            choose_task(source)


@pytest.mark.thorough
def test_generators_of_reasoning_gym_score_their_own_answers():
    pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")
    kind = choose_task("reasoning_gym:spell_backward")
    build(Config(task=kind.name, output_dir="gym", train_size=12, test_size=6))
    metadata = load_metadata("gym", "test")
    task = kind.of(metadata.seq_len, metadata.vocab_size)
    task.load_notes(Path("gym"))
    shard = load_shard("gym", "test", "all", metadata)
    inputs, labels = np.array(shard.inputs), np.array(shard.labels)
    right = task.judge(inputs, labels, labels)
    assert {name: values.mean() for name, values in right.items()} == {"solved": 1, "exact": 1, "score": 1}
    word = str(task.decode(labels[0], inputs[0]))
    assert str(task.decode(inputs[0])).endswith(word[::-1])
    assert task.verify(inputs[0], task.encode_answer("zzz", inputs[0])).status == "wrong"
    with pytest.raises(UserError, match="no such generator. Did you mean 'spell_backward'"):
        choose_task("reasoning_gym:spel_backward")
