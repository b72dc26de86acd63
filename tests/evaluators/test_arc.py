import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dataset.build_arc_dataset import Config, build
from dataset.shards import BLANK_IDENTIFIER, PuzzleDatasetMetadata, load_metadata, load_shard
from dataset.tasks.arc.augmentation import Augmentation, parse_puzzle_name, puzzle_name
from dataset.tasks.arc.field import encode
from evaluators.arc import ARC, NO_ATTEMPT
from evaluators.votes import add_exactly
from tests.paths import SHARED
from utils.errors import UserError

KAGGLE = SHARED / "data" / "arc-kaggle-combined"
RECORDED = SHARED / "oracles" / "arc_evaluator"
needs_shared = pytest.mark.skipif(not RECORDED.exists(), reason="the recorded evaluation is not here")

Grid = list[list[int]]
Arrays = dict[str, np.ndarray]  # the four required outputs, a row per example

METADATA = PuzzleDatasetMetadata(
    pad_id=0,
    ignore_label_id=0,
    blank_identifier_id=0,
    vocab_size=12,
    seq_len=900,
    num_puzzle_identifiers=2,
    total_groups=1,
    mean_puzzle_examples=1.0,
    total_puzzles=1,
    sets=["all"],
)


def update(evaluator: ARC, arrays: Arrays) -> None:
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    batch = {name: tensors.pop(name) for name in ("inputs", "puzzle_identifiers")}
    evaluator.update_batch(batch, tensors)


def feed(evaluator: ARC, arrays: Arrays, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
    """One evaluation: each rank gets its part of every batch, padded with blank rows at the end."""
    evaluator.begin_eval()
    total = len(arrays["inputs"])
    local = batch_size // world_size
    for start in range(0, total, batch_size):
        rows = np.arange(start + rank * local, start + (rank + 1) * local)
        part = {name: array[np.minimum(rows, total - 1)] for name, array in arrays.items()}
        part["puzzle_identifiers"] = np.where(rows < total, part["puzzle_identifiers"], 0)
        update(evaluator, part)


# --- Against the recorded evaluation ------------------------------------------------------------------------------


def recorded_arrays(data: str) -> Arrays:
    shard = load_shard(data, "test", "all", load_metadata(data, "test"))
    with np.load(RECORDED / "arc_predictions.npz") as predictions:
        return {
            "inputs": np.array(shard.inputs),
            "puzzle_identifiers": np.repeat(shard.puzzle_identifiers, np.diff(shard.puzzle_indices)),
            "preds": predictions["preds"],
            "q_halt_logits": predictions["q_halt_logits"],
        }


def coarse(arrays: Arrays) -> Arrays:
    """The same with few levels of confidence, so that many scores are tied."""
    return arrays | {"q_halt_logits": np.round(arrays["q_halt_logits"] / 4) * 4}


@pytest.fixture(scope="module")
def arc1_aug8(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("arc") / "arc1-aug8"
    build(
        Config(
            input_file_prefix=str(KAGGLE / "arc-agi"),
            output_dir=folder,
            subsets=["training", "evaluation", "concept"],
            test_set_name="evaluation",
            num_aug=8,
        )
    )
    return str(folder)


@needs_shared
def test_equals_the_recorded_evaluation(arc1_aug8: str, tmp_path: Path) -> None:
    evaluator = ARC(arc1_aug8, load_metadata(arc1_aug8, "test"))
    feed(evaluator, recorded_arrays(arc1_aug8), batch_size=768)
    result = evaluator.result(str(tmp_path), rank=0, world_size=1)
    assert result == json.loads((RECORDED / "arc_result.json").read_text())
    assert (tmp_path / "submission.json").read_bytes() == (RECORDED / "submission.json").read_bytes()


def evaluate_on_rank(rank: int, world_size: int, data: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    evaluator = ARC(data, load_metadata(data, "test"))
    arrays = recorded_arrays(data)
    for name, given in (("recorded", arrays), ("tied", coarse(arrays))):
        feed(evaluator, given, 96, rank, world_size)
        result = evaluator.result(f"{folder}/{name}", rank, world_size)
        assert (result is None) == (rank != 0)
        if rank == 0:
            Path(folder, name, "result.json").write_text(json.dumps(result))
    dist.destroy_process_group()


@pytest.mark.thorough
@needs_shared
def test_three_processes_find_what_one_finds(arc1_aug8: str, tmp_path: Path) -> None:
    mp.spawn(evaluate_on_rank, (3, arc1_aug8, str(tmp_path)), nprocs=3)
    assert json.loads((tmp_path / "recorded" / "result.json").read_text()) == json.loads(
        (RECORDED / "arc_result.json").read_text()
    )
    submission = (tmp_path / "recorded" / "submission.json").read_bytes()
    assert submission == (RECORDED / "submission.json").read_bytes()

    one = ARC(arc1_aug8, load_metadata(arc1_aug8, "test"))
    feed(one, coarse(recorded_arrays(arc1_aug8)), 100)
    result = one.result(str(tmp_path / "one"), 0, 1)
    assert json.loads((tmp_path / "tied" / "result.json").read_text()) == result
    assert (tmp_path / "tied" / "submission.json").read_bytes() == (tmp_path / "one" / "submission.json").read_bytes()
    assert (tmp_path / "tied" / "submission.json").read_bytes() != submission  # ties did decide


# --- Small data sets, made by hand --------------------------------------------------------------------------------

IN, RIGHT, WRONG, OTHER = [[1, 2]], [[3, 4], [5, 6]], [[7]], [[8, 8]]


def write_data(folder: Path, tests: dict[str, list[dict[str, Grid]]], names: Sequence[str]) -> str:
    """A data set with these test pairs per task; id 0 is blank, then `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "identifiers.json").write_text(json.dumps([BLANK_IDENTIFIER, *names]))
    train = [{"input": [[0]], "output": [[0]]}]
    (folder / "test_puzzles.json").write_text(json.dumps({t: {"train": train, "test": p} for t, p in tests.items()}))
    return str(folder)


def vote(identifier: int, answer: Grid | None, logit: float, name: str = "a", asked: Grid = IN) -> tuple[Any, ...]:
    """A row as the model would see and answer it: an `answer` of None is a field without a grid at its corner."""
    _, augmentation = parse_puzzle_name(name)
    inputs = encode(augmentation.apply(np.array(asked, dtype=np.uint8)))
    if answer is None:
        preds = np.zeros(900, dtype=np.uint8)
    else:
        preds = encode(augmentation.apply(np.array(answer, dtype=np.uint8)))
    return inputs, identifier, preds, logit


def stack(votes: Sequence[tuple[Any, ...]]) -> Arrays:
    inputs, identifiers, preds, logits = zip(*votes, strict=True)
    return {
        "inputs": np.stack(inputs),
        "puzzle_identifiers": np.array(identifiers, dtype=np.int32),
        "preds": np.stack(preds),
        "q_halt_logits": np.array(logits, dtype=np.float32),
    }


def evaluate(
    evaluator: ARC, votes: Sequence[tuple[Any, ...]], folder: Path, batch_size: int = 4
) -> tuple[dict[str, float], dict[str, list[dict[str, Grid]]]]:
    feed(evaluator, stack(votes), batch_size)
    result = evaluator.result(str(folder), 0, 1)
    assert result is not None
    return result, json.loads((folder / "submission.json").read_text())


@pytest.fixture
def one_task(tmp_path: Path) -> str:
    return write_data(tmp_path / "data", {"a": [{"input": IN, "output": RIGHT}]}, ["a"])


def test_more_votes_come_first_then_more_confidence(one_task: str, tmp_path: Path) -> None:
    votes = [vote(1, WRONG, 9.0), vote(1, OTHER, 1.0), vote(1, RIGHT, -3.0), vote(1, RIGHT, -3.0)]
    result, submission = evaluate(ARC(one_task, METADATA, pass_Ks=[1, 2]), votes, tmp_path)
    assert result == {"ARC/pass@1": 1.0, "ARC/pass@2": 1.0}
    assert submission == {"a": [{"attempt_1": RIGHT, "attempt_2": WRONG}]}


def test_pass_at_k_counts_the_first_k(one_task: str, tmp_path: Path) -> None:
    votes = [vote(1, RIGHT, -1.0), vote(1, OTHER, 1.0), vote(1, WRONG, 0.0)]
    result, submission = evaluate(ARC(one_task, METADATA), votes, tmp_path)
    assert result == {f"ARC/pass@{k}": float(k >= 3) for k in (1, 2, 5, 10, 100, 1000)}
    assert submission == {"a": [{"attempt_1": OTHER, "attempt_2": WRONG}]}


@pytest.mark.parametrize("order", [[RIGHT, WRONG, OTHER], [OTHER, RIGHT, WRONG], [WRONG, OTHER, RIGHT]])
@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_ties_come_in_order_of_arrival(one_task: str, tmp_path: Path, order: list[Grid], batch_size: int) -> None:
    # Each grid gets the same three confidences, one after the other.
    logits = [0.3, -1.7, 2.2]
    votes = [vote(1, order[i], logits[(i + turn) % 3]) for turn in range(3) for i in range(3)]
    evaluator = ARC(one_task, METADATA, submission_K=3)
    _, submission = evaluate(evaluator, votes, tmp_path, batch_size)
    assert list(submission["a"][0].values()) == order


def test_a_mean_does_not_depend_on_the_order_of_votes(one_task: str, tmp_path: Path) -> None:
    # Added up in this order in float64, the two means differ in the last digit.
    logits = np.random.default_rng(2).normal(0, 5, 50).astype(np.float32).tolist()
    votes = [vote(1, RIGHT, q) for q in logits] + [vote(1, WRONG, q) for q in sorted(logits)]
    for given, first in ((votes, RIGHT), (votes[::-1], WRONG)):
        _, submission = evaluate(ARC(one_task, METADATA), given, tmp_path)
        assert submission["a"][0]["attempt_1"] == first


def test_exact_sums() -> None:
    rng = np.random.default_rng(0)
    numbers = (rng.uniform(size=500) * 2.0 ** rng.integers(-80, 1, 500)).tolist()
    halves: list[list[float]] = [[], []]
    for index, number in enumerate(numbers):
        add_exactly(halves[index % 2], number)
    assert sum(map(Fraction, halves[0] + halves[1])) == sum(map(Fraction, numbers))
    assert math.fsum(halves[0] + halves[1]) == math.fsum(numbers)
    assert max(map(len, halves)) < 8  # however many numbers


def test_a_single_candidate_is_repeated(one_task: str, tmp_path: Path) -> None:
    _, submission = evaluate(ARC(one_task, METADATA, submission_K=3), [vote(1, WRONG, 0.0)], tmp_path)
    assert submission == {"a": [{"attempt_1": WRONG, "attempt_2": WRONG, "attempt_3": WRONG}]}


def test_an_empty_crop_is_a_candidate_and_votes(one_task: str, tmp_path: Path) -> None:
    votes = [vote(1, RIGHT, 5.0), vote(1, None, -5.0), vote(1, None, -5.0)]
    result, submission = evaluate(ARC(one_task, METADATA, pass_Ks=[1, 2]), votes, tmp_path)
    assert submission == {"a": [{"attempt_1": [], "attempt_2": RIGHT}]}
    assert result == {"ARC/pass@1": 0.0, "ARC/pass@2": 1.0}


def test_blank_rows_are_padding(one_task: str, tmp_path: Path) -> None:
    votes = [vote(0, WRONG, 5.0), vote(1, RIGHT, -5.0), vote(0, WRONG, 5.0)]
    result, submission = evaluate(ARC(one_task, METADATA, pass_Ks=[1]), votes, tmp_path)
    assert result == {"ARC/pass@1": 1.0}
    assert submission == {"a": [{"attempt_1": RIGHT, "attempt_2": RIGHT}]}


def test_a_test_input_without_predictions_is_wrong_and_keeps_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [{"input": [[9]], "output": WRONG}, {"input": IN, "output": RIGHT}]
    tests = {"a": pairs, "b": [{"input": IN, "output": OTHER}]}
    evaluator = ARC(write_data(tmp_path / "data", tests, ["a", "b"]), METADATA, pass_Ks=[1])
    result, submission = evaluate(evaluator, [vote(1, RIGHT, 0.0)], tmp_path)
    assert result == {"ARC/pass@1": 0.25}  # half of one task of two
    nothing = {"attempt_1": NO_ATTEMPT, "attempt_2": NO_ATTEMPT}
    assert submission == {"a": [nothing, {"attempt_1": RIGHT, "attempt_2": RIGHT}], "b": [nothing]}
    assert "2 test inputs have no predictions" in capsys.readouterr().out


def test_tasks_without_solutions_are_in_the_submission_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tests: dict[str, list[dict[str, Grid]]] = {"a": [{"input": IN}], "b": [{"input": IN, "output": OTHER}]}
    evaluator = ARC(write_data(tmp_path / "data", tests, ["a", "b"]), METADATA, pass_Ks=[1])
    result, submission = evaluate(evaluator, [vote(1, RIGHT, 0.0), vote(2, OTHER, 0.0)], tmp_path)
    assert result == {"ARC/pass@1": 1.0}
    assert [submission[name][0]["attempt_1"] for name in "ab"] == [RIGHT, OTHER]

    alone = ARC(write_data(tmp_path / "data2", {"a": [{"input": IN}]}, ["a"]), METADATA)
    result, submission = evaluate(alone, [vote(1, RIGHT, 0.0)], tmp_path)
    assert result == {}
    assert submission == {"a": [{"attempt_1": RIGHT, "attempt_2": RIGHT}]}
    assert "there is no pass@k" in capsys.readouterr().out


def test_equal_test_inputs_share_their_votes(tmp_path: Path) -> None:
    pairs = [{"input": IN, "output": RIGHT}, {"input": IN, "output": WRONG}]
    evaluator = ARC(write_data(tmp_path / "data", {"a": pairs}, ["a"]), METADATA, pass_Ks=[1, 2])
    result, _ = evaluate(evaluator, [vote(1, RIGHT, 0.0), vote(1, WRONG, 1.0)], tmp_path)
    assert result == {"ARC/pass@1": 0.5, "ARC/pass@2": 1.0}


def test_predictions_for_other_inputs_do_not_count(
    one_task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    votes = [vote(1, WRONG, 5.0, asked=[[4]]), vote(1, RIGHT, 0.0)]
    _, submission = evaluate(ARC(one_task, METADATA), votes, tmp_path)
    assert submission["a"][0]["attempt_1"] == RIGHT
    assert "1 predictions are for none of the test inputs" in capsys.readouterr().out


def test_augmentations_are_undone_and_random_votes_agree_with_a_plain_count(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    tests = {
        task: [{"input": [[number, 1, 0]], "output": rng.integers(0, 10, (2, 3)).tolist()} for number in range(2)]
        for task in ("a", "b", "c")
    }
    names = [
        puzzle_name(task, transform, "0" + "".join(map(str, rng.permutation(np.arange(1, 10)))))
        for task in tests
        for transform in range(8)
    ]
    plain: dict[tuple[str, int], list[tuple[Grid, float]]] = {}
    votes = []
    for _ in range(600):
        identifier = int(rng.integers(1, len(names) + 1))
        name = names[identifier - 1]
        task, number = name[0], int(rng.integers(2))
        pair = tests[task][number]
        answer = pair["output"] if rng.random() < 0.2 else rng.integers(0, 2, (1, 2)).tolist()
        logit = float(rng.integers(-2, 3))
        votes.append(vote(identifier, answer, logit, name, pair["input"]))
        q = float(torch.tensor(logit, dtype=torch.float64).sigmoid())
        plain.setdefault((task, number), []).append((answer, q))

    hits = dict.fromkeys((1, 2, 3, 4), 0.0)
    attempts: dict[str, list[list[Grid]]] = {}
    for task, pairs in tests.items():
        for number, pair in enumerate(pairs):
            scores: dict[str, list[float]] = {}
            for answer, q in plain[task, number]:
                scores.setdefault(json.dumps(answer), []).append(q)
            ranked = sorted(scores, key=lambda a: (len(scores[a]), math.fsum(scores[a]) / len(scores[a])), reverse=True)
            for k in hits:
                hits[k] += (json.dumps(pair["output"]) in ranked[:k]) / 2
            attempts.setdefault(task, []).append([json.loads(answer) for answer in ranked[:2]])

    evaluator = ARC(write_data(tmp_path / "data", tests, names), METADATA, pass_Ks=list(hits))
    result, submission = evaluate(evaluator, votes, tmp_path, batch_size=64)
    assert result == {f"ARC/pass@{k}": total / 3 for k, total in hits.items()}
    assert {task: [list(pair.values()) for pair in pairs] for task, pairs in submission.items()} == attempts


def test_each_evaluation_starts_from_nothing(one_task: str, tmp_path: Path) -> None:
    evaluator = ARC(one_task, METADATA, pass_Ks=[1])
    evaluate(evaluator, [vote(1, WRONG, 5.0), vote(1, WRONG, 5.0)], tmp_path)
    for _ in range(2):  # asking twice does not add either
        result, _ = evaluate(evaluator, [vote(1, RIGHT, -5.0)], tmp_path)
        assert evaluator.result(None, 0, 1) == result == {"ARC/pass@1": 1.0}


def test_aggregated_voting_keeps_votes_and_says_so(
    one_task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluator = ARC(one_task, METADATA, pass_Ks=[1], aggregated_voting=True)
    evaluate(evaluator, [vote(1, WRONG, 5.0), vote(1, WRONG, 5.0)], tmp_path)
    assert capsys.readouterr().out == ""
    result, submission = evaluate(evaluator, [vote(1, RIGHT, -5.0)], tmp_path)
    assert "the votes of 1 earlier evaluations count as well" in capsys.readouterr().out
    assert result == {"ARC/pass@1": 0.0}
    assert submission == {"a": [{"attempt_1": WRONG, "attempt_2": RIGHT}]}


def test_memory_grows_with_distinct_predictions_only(one_task: str) -> None:
    evaluator = ARC(one_task, METADATA)
    feed(evaluator, stack([vote(1, RIGHT, q / 7) for q in range(500)]), 50)
    (candidates,) = evaluator._votes.values()
    (candidate,) = candidates.values()
    assert candidate.votes == 500
    assert len(candidate.confidence) < 8


def test_an_evaluation_in_two_parts_is_one(one_task: str, tmp_path: Path) -> None:
    votes = [vote(1, WRONG, -1.0), vote(1, RIGHT, 2.0), vote(1, WRONG, 0.5), vote(1, RIGHT, 0.5), vote(1, RIGHT, -3.0)]
    whole = ARC(one_task, METADATA)
    feed(whole, stack(votes), 1)
    first, second = ARC(one_task, METADATA), ARC(one_task, METADATA)
    feed(first, stack(votes[:3]), 1)
    second.load_state(first.state())
    for one in votes[3:]:
        update(second, stack([one]))
    assert (second._votes, second._calls, second._unasked) == (whole._votes, whole._calls, whole._unasked)
    assert second.result(None, 0, 1) == whole.result(None, 0, 1)


def test_a_diverged_model_is_scored_without_confidence(one_task: str, tmp_path: Path) -> None:
    votes = [vote(1, WRONG, math.nan), vote(1, RIGHT, -50.0), vote(1, OTHER, math.inf)]
    result, _ = evaluate(ARC(one_task, METADATA, pass_Ks=[1, 2]), votes, tmp_path)
    assert result == {"ARC/pass@1": 0.0, "ARC/pass@2": 1.0}


def test_outputs_are_found_in_either_mapping(one_task: str) -> None:
    evaluator = ARC(one_task, METADATA, pass_Ks=[1])
    evaluator.begin_eval()
    tensors = {name: torch.from_numpy(array) for name, array in stack([vote(1, RIGHT, 0.0)]).items()}
    tensors["q_halt_logits"] = tensors["q_halt_logits"].to(torch.bfloat16)
    evaluator.update_batch({}, tensors)
    assert evaluator.result(None, 0, 1) == {"ARC/pass@1": 1.0}
    with pytest.raises(ValueError, match="needs \\['preds'\\]"):
        evaluator.update_batch({name: tensors[name] for name in tensors if name != "preds"}, {})


@pytest.mark.thorough
def test_pictures(tmp_path: Path) -> None:
    tests: dict[str, list[dict[str, Grid]]] = {
        "a": [{"input": IN, "output": RIGHT}, {"input": [[5]]}],
        "b": [{"input": IN, "output": RIGHT}],
    }
    evaluator = ARC(write_data(tmp_path / "data", tests, ["a", "b"]), METADATA, pictures=1)
    evaluate(evaluator, [vote(1, None, 0.0), vote(1, RIGHT, 1.0)], tmp_path)
    (picture,) = (tmp_path / "arc_pictures").iterdir()
    assert picture.name == "a.png"

    from matplotlib.image import imread

    seen = {tuple(colour) for colour in np.round(imread(picture)[..., :3].reshape(-1, 3) * 255).astype(int).tolist()}
    assert {(0x1E, 0x93, 0xFF), (0xF9, 0x3C, 0x31)} <= seen  # colours 1 and 2, of the first input only
    assert (0x99, 0x99, 0x99) in seen  # colour 5
    assert not {(0xFF, 0x85, 0x1B), (0x87, 0xD8, 0xF1), (0x92, 0x12, 0x31)} & seen  # colours 7, 8 and 9


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", ".."])
def test_a_task_whose_picture_would_lie_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    data = write_data(tmp_path, {name: [{"input": IN, "output": RIGHT}]}, [name])
    with pytest.raises(
        UserError, match=rf"test_puzzles\.json, task '{name}': its id: '{name}' becomes the name of a file"
    ):
        ARC(data, METADATA, pictures=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"submission_K": 0}, "submission_K and every k must be at least 1"),
        ({"pass_Ks": [1, 0]}, "every k must be at least 1"),
        ({"pictures": -1}, "pictures at least 0"),
    ],
)
def test_wrong_options(one_task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ARC(one_task, METADATA, **options)


def test_data_that_is_not_arcs(one_task: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has seq_len 81 and vocabulary 11"):
        ARC(one_task, METADATA.model_copy(update={"seq_len": 81, "vocab_size": 11}))
    (Path(one_task) / "test_puzzles.json").write_text("{}")
    with pytest.raises(UserError, match="expected an object, task id -> task"):
        ARC(one_task, METADATA)
    for content in ("{", "[" * 100_000):
        (Path(one_task) / "test_puzzles.json").write_text(content)
        with pytest.raises(UserError, match=r"test_puzzles\.json: not JSON .*Build the data set again"):
            ARC(one_task, METADATA)
    (Path(one_task) / "test_puzzles.json").unlink()
    (Path(one_task) / "test_puzzles.json").mkdir()
    with pytest.raises(UserError, match=r"test_puzzles\.json is a folder, expected a regular file"):
        ARC(one_task, METADATA)
    (Path(one_task) / "test_puzzles.json").rmdir()
    with pytest.raises(UserError, match=r"test_puzzles\.json is missing"):
        ARC(one_task, METADATA)
    with pytest.raises(UserError, match=r"identifiers\.json is missing"):
        ARC(str(tmp_path / "nowhere"), METADATA)


def test_a_puzzle_id_without_a_name(one_task: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"puzzle id 2, but identifiers\.json names 0\.\.1"):
        evaluate(ARC(one_task, METADATA), [vote(2, RIGHT, 0.0)], tmp_path)


def test_the_published_form_of_augmented_names() -> None:
    """A name made by the published builder, and what its augmentation does to a grid, worked out by hand."""
    task, augmentation = parse_puzzle_name("00576224|||t1|||0817492365")
    assert (task, augmentation) == ("00576224", Augmentation(1, "0817492365"))
    # A quarter turn counter-clockwise of [[1, 2], [3, 4]] is [[2, 4], [1, 3]]; 1 -> 8, 2 -> 1, 3 -> 7, 4 -> 4.
    assert augmentation.apply(np.array([[1, 2], [3, 4]])).tolist() == [[1, 4], [8, 7]]
    assert augmentation.undo(np.array([[1, 4], [8, 7]])).tolist() == [[1, 2], [3, 4]]
