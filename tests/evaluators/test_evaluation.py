"""Evaluation against the published way, a plain loop over examples, and itself with other batch sizes."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import evaluators.evaluation
from dataset.puzzle_dataset import EvalBatches, PuzzleSplit
from dataset.shards import PuzzleDatasetMetadata, write_identifiers, write_split
from evaluators.answers import MODEL_INPUTS, HaltRule
from evaluators.evaluation import (
    EvaluationResult,
    Evaluator,
    check_save_outputs,
    evaluate_split,
    make_evaluators,
    solve_example,
)
from evaluators.result_table import BLANK, format_ids, format_result
from models.act import Carry
from models.losses import ACTLossHead, Score
from tests.models.small import ARCHITECTURES, CONFIG, small_model, spread_q
from utils.distributed import Ranks
from utils.errors import UserError
from utils.settings import EvaluatorConfig

CPU = torch.device("cpu")
STEPS = 4
PUBLISHED = HaltRule(threshold=0.5, unchanged=False)
EXAMPLES = 23
UNLABELLED = (4, 5, 22)


def head_of(architecture: str = "trm", **overrides: object) -> ACTLossHead:
    """A model some of whose slots want to halt at each step, in training mode as during a run."""
    settings: dict[str, Any] = {"halt_max_steps": STEPS, "H_cycles": 1, **overrides}
    return ACTLossHead(spread_q(small_model(architecture, **settings)))


def write_random(root: Path, seed: int = 0, names: tuple[str, ...] = ("a", "b", "c", "d"), sets: int = 1) -> Path:
    """Random examples, two to a puzzle; label 0 is ignored, and some examples have no other."""
    rng = np.random.default_rng(seed)
    puzzles = -(-EXAMPLES // 2)
    metadata = PuzzleDatasetMetadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=CONFIG["vocab_size"],
        seq_len=CONFIG["seq_len"],
        num_puzzle_identifiers=len(names) + 1,
        total_groups=puzzles,
        mean_puzzle_examples=EXAMPLES / puzzles,
        sets=["all", "more"][:sets],
    )
    for set_name in metadata.sets:
        inputs, labels = rng.integers(0, CONFIG["vocab_size"], (2, EXAMPLES, CONFIG["seq_len"]))
        labels[:, 0] = 0
        labels[list(UNLABELLED)] = 0
        arrays = {
            "inputs": inputs,
            "labels": labels,
            "puzzle_identifiers": rng.integers(0, len(names) + 1, puzzles),
            "puzzle_indices": np.minimum(np.arange(puzzles + 1) * 2, EXAMPLES),
            "group_indices": np.arange(puzzles + 1),
        }
        write_split(root / "test", arrays, metadata, set_name)
    write_identifiers(root, ["<blank>", *names])
    return root


def teach(root: Path, head: ACTLossHead) -> None:
    """Make the labels of some examples what the model answers after one, two, ... steps, so that it is right there."""
    path = root / "test" / "all__labels.npy"
    labels, split = np.load(path), PuzzleSplit([root], "test")
    for example in set(range(EXAMPLES)) - set(UNLABELLED):
        if example % 3:
            frames = answers_of(head, split, example)
            labels[example] = frames[example % STEPS]
    np.save(path, labels)


def answers_of(head: ACTLossHead, split: PuzzleSplit, example: int) -> list[torch.Tensor]:
    """The answer [seq] to one example, alone in its batch, after each step."""
    arrays = EvalBatches(split.sources[0], split.sources[0].shards[0], 1)[example]
    data = {key: torch.from_numpy(arrays[key]) for key in MODEL_INPUTS}
    answers, was_training = [], head.training
    head.eval()
    with torch.no_grad():
        carry = head.initial_carry(data)
        for _ in range(STEPS):
            carry, outputs = head.model(carry, data)
            answers.append(outputs["logits"][0].argmax(-1))
    head.train(was_training)
    return answers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_random(tmp_path / "data")
    teach(root, head_of())
    return root


def evaluate(head: ACTLossHead, split: PuzzleSplit, **options: Any) -> dict[str, EvaluationResult]:
    settings: dict[str, Any] = {"device": CPU, "ranks": Ranks(), "global_batch_size": 8, "evaluators": [], **options}
    return evaluate_split(head, split, **settings)


def batches_of(split: PuzzleSplit, size: int) -> Iterator[dict[str, Tensor]]:
    source = split.sources[0]
    for arrays in EvalBatches(source, source.shards[0], size):
        names = ("inputs", "labels", "puzzle_identifiers")
        yield {name: torch.from_numpy(arrays[name]) for name in names}


def agree(one: EvaluationResult, other: EvaluationResult) -> bool:
    return all(value == pytest.approx(getattr(other, key), rel=1e-5) for key, value in asdict(one).items())


# -- the metrics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_metrics_are_those_of_the_published_way(tmp_path: Path, architecture: str):
    head = head_of(architecture)
    teach(write_random(tmp_path), head)
    split = PuzzleSplit([tmp_path], "test")
    result = evaluate(head, split)["all"]
    assert head.training

    head.eval()
    sums: dict[str, float] = {}
    with torch.no_grad():
        for batch in batches_of(split, 8):
            carry = head.initial_carry(batch)
            for step in range(STEPS):
                carry, _, metrics, _, finished = head(carry=carry, batch=batch)
                assert finished == (step == STEPS - 1)
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0) + float(value)
    count = sums.pop("count")
    assert (result.count, result.examples) == (count, EXAMPLES) == (EXAMPLES - len(UNLABELLED), EXAMPLES)
    assert result.metrics == pytest.approx({name: value / count for name, value in sums.items()}, rel=1e-6)
    assert result.metrics["steps"] == STEPS
    assert 0 < result.metrics["exact_accuracy"] < result.metrics["accuracy"] < 1
    assert 0 < result.metrics["q_halt_accuracy"] < 1


def test_accuracies_after_each_step(root: Path):
    head, split = head_of(), PuzzleSplit([root], "test")
    result = evaluate(head, split)["all"]
    exact, accuracy = [0.0] * STEPS, [0.0] * STEPS
    for example, batch in enumerate(batches_of(split, 1)):
        labels = batch["labels"][0]
        asked = labels != -100
        if example in UNLABELLED:
            assert not asked.any()
            continue
        for step, answer in enumerate(answers_of(head, split, example)):
            right = (answer == labels)[asked].double()
            accuracy[step] += float(right.mean())
            exact[step] += float(right.all())
    count = EXAMPLES - len(UNLABELLED)
    assert result.exact_accuracy_after_step == pytest.approx([x / count for x in exact])
    assert result.accuracy_after_step == pytest.approx([x / count for x in accuracy])
    assert result.exact_accuracy_after_step[-1] == result.metrics["exact_accuracy"]
    assert result.accuracy_after_step[-1] == pytest.approx(result.metrics["accuracy"])
    assert len(set(exact)) > 1


def plain_answers(head: ACTLossHead, split: PuzzleSplit, rule: HaltRule) -> dict[str, Tensor]:
    """Each example alone, until the rule lets it stop."""
    head.eval()
    found: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for batch in batches_of(split, 1):
            carry, before = head.initial_carry(batch), None
            for _ in range(STEPS):
                carry, outputs = head.model(carry, batch)
                q_halt, preds = outputs["q_halt_logits"], outputs["logits"].argmax(-1)
                margin = q_halt - (outputs["q_continue_logits"] if head.model.inner.compares_continue else 0)
                unchanged = before is not None and torch.equal(preds, before)
                if margin.sigmoid() > rule.threshold and (unchanged or not rule.unchanged):
                    break
                before = preds
            score = Score(preds, q_halt, batch["labels"])
            kept = {**outputs, **vars(score), "steps": carry.steps}
            for name, value in kept.items():
                found.setdefault(name, []).append(value)
    head.train()
    return {name: torch.cat(values) for name, values in found.items()}


RULES = [PUBLISHED, HaltRule(), HaltRule(threshold=0.0), HaltRule(threshold=0.97, unchanged=False), HaltRule(0.8)]


def settling(head: ACTLossHead) -> ACTLossHead:
    """With weaker layers, so that some answers stay from one step to the next."""
    with torch.no_grad():
        for parameter in head.model.inner.L_level.parameters():  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            parameter *= 0.3
    return head


@pytest.mark.thorough
@pytest.mark.parametrize("fixed_sizes", [False, True])
@pytest.mark.parametrize("size", [1, 7, 16, 100])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_early_halting_is_each_example_until_the_rule_stops_it(
    root: Path, tmp_path: Path, rule: HaltRule, size: int, fixed_sizes: bool
):
    head = settling(head_of())
    teach(root, head)
    check_early_halting(head, root, tmp_path, rule, global_batch_size=size, fixed_sizes=fixed_sizes, halting=rule)


def test_the_rules_differ(root: Path):
    head, split = settling(head_of()), PuzzleSplit([root], "test")
    assert len({str(plain_answers(head, split, rule)["steps"].tolist()) for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("fixed_sizes", [False, True])
@pytest.mark.parametrize("rule", [None, *RULES], ids=str)
def test_the_batch_stays_full(root: Path, monkeypatch: pytest.MonkeyPatch, rule: HaltRule | None, fixed_sizes: bool):
    head, split, sizes = settling(head_of()), PuzzleSplit([root], "test"), []
    forward = head.model.forward

    def counted(carry: Carry, batch: dict[str, Tensor], **options: Any) -> Any:
        sizes.append(len(carry.steps))
        return forward(carry, batch, **options)

    monkeypatch.setattr(head.model, "forward", counted)
    evaluate(head, split, halting=rule, fixed_sizes=fixed_sizes, global_batch_size=8)
    monkeypatch.undo()
    needed = STEPS * EXAMPLES if rule is None else int(plain_answers(head, split, rule)["steps"].sum())
    assert sizes == sorted(sizes, reverse=True)
    if fixed_sizes:
        assert set(sizes) <= {8, 4, 2, 1}
        assert needed <= sum(sizes) < needed + 8 * STEPS
    else:
        assert sum(sizes) == needed  # nothing is computed on an example that has finished


@pytest.mark.parametrize(
    ("architecture", "by_inference"),
    [("hrm", False), ("transformers_baseline", False), ("transformers_baseline", True)],
)
def test_early_halting_of_other_architectures(root: Path, tmp_path: Path, architecture: str, by_inference: bool):
    head = head_of(architecture, **({"act_inference": True} if by_inference else {}))
    teach(root, head)
    check_early_halting(head, root, tmp_path, PUBLISHED, halting=None if by_inference else PUBLISHED)


def check_early_halting(head: ACTLossHead, root: Path, tmp_path: Path, rule: HaltRule, **options: Any) -> None:
    """An evaluation with these options against each example alone: outputs, metrics, accuracy after each step."""
    split = PuzzleSplit([root], "test")
    names = ["preds", "logits", "q_halt_logits", "q_continue_logits", "steps"]
    result = evaluate(head, split, save_outputs=names, save_path=tmp_path / "out", **options)["all"]
    plain = plain_answers(head, split, rule)
    (file,) = (tmp_path / "out").iterdir()
    saved = torch.load(file, weights_only=True)
    assert len(set(plain["steps"].tolist())) > 1
    for name in names:
        torch.testing.assert_close(saved[name], plain[name], check_dtype=False, rtol=1e-4, atol=1e-5)
    labelled = plain["labelled"]
    expected = {
        "accuracy": plain["accuracy"],
        "exact_accuracy": plain["exact"],
        "q_halt_accuracy": plain["q_halt_right"],
        "steps": plain["steps"],
    }
    for name, values in expected.items():
        assert result.metrics[name] == pytest.approx(float(values[labelled].double().mean()))
    # after each step: the answer then, or the last one
    labels = torch.cat([batch["labels"] for batch in batches_of(split, EXAMPLES)])
    frames = [answers_of(head, split, example) for example in range(EXAMPLES)]
    for step in range(STEPS):
        now = torch.stack([own[min(step, int(steps) - 1)] for own, steps in zip(frames, plain["steps"], strict=True)])
        score = Score(now, plain["q_halt_logits"], labels)
        assert result.exact_accuracy_after_step[step] == pytest.approx(float(score.exact[labelled].double().mean()))
        assert result.accuracy_after_step[step] == pytest.approx(float(score.accuracy[labelled].double().mean()))


@pytest.mark.parametrize("halting", [None, PUBLISHED, HaltRule()], ids=str)
@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_any_batch_size_gives_the_same(root: Path, size: int, halting: HaltRule | None):
    head, split = head_of(), PuzzleSplit([root], "test")
    expected = evaluate(head, split, halting=halting)["all"]
    assert agree(evaluate(head, split, halting=halting, global_batch_size=size)["all"], expected)


def test_without_labels_there_is_nothing_to_compare_answers_with(tmp_path: Path):
    root = write_random(tmp_path)
    path = root / "test" / "all__labels.npy"
    head = head_of()
    some = evaluate(head, PuzzleSplit([root], "test"))["all"]
    np.save(path, np.zeros_like(np.load(path)))
    none = evaluate(head, PuzzleSplit([root], "test"))["all"]
    assert (some.count, none.count, none.examples) == (20, 0, EXAMPLES)
    assert none.metrics == {}
    assert none.exact_accuracy_after_step == none.accuracy_after_step == []


def test_the_rules_judge_answers_to_puzzles_without_labels(tmp_path: Path):
    rng = np.random.default_rng(0)
    arrays = {
        "inputs": rng.integers(1, 6, (3, 16)),
        "labels": np.zeros((3, 16)),
        "puzzle_identifiers": np.zeros(3),
        "puzzle_indices": np.arange(4),
        "group_indices": np.arange(4),
    }
    sizes: dict[str, Any] = {"vocab_size": 6, "seq_len": 16}
    metadata = PuzzleDatasetMetadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        num_puzzle_identifiers=1,
        total_groups=3,
        mean_puzzle_examples=1,
        sets=["all"],
        task="sudoku",
        **sizes,
    )
    write_split(tmp_path / "test", arrays, metadata)
    write_identifiers(tmp_path, ["<blank>"])
    rules = [EvaluatorConfig(name="sudoku@Sudoku")]
    result = evaluate(head_of(**sizes), PuzzleSplit([tmp_path], "test"), evaluators=rules)["all"]
    assert set(result.task_metrics) == {"Sudoku/valid", "Sudoku/clues_kept", "Sudoku/solved"}
    assert (result.count, result.examples, result.metrics) == (0, 3, {})
    text = format_result("all", result)
    assert "all: 3 examples, no labels" in text
    assert "Sudoku/solved" in text
    assert "accuracy" not in text


def test_a_subset(root: Path, tmp_path: Path):
    head, split = head_of(), PuzzleSplit([root], "test")
    options: dict[str, Any] = {"save_outputs": ["example_index", "labels"]}
    results, indices = [], []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / f"out-{number}"
        results.append(evaluate(head, split, max_examples=9, seed=seed, save_path=folder, **options)["all"])
        saved = torch.load(next(folder.iterdir()), weights_only=True)
        indices.append(saved["example_index"].tolist())
        assert results[-1].examples == len(set(indices[-1])) == 9
        assert results[-1].count == int((saved["labels"] != -100).any(1).sum())
    assert indices[0] == indices[1] != indices[2]
    assert results[0] == results[1]
    assert evaluate(head, split, max_examples=99)["all"].examples == EXAMPLES


def test_without_puzzle_ids_every_example_has_the_blank_one(root: Path):
    head = head_of()
    known = evaluate(head, PuzzleSplit([root], "test"))
    blank = evaluate(head, PuzzleSplit([root], "test"), blank_ids=True)
    assert known != blank
    for file in (root / "test").glob("*__puzzle_identifiers.npy"):
        np.save(file, np.zeros_like(np.load(file)))
    assert evaluate(head, PuzzleSplit([root], "test", check_tokens=False)) == blank
    text = format_ids({"all": known["all"], f"all{BLANK}": blank["all"]}, rows=5)
    assert text.splitlines()[1].split()[-4:] == ["known", "id", "blank", "id"]
    shown = {line.split()[1]: line.split()[2:] for line in text.splitlines()[2:]}
    for name in ("accuracy", "exact_accuracy", "steps"):
        assert shown[name] == [f"{part['all'].metrics[name]:.4f}" for part in (known, blank)]
    assert "makes no difference" in format_ids({}, rows=1)


def test_a_log_shows_the_progress_of_a_long_evaluation(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    split = PuzzleSplit([root], "test")
    evaluate(head_of(), split)
    assert capsys.readouterr().err == ""  # it was short
    monkeypatch.setattr(evaluators.evaluation, "_PACE_IN_LOGS", 0.0)
    evaluate(head_of(), split)
    assert re.search(r"evaluate all: +\d+%.* [123]/3 \[", capsys.readouterr().err)


def test_the_mode_of_the_model_is_given_back(root: Path):
    for training in (True, False):
        head = head_of().train(training)
        evaluate(head, PuzzleSplit([root], "test"))
        solve_example(head, PuzzleSplit([root], "test").sources[0], CPU)
        assert head.training == training


def test_the_example_that_is_solved_last_is_shown(root: Path):
    head, split = head_of(), PuzzleSplit([root], "test")
    labels = EvalBatches(split.sources[0], split.sources[0].shards[0], EXAMPLES)[0]["labels"]
    shown = solve_example(head, split.sources[0], CPU, candidates=EXAMPLES)
    wrong_steps = {}
    for example, wanted in enumerate(torch.from_numpy(labels)):
        asked = wanted != -100
        right = [bool(asked.any() and (answer == wanted)[asked].all()) for answer in answers_of(head, split, example)]
        if right[-1]:
            wrong_steps[example] = right.count(False)
    latest = [example for example, steps in wrong_steps.items() if steps == max(wrong_steps.values())]
    assert any(torch.equal(shown["labels"], torch.from_numpy(labels[example])) for example in latest)
    assert torch.equal(shown["answers"], torch.stack(answers_of(head, split, latest[0])))
    shown = solve_example(head, split.sources[0], CPU, candidates=1)
    assert torch.equal(shown["labels"], torch.from_numpy(labels[0]))


@pytest.mark.parametrize("batch_size", [3, 16, 64])
def test_a_picture_takes_batches_of_a_size_that_an_evaluation_had(
    root: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
):
    head, split = head_of(), PuzzleSplit([root], "test")
    expected = solve_example(head, split.sources[0], CPU, candidates=20)
    sizes: list[int] = []
    advance = head.model.advance

    def spy(states: dict[str, Tensor], data: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        sizes.append(len(data["inputs"]))
        return advance(states, data)

    monkeypatch.setattr(head.model, "advance", spy)
    evaluate(head, split, global_batch_size=batch_size, fixed_sizes=True)
    before = set(sizes)
    sizes.clear()
    shown = solve_example(head, split.sources[0], CPU, candidates=20, slots=batch_size)
    assert set(sizes) <= before
    assert all(torch.allclose(shown[name].float(), values.float()) for name, values in expected.items())


# -- files and evaluators ----------------------------------------------------------------------------------------------


def test_outputs_are_saved_in_the_order_of_the_examples(root: Path, tmp_path: Path):
    head, split = head_of(), PuzzleSplit([root], "test")
    names = ["inputs", "labels", "puzzle_identifiers", "example_index", "preds", "logits", "steps"]
    evaluate(head, split, save_outputs=names, save_path=tmp_path / "a" / "b")
    (file,) = (tmp_path / "a" / "b").iterdir()
    assert file.name.endswith("preds.0")
    saved = torch.load(file, weights_only=True)
    assert list(saved) == names
    shard = split.sources[0].shards[0]
    assert np.array_equal(saved["inputs"], shard.inputs)
    assert np.array_equal(saved["labels"], np.where(shard.labels == 0, -100, shard.labels.astype(int)))
    identifiers = np.repeat(shard.puzzle_identifiers, np.diff(shard.puzzle_indices))
    assert np.array_equal(saved["puzzle_identifiers"], identifiers)
    assert saved["example_index"].tolist() == list(range(EXAMPLES))
    assert torch.equal(saved["preds"], saved["logits"].argmax(-1))
    assert set(saved["steps"].tolist()) == {STEPS}


def test_outputs_that_no_evaluation_has_are_refused():
    check_save_outputs(["preds", "logits", "labels"])
    with pytest.raises(UserError, match=r"eval_save_outputs: \['logit', 'x'\]: allowed are inputs, labels,"):
        check_save_outputs(["x", "preds", "logit"])


class Recorder:
    """Keeps all that an evaluator is given."""

    required_outputs: ClassVar[set[str]] = {"logits"}

    def __init__(self):
        self.begun, self.results, self.rows = 0, [], []

    def begin_eval(self) -> None:
        self.begun, self.rows = self.begun + 1, []

    def update_batch(self, batch: dict[str, Tensor], preds: dict[str, Tensor]) -> None:
        self.rows.append({**batch, **preds})

    def result(self, save_path: str | None, rank: int, world_size: int, group: Any = None) -> dict[str, float]:
        self.results.append((save_path, rank, world_size))
        return {"Recorder/rows": float(len(self["inputs"]))}

    def __getitem__(self, name: str) -> Tensor:
        return torch.cat([row[name] for row in self.rows])


def two_roots(tmp_path: Path) -> list[Path]:
    return [
        write_random(tmp_path / "one", seed=1, names=("a", "b")),
        write_random(tmp_path / "two", seed=2, names=("c", "d")),
    ]


@pytest.mark.parametrize("halting", [None, PUBLISHED], ids=str)
def test_evaluators_get_every_example_with_its_own_identifier(tmp_path: Path, halting: HaltRule | None):
    split = PuzzleSplit(two_roots(tmp_path), "test")
    recorders = {source.root: Recorder() for source in split.sources}
    made: dict[Path, list[Evaluator]] = {root: [recorder] for root, recorder in recorders.items()}
    results = evaluate(head_of(), split, made=made, save_path=tmp_path / "out", halting=halting)
    for source, table in zip(split.sources, ([0, 1, 2], [0, 3, 4]), strict=True):
        assert source.table_ids.tolist() == table
        recorder = recorders[source.root]
        (shard,) = source.shards
        identifiers = np.repeat(shard.puzzle_identifiers, np.diff(shard.puzzle_indices))
        assert recorder["puzzle_identifiers"].tolist() == identifiers.tolist()
        assert np.array_equal(recorder["inputs"], shard.inputs)
        assert torch.equal(recorder["preds"], recorder["logits"].argmax(-1))
        assert [len(row["inputs"]) for row in recorder.rows] == [8, 8, 7]
        assert recorder.begun == 1
        assert recorder.results[0][1:] == (0, 1)
        assert results[f"{source.root.name}/all"].task_metrics == {"Recorder/rows": EXAMPLES}


def test_evaluators_begin_anew_each_time(root: Path):
    split, recorder = PuzzleSplit([root], "test"), Recorder()
    for _ in range(2):
        result = evaluate(head_of(), split, made={root: [recorder]})["all"]
        assert result.task_metrics == {"Recorder/rows": EXAMPLES}
    assert recorder.begun == 2
    assert recorder.results == [(None, 0, 1)] * 2


def test_evaluators_are_made_from_the_configuration(root: Path):
    metadata = PuzzleSplit([root], "test").sources[0].metadata.model_copy(update={"seq_len": 16, "vocab_size": 6})
    made = make_evaluators([EvaluatorConfig(name="maze@Maze", height=2)], root, metadata)  # pyright: ignore[reportCallIssue]
    assert [(e.task.title, e.task.height, e.task.width) for e in made] == [("Maze", 2, 8)]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match="evaluators: maze@Maze: .*heigth"):
        make_evaluators([EvaluatorConfig(name="maze@Maze", heigth=2)], root, metadata)  # pyright: ignore[reportCallIssue]
    with pytest.raises(UserError, match="Did you mean 'Maze'"):
        make_evaluators([EvaluatorConfig(name="maze@Mazes")], root, metadata)


def test_several_data_sets_are_evaluated_like_each_alone(tmp_path: Path):
    roots, head = two_roots(tmp_path), head_of()
    split = PuzzleSplit(roots, "test")
    results = evaluate(head, split)
    assert set(results) == {"one/all", "two/all"}
    for root in roots:
        alone = evaluate(head, PuzzleSplit([root], "test", like=split))["all"]
        assert agree(results[f"{root.name}/all"], alone)
    assert not agree(*results.values())


def test_several_sets_of_a_data_set(tmp_path: Path):
    split = PuzzleSplit([write_random(tmp_path, sets=2)], "test")
    results = evaluate(head_of(), split, save_outputs=["inputs"], save_path=tmp_path / "out")
    assert set(results) == {"all", "more"}
    assert not agree(*results.values())
    assert saved_inputs(tmp_path / "out") == {shard.inputs.tobytes() for shard in split.sources[0].shards}


def saved_inputs(folder: Path) -> set[bytes]:
    """The inputs in every file of saved outputs."""
    files = [torch.load(path, weights_only=True)["inputs"] for path in folder.rglob("*preds.0")]
    return {inputs.to(torch.uint8).numpy().tobytes() for inputs in files}


def test_outputs_of_several_data_sets_are_kept_apart(tmp_path: Path):
    split = PuzzleSplit(two_roots(tmp_path), "test")
    evaluate(head_of(), split, save_outputs=["inputs"], save_path=tmp_path / "out")
    assert saved_inputs(tmp_path / "out") == {source.shards[0].inputs.tobytes() for source in split.sources}


def test_data_sets_in_folders_of_the_same_name_are_kept_apart(tmp_path: Path):
    roots = [write_random(tmp_path / str(seed) / "data", seed=seed, names=("a", "b")) for seed in (1, 2)]
    split = PuzzleSplit(roots, "test")
    results = evaluate(head_of(), split, save_outputs=["inputs"], save_path=tmp_path / "out")
    assert len(results) == 2
    assert saved_inputs(tmp_path / "out") == {source.shards[0].inputs.tobytes() for source in split.sources}


def test_a_data_set_named_by_dots_writes_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for seed, name in ((1, "data"), (2, "data/inner")):
        write_random(tmp_path / name, seed=seed, names=("a", "b"))
    (tmp_path / "data" / "inner" / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "data" / "inner")
    split = PuzzleSplit([Path(".."), Path("deeper/..")], "test")
    results = evaluate(head_of(), split, save_outputs=["inputs"], save_path=tmp_path / "results" / "out")
    assert set(results) == {"data/all", "inner/all"}
    assert {path.name for path in (tmp_path / "results" / "out").iterdir()} == {"data", "inner"}
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"out"}
