import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dataset.build_arc_dataset import Config, build
from dataset.dihedral import dihedral_transform
from dataset.legacy_random import LegacyRandom
from dataset.shards import ARRAYS, load_metadata, load_shard
from dataset.tasks.arc.files import read_subset
from dataset.tasks.arc.leaks import find_leaks
from tests.dataset.tasks.arc.test_field import plain_field
from tests.paths import SHARED
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[4]
KAGGLE = SHARED / "data" / "arc-kaggle-combined"
needs_shared = pytest.mark.skipif(not KAGGLE.exists(), reason="the ARC tasks and recorded digests are not here")

Grid = list[list[int]]
Example = dict[str, Grid]
Tasks = dict[str, dict[str, list[Example]]]


# --- Against the recorded digests ---------------------------------------------------------------------------------


def digests_that_differ(folder: Path, recorded: Path) -> list[str]:
    wrong = []
    for line in recorded.read_text().splitlines():
        digest, name = line.split()
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                wrong.append(name)
    return wrong


@pytest.mark.thorough
@needs_shared
@pytest.mark.parametrize(
    ("recorded", "subsets", "test_set", "num_aug"),
    [
        ("arc1-aug8", ["training", "evaluation", "concept"], "evaluation", 8),
        ("arc2-aug8", ["training2", "evaluation2", "concept"], "evaluation2", 8),
        pytest.param("arc1-aug1000", ["training", "evaluation", "concept"], "evaluation", 1000, marks=pytest.mark.slow),
    ],
)
def test_files_equal_the_published_builders(
    tmp_path: Path, recorded: str, subsets: list[str], test_set: str, num_aug: int
) -> None:
    build(
        Config(
            input_file_prefix=str(KAGGLE / "arc-agi"),
            output_dir=tmp_path / "out",
            subsets=subsets,
            test_set_name=test_set,
            num_aug=num_aug,
        )
    )
    assert digests_that_differ(tmp_path / "out", SHARED / "oracles" / f"{recorded}.sha256") == []


@needs_shared
def test_arc_agi_2_training_gives_away_arc_agi_1_evaluation() -> None:
    subsets = {name: read_subset(str(KAGGLE / "arc-agi"), name) for name in ("training2", "evaluation", "concept")}
    leaks = find_leaks(subsets, ["evaluation"])
    evaluation = {task.name for task in subsets["evaluation"]}
    same_id = {task.name for task in subsets["training2"]} & evaluation
    assert len(same_id) > 300
    assert same_id <= set(leaks["training2"]) <= evaluation
    assert "concept" not in leaks


# --- Against a plain second implementation ------------------------------------------------------------------------


def plain_build(subsets: dict[str, Tasks], test_set: str, num_aug: int, seed: int) -> dict[str, Any]:
    """The published rules written down one draw after the other, all in memory."""
    rng = np.random.RandomState(seed)

    def augment(grid: Grid, transform: int, colours: list[int]) -> Grid:
        return [[colours[c] for c in row] for row in dihedral_transform(np.array(grid), transform).tolist()]

    def content(puzzle: dict[str, list[tuple[Grid, Grid]]]) -> Counter[str]:
        return Counter(json.dumps(pair) for pairs in puzzle.values() for pair in pairs)

    groups: dict[str, list[list[tuple[str, list[tuple[Grid, Grid]]]]]] = {"train": [], "test": []}
    for subset, tasks in subsets.items():
        listed: list[Any] = list(tasks.items())
        rng.shuffle(listed)
        for name, task in listed:
            halves: dict[str, list[tuple[Grid, Grid]]] = {}
            for part, examples in task.items():
                split = part if subset == test_set else "train"
                halves.setdefault(split, []).extend((example["input"], example["output"]) for example in examples)
            puzzles = [(name, halves)]
            for _ in range(5 * num_aug):
                transform = rng.randint(0, 8)
                colours = [0, *rng.permutation(np.arange(1, 10)).tolist()]
                augmented = {
                    split: [(augment(i, transform, colours), augment(o, transform, colours)) for i, o in pairs]
                    for split, pairs in halves.items()
                }
                if all(content(augmented) != content(puzzle) for _, puzzle in puzzles):
                    puzzles.append((f"{name}|||t{transform}|||{''.join(map(str, colours))}", augmented))
                if len(puzzles) > num_aug:
                    break
            for split in halves:
                groups[split].append([(puzzle_name, puzzle[split]) for puzzle_name, puzzle in puzzles])

    names = ["<blank>"]
    for split in groups.values():
        for group in split:
            names.extend(dict.fromkeys(name for name, _ in group if name not in names))
    found: dict[str, Any] = {"names": names}
    for split, groups_of_split in groups.items():
        arrays: dict[str, list[Any]] = {name: [] for name in ARRAYS}
        arrays["puzzle_indices"].append(0)
        arrays["group_indices"].append(0)
        for group in groups_of_split:
            for name, pairs in group:
                still = rng.randint(0, len(pairs))
                for index, (grid, answer) in enumerate(pairs):
                    row = column = 0
                    if split == "train" and index != still:
                        row = rng.randint(0, 30 - max(len(grid), len(answer)) + 1)
                        column = rng.randint(0, 30 - max(len(grid[0]), len(answer[0])) + 1)
                    arrays["inputs"].append(plain_field(grid, row, column))
                    arrays["labels"].append(plain_field(answer, row, column))
                arrays["puzzle_indices"].append(len(arrays["inputs"]))
                arrays["puzzle_identifiers"].append(names.index(name))
            arrays["group_indices"].append(len(arrays["puzzle_identifiers"]))
        found[split] = arrays
    return found


def random_grid(rng: np.random.Generator, colours: int = 10, largest: int = 30) -> Grid:
    return rng.integers(0, colours, rng.integers(1, largest + 1, 2)).tolist()


def example(grid: Grid, answer: Grid) -> Example:
    return {"input": grid, "output": answer}


def mirrored(pair: Example) -> Example:
    return {key: [row[::-1] for row in grid] for key, grid in pair.items()}


def small_tasks() -> dict[str, Tasks]:
    """Tasks with many augmentations and with few, in either order of keys."""
    rng = np.random.default_rng(0)

    def pair(colours: int = 10, largest: int = 30) -> Example:
        return example(random_grid(rng, colours, largest), random_grid(rng, colours, largest))

    # One colour but 0, so that augmentations meet often among twenty.
    one = example([[1, 1], [0, 1]], [[0, 1]])
    half = example([[1, 1, 0]], [[1, 0, 0]])
    return {
        "first": {
            "many": {"test": [pair()], "train": [pair(), pair(), pair()]},
            # Nothing changes under any augmentation: the group stays alone, and its trials consume their draws.
            "single": {"train": [example([[0]], [[0]])], "test": [example([[0, 0], [0, 0]], [[0]])]},
            "few": {"train": [pair(2, 3)], "test": [pair(2, 3), pair(2, 3)]},
        },
        "second": {
            # The mirror image has the same pairs in another order: no new puzzle, neither within a part ...
            "swapped": {"train": [one, mirrored(one)], "test": [example([[1]], [[1]])]},
            # ... nor across the parts, though the parts themselves differ.
            "across": {"test": [mirrored(half)], "train": [half]},
            # The mirror image exchanges the outputs only: a new puzzle, unlike its inputs and outputs taken apart.
            "exchanged": {
                "train": [example([[1, 1]], [[1, 0]]), example([[0, 0]], [[0, 1]])],
                "test": [example([[0]], [[0]])],
            },
            "full": {"train": [example(np.full((30, 30), 5).tolist(), [[1, 2]])], "test": [pair()]},
        },
        "third": {"many": {"test": [pair()], "train": [pair()]}},  # a name that was there before: shares its id
    }


def write_kaggle(folder: Path, subsets: dict[str, Tasks], prefix: str = "arc") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for subset, tasks in subsets.items():
        challenges = {
            name: {
                part: [{"input": e["input"]} for e in examples] if part == "test" else examples
                for part, examples in task.items()
            }
            for name, task in tasks.items()
        }
        solutions = {name: [e["output"] for e in task["test"]] for name, task in tasks.items()}
        (folder / f"{prefix}_{subset}_challenges.json").write_text(json.dumps(challenges))
        (folder / f"{prefix}_{subset}_solutions.json").write_text(json.dumps(solutions))
    return str(folder / prefix)


def write_folders(folder: Path, subsets: dict[str, Tasks]) -> str:
    for subset, tasks in subsets.items():
        (folder / subset).mkdir(parents=True)
        for name, task in tasks.items():
            (folder / subset / f"{name}.json").write_text(json.dumps(task))
    return str(folder)


def config(prefix: str, output_dir: Path, **options: Any) -> Config:
    defaults = {"subsets": ["first", "second", "third"], "test_set_name": "second", "num_aug": 20}
    return Config(input_file_prefix=prefix, output_dir=output_dir, **(defaults | options))


def check_equal(folder: Path, expected: dict[str, Any]) -> None:
    assert json.loads((folder / "identifiers.json").read_text()) == expected["names"]
    for split in ("train", "test"):
        metadata = load_metadata(folder, split)
        shard = load_shard(folder, split, "all", metadata)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(shard, name), expected[split][name], err_msg=f"{split} {name}")
        puzzles, examples = len(shard.puzzle_identifiers), len(shard.inputs)
        assert metadata.total_puzzles == puzzles
        assert metadata.total_groups == len(shard.group_indices) - 1
        assert metadata.mean_puzzle_examples == examples / puzzles
        assert metadata.num_puzzle_identifiers == len(expected["names"])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("num_aug", [0, 1, 20])
def test_equals_a_plain_implementation(tmp_path: Path, seed: int, num_aug: int) -> None:
    subsets = small_tasks()
    build(config(write_kaggle(tmp_path, subsets), tmp_path / "out", seed=seed, num_aug=num_aug))
    check_equal(tmp_path / "out", plain_build(subsets, "second", num_aug, seed))
    assert json.loads((tmp_path / "out" / "test_puzzles.json").read_text()) == subsets["second"]


def test_short_groups_and_duplicates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks: Tasks = {
        "single": {"train": [example([[0]], [[0]])], "test": [example([[0, 0], [0, 0]], [[0]])]},
        "two": {"train": [example([[0, 1]], [[0]])], "test": []},  # 4 directions x 9 images of colour 1
    }
    build(
        config(
            write_kaggle(tmp_path, {"a": tasks, "b": {"t": small_tasks()["first"]["many"]}}),
            tmp_path / "out",
            subsets=["a", "b"],
            test_set_name="b",
            num_aug=100,
        )
    )
    names = json.loads((tmp_path / "out" / "identifiers.json").read_text())
    assert [sum(name.split("|||")[0] == task for name in names) for task in ("single", "two", "t")] == [1, 36, 101]
    assert "2 tasks have fewer than 100 distinct augmentations" in capsys.readouterr().err


def test_folders_give_what_kaggles_files_give(tmp_path: Path) -> None:
    subsets = {subset: dict(sorted(tasks.items())) for subset, tasks in small_tasks().items()}
    build(config(write_kaggle(tmp_path / "kaggle", subsets), tmp_path / "one"))
    build(config(write_folders(tmp_path / "folders", subsets), tmp_path / "two"))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 15
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_hidden_files_are_no_tasks(tmp_path: Path) -> None:
    prefix = write_folders(tmp_path, small_tasks())
    names = [task.name for task in read_subset(prefix, "first")]
    (tmp_path / "first" / "._many.json").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "first" / ".copy.json").write_bytes((tmp_path / "first" / f"{names[0]}.json").read_bytes())
    assert [task.name for task in read_subset(prefix, "first")] == names
    (tmp_path / ".git").mkdir()
    with pytest.raises(UserError, match=r"There are: first, second, third\."):
        read_subset(prefix, "fourth")


def test_puzzle_identifiers_start_leaves_blanks(tmp_path: Path) -> None:
    build(config(write_kaggle(tmp_path, small_tasks()), tmp_path / "out", num_aug=0, puzzle_identifiers_start=3))
    names = json.loads((tmp_path / "out" / "identifiers.json").read_text())
    assert names[:3] == ["<blank>"] * 3
    assert sorted(names[3:]) == sorted(["many", "single", "few", "swapped", "across", "exchanged", "full"])
    assert (
        load_shard(tmp_path / "out", "train", "all", load_metadata(tmp_path / "out", "train")).puzzle_identifiers[0]
        == 3
    )


def test_two_test_sets(tmp_path: Path) -> None:
    subsets = small_tasks()
    build(config(write_kaggle(tmp_path, subsets), tmp_path / "out", num_aug=0, test_set_name2="first"))
    assert json.loads((tmp_path / "out" / "test_puzzles.json").read_text()) == subsets["first"] | subsets["second"]


def test_the_random_stream_is_numpys() -> None:
    ours, numpys = LegacyRandom(7), np.random.RandomState(7)
    for end in [1, 2, 3, 8, 30, 31, 1000, 2**31 + 1, 2**32] * 20:
        assert ours.below(end) == numpys.randint(0, end)
        one, two = np.arange(9), np.arange(9)
        ours.shuffle(one)
        numpys.shuffle(two)
        np.testing.assert_array_equal(one, two)


# --- Tasks without solutions --------------------------------------------------------------------------------------


def test_without_solutions_test_inputs_keep_their_place_and_labels_are_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subsets = small_tasks()
    prefix = write_kaggle(tmp_path, subsets)
    build(config(prefix, tmp_path / "solved", num_aug=0))
    Path(f"{prefix}_second_solutions.json").unlink()
    build(config(prefix, tmp_path / "unsolved", num_aug=0))
    assert "4 of 4 tasks lack solutions; those test inputs are predicted but not scored" in capsys.readouterr().err
    solved, unsolved = (
        load_shard(tmp_path / name, "test", "all", load_metadata(tmp_path / name, "test"))
        for name in ("solved", "unsolved")
    )
    np.testing.assert_array_equal(solved.inputs, unsolved.inputs)
    np.testing.assert_array_equal(solved.puzzle_identifiers, unsolved.puzzle_identifiers)
    assert solved.labels.any()
    assert not unsolved.labels.any()
    for task in json.loads((tmp_path / "unsolved" / "test_puzzles.json").read_text()).values():
        assert [list(pair) for pair in task["test"]] == [["input"]]


def test_without_solutions_nothing_is_trained_on_test_inputs(tmp_path: Path) -> None:
    subsets = small_tasks()
    prefix = write_kaggle(tmp_path, subsets)
    Path(f"{prefix}_first_solutions.json").unlink()
    build(config(prefix, tmp_path / "out", num_aug=0))
    shard = load_shard(tmp_path / "out", "train", "all", load_metadata(tmp_path / "out", "train"))
    assert shard.puzzle_indices[3] == sum(len(task["train"]) for task in subsets["first"].values())
    assert shard.labels.any(axis=1).all()


# --- Leaks --------------------------------------------------------------------------------------------------------


def leak_of(first: Tasks, second: Tasks, tmp_path: Path) -> dict[str, list[str]]:
    prefix = write_kaggle(tmp_path, {"first": first, "second": second})
    return find_leaks({name: read_subset(prefix, name) for name in ("first", "second")}, ["second"])


def test_leaks_by_id_and_by_content(tmp_path: Path) -> None:
    asked = example([[1, 2]], [[2, 1]])
    other = example([[7]], [[8]])
    tested: Tasks = {"t": {"train": [other], "test": [asked]}}
    for name, first, second, expected in [
        ("id", {"t": {"train": [example([[3]], [[3]])], "test": []}}, tested, {"first": ["t"]}),
        ("its test pair is trained on", {"a": {"train": [asked], "test": []}}, tested, {"first": ["t"]}),
        ("as a test pair, too", {"a": {"train": [other], "test": [asked]}}, tested, {"first": ["t"]}),
        ("another answer", {"a": {"train": [example([[1, 2]], [[5]])], "test": []}}, tested, {}),
        ("its train pair only", {"a": {"train": [other], "test": []}}, tested, {}),
        ("in the test set", {}, tested | {"u": {"train": [asked], "test": [other]}}, {"second": ["t", "u"]}),
        ("in itself", {}, {"t": {"train": [asked], "test": [asked]}}, {}),
    ]:
        first = first or {"unrelated": {"train": [example([[6]], [[6]])], "test": []}}
        assert leak_of(first, second, tmp_path) == expected, name


def test_the_warning_names_the_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(config(write_kaggle(tmp_path, small_tasks()), tmp_path / "out", num_aug=0, test_set_name="third"))
    error = capsys.readouterr().err
    assert "WARNING: subset 'first' gives away 1 of the test tasks" in error
    assert "Tasks: many" in error


# --- What users get wrong -----------------------------------------------------------------------------------------

GOOD: Tasks = {"good": {"train": [example([[1]], [[2]])], "test": [example([[1]], [[2]])]}}


def task_with(pair: Any) -> Any:
    return {"bad": {"train": [pair], "test": [example([[1]], [[2]])]}}


@pytest.mark.parametrize(
    ("challenges", "message"),
    [
        ("{", "arc_a_challenges.json: not JSON"),
        ([], "expected an object, task id -> task"),
        ({}, "no tasks"),
        ({"bad": 3}, "task 'bad': expected an object with the lists 'train' and 'test'"),
        ({"bad": {"train": []}}, "task 'bad': expected an object with the lists"),
        ({"bad": {"train": [], "test": []}}, "task 'bad': no train pairs"),
        ({"a|||b": GOOD["good"]}, "must not be empty"),
        *(
            ({name: GOOD["good"]}, "becomes the name of a file")
            for name in ("a/b", "..", ".", "a\\b", "a\0", "a\n", "\ud800", "x" * 201)
        ),
        ("", "arc_a_challenges.json is empty"),
        ("[" * 100_000, "nested too deeply"),
        (f"{{{', '.join([json.dumps(GOOD)[1:-1]] * 2)}}}", "the key 'good' is there twice"),
        ('{"t": {"train": [{"input": [[NaN]], "output": [[1]]}], "test": []}}', "NaN is no JSON value"),
        (task_with({"input": "0 1", "output": [[1]]}), "train pair 0, input: text '0 1', not lists of numbers"),
        (task_with({"input": ["01", "10"], "output": [[1]]}), "input: text ['01', '10'], not lists of numbers"),
        (task_with(3), "train pair 0: expected an object with 'input' and 'output'"),
        (task_with({"input": [[1]]}), "train pair 0: no 'output'"),
        (task_with(example([], [[1]])), "train pair 0, input: empty"),
        (task_with(example([[]], [[1]])), "empty"),
        (task_with(example([[1, 2], [3]], [[1]])), "ragged, rows of 1 and 2 cells"),
        (task_with(example([[0] * 31], [[1]])), "1x31, larger than 30x30"),
        (task_with(example([[0]] * 31, [[1]])), "31x1, larger than 30x30"),
        (task_with(example([[1]], [[10]])), "train pair 0, output: cell 10 is no colour"),
        (task_with(example([[1]], [[-1]])), "cell -1 is no colour"),
        (task_with(example([[1]], [["1"]])), "cell '1' is no colour"),  # type: ignore[list-item]
        (task_with(example([[1]], [[True]])), "cell True is no colour"),
        (task_with(example([[1]], [[1.0]])), "cell 1.0 is no colour"),  # type: ignore[list-item]
    ],
)
def test_malformed_tasks(tmp_path: Path, challenges: Any, message: str) -> None:
    text = challenges if isinstance(challenges, str) else json.dumps(challenges)
    (tmp_path / "arc_a_challenges.json").write_text(text)
    with pytest.raises(UserError) as error:
        build(config(str(tmp_path / "arc"), tmp_path / "out", subsets=["a"], test_set_name="a"))
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["arc_a_challenges.json"]  # nothing half-written


@pytest.mark.parametrize(
    ("solutions", "message"),
    [
        ({}, "no solutions for 1 of the 1 tasks of arc_a_challenges.json (good)"),
        ({"good": []}, "task 'good': 0 solutions for 1 test inputs"),
        ({"good": [[[2]], [[2]]]}, "2 solutions for 1 test inputs"),
        ({"good": 5}, "int solutions for 1 test inputs"),
        ({"good": [[[2, 11]]]}, "solution 0: cell 11 is no colour"),
        ([], "expected an object, task id -> list of grids"),
    ],
)
def test_solutions_that_do_not_fit(tmp_path: Path, solutions: Any, message: str) -> None:
    prefix = write_kaggle(tmp_path, {"a": GOOD})
    Path(f"{prefix}_a_solutions.json").write_text(json.dumps(solutions))
    with pytest.raises(UserError) as error:
        build(config(prefix, tmp_path / "out", subsets=["a"], test_set_name="a"))
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_output_that_contradicts_its_solution(tmp_path: Path) -> None:
    prefix = write_kaggle(tmp_path, {"a": GOOD})
    Path(f"{prefix}_a_challenges.json").write_text(json.dumps(GOOD))
    build(config(prefix, tmp_path / "agrees", subsets=["a"], test_set_name="a"))
    Path(f"{prefix}_a_solutions.json").write_text(json.dumps({"good": [[[3]]]}))
    with pytest.raises(UserError, match="test pair 0 has another output than its solution"):
        build(config(prefix, tmp_path / "out", subsets=["a"], test_set_name="a"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subsets": ["firts"], "test_set_name": "firts"}, "There are: first, second, third. Did you mean 'first'?"),
        ({"test_set_name": "secnod"}, "--test-set-name 'secnod' is none of --subsets first second third. Did you mean"),
        ({"test_set_name2": "x"}, "--test-set-name2 'x' is none of --subsets"),
        ({"subsets": ["second", "second"]}, "second more than once"),
        ({"subsets": []}, "--subsets: none"),
        ({"num_aug": -1}, "--num-aug -1: must be at least 0"),
        ({"puzzle_identifiers_start": 0}, "--puzzle-identifiers-start 0: must be at least 1"),
        ({"seed": -1}, "--seed -1: must be at least 0"),
        ({"seed": 1 << 32}, "must be below 2**32"),
        (
            {"test_set_name2": "third", "test_set_name": "first"},
            "task 'many' is in both test sets, 'first' and 'third'",
        ),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    prefix = write_kaggle(tmp_path / "in", small_tasks())
    with pytest.raises(UserError) as error:
        build(config(prefix, tmp_path / "out", **options))
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_test_task_without_test_pairs(tmp_path: Path) -> None:
    prefix = write_kaggle(tmp_path, {"a": {"t": {"train": [example([[1]], [[1]])], "test": []}}})
    with pytest.raises(UserError, match="task 't': no test pairs"):
        build(config(prefix, tmp_path / "out", subsets=["a"], test_set_name="a"))


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        config("arc", Path("out"), num_augs=3)


def test_an_existing_data_set_is_replaced_only_when_asked(tmp_path: Path) -> None:
    prefix = write_kaggle(tmp_path, small_tasks())
    build(config(prefix, tmp_path / "out", num_aug=0))
    with pytest.raises(UserError, match="--overwrite"):
        build(config(prefix, tmp_path / "out", num_aug=1))
    assert load_metadata(tmp_path / "out", "train").total_puzzles == 8
    build(config(prefix, tmp_path / "out", num_aug=1, overwrite=True))
    assert load_metadata(tmp_path / "out", "train").total_puzzles == 15  # "single" has no augmentation


@pytest.mark.thorough
@pytest.mark.parametrize(
    "start", [["-m", "dataset.build_arc_dataset"], [str(ROOT / "dataset" / "build_arc_dataset.py")]]
)
def test_the_published_command_line(tmp_path: Path, start: list[str]) -> None:
    prefix = write_kaggle(tmp_path, small_tasks())
    line = f"--input-file-prefix {prefix} --output-dir {tmp_path / 'out'} --subsets first second third --seed 1"
    command = [sys.executable, *start, *line.split(), "--test-set-name", "second", "--num-aug", "1"]
    cwd = ROOT if start[0] == "-m" else tmp_path
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_equal(tmp_path / "out", plain_build(small_tasks(), "second", 1, 1))
    again = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert again.stderr.strip().startswith("error: ")
    assert "Traceback" not in again.stderr


# --- Without permuted colours -------------------------------------------------------------------------------------


def test_without_permuted_colours_the_copies_are_the_eight_symmetries(tmp_path: Path) -> None:
    prefix, out = write_kaggle(tmp_path / "in", small_tasks()), tmp_path / "out"
    defaults = {"subsets": ["first", "second"], "test_set_name": "second", "permute_colours": False}
    build(Config(input_file_prefix=prefix, output_dir=out, **defaults))
    names = json.loads((out / "identifiers.json").read_text())
    copies = [f"|||t{transform}|||0123456789" for transform in range(8)]
    for name in ("many", "single", "full"):
        first = names.index(name)
        assert names[first : first + 9] == [name + ending for ending in ("", *copies)]
    assert np.diff(np.load(out / "test" / "all__group_indices.npy")).tolist() == [9] * 4
    with pytest.raises(UserError, match="eight copies"):
        build(Config(input_file_prefix=prefix, output_dir=tmp_path / "other", num_aug=20, **defaults))
