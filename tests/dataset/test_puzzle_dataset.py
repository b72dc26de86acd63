"""Training and evaluation batches against plain walks through the epochs, for any number of ranks."""

import itertools
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.puzzle_dataset import Batch, EvalBatches, PuzzleSplit, TrainBatches
from dataset.tasks import load_task
from tests.dataset.small import Groups, numbers, small_arrays, write_small
from tests.runs import write_sudoku
from utils.constants import IGNORE_LABEL_ID
from utils.errors import UserError

EQUAL = [[2, 2, 2], [3], [1, 1]]  # an epoch's length is known without drawing it
UNEQUAL = [[5, 1], [2], [1, 3, 2], [4]]  # it is not


def split_of(root: Path, groups: Groups, **changes: Any) -> PuzzleSplit:
    return PuzzleSplit([write_small(root, groups, **changes)], "train")


def puzzles_of(groups: Groups) -> list[tuple[int, list[int]]]:
    """(group, examples) of each puzzle."""
    found, first = [], 0
    for group, sizes in enumerate(groups):
        for size in sizes:
            found.append((group, list(range(first, first + size))))
            first += size
    return found


def plain_epochs(groups: Groups, seed: int) -> Iterator[list[int]]:
    """The examples of each epoch: the draws of the loader, put together with lists and loops."""
    puzzles = puzzles_of(groups)
    members = [[examples for g, examples in puzzles if g == group] for group in range(len(groups))]
    for epoch in itertools.count():
        rng = np.random.default_rng((seed, 1, epoch))
        chosen = rng.integers(0, [len(group) for group in members])
        order = rng.permutation(len(groups))
        visited = [members[group][chosen[group]] for group in order]
        if max(map(len, visited)) == 1:
            yield [examples[0] for examples in visited]
            continue
        keys = iter(rng.random(sum(map(len, visited))))
        yield [example for examples in visited for _, example in sorted((next(keys), e) for e in examples)]


def first_steps(batches: TrainBatches, steps: int) -> list[Batch]:
    return [batches[step] for step in range(1, steps + 1)]


def same(one: Batch, other: Batch) -> bool:
    return set(one) == set(other) and all(
        np.array_equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one
    )


def joined(batches: list[Batch]) -> Batch:
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


@pytest.mark.parametrize("groups", [EQUAL, UNEQUAL, [[1]] * 5], ids=["equal", "unequal", "single"])
@pytest.mark.parametrize("batch_size", [1, 4, 25])
def test_batches_are_the_epochs_one_after_another(tmp_path: Path, groups: Groups, batch_size: int):
    batches = TrainBatches(split_of(tmp_path, groups), batch_size, seed=3)
    plain = itertools.chain.from_iterable(plain_epochs(groups, seed=3))
    for batch in first_steps(batches, 120 // batch_size):
        assert numbers(batch["inputs"]) == list(itertools.islice(plain, batch_size))


@pytest.mark.parametrize("groups", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_an_epoch_visits_every_group_once_and_takes_whole_puzzles(tmp_path: Path, groups: Groups):
    stream = numbers(joined(first_steps(TrainBatches(split_of(tmp_path, groups), 4, seed=0), 100))["inputs"])
    puzzles = puzzles_of(groups)
    orders, shuffled, groups_left = set(), 0, set(range(len(groups)))
    while len(stream) > 5:
        group, examples = next((g, examples) for g, examples in puzzles if stream[0] in examples)
        visit, stream = stream[: len(examples)], stream[len(examples) :]
        assert sorted(visit) == examples
        shuffled += visit != examples
        assert group in groups_left
        groups_left = groups_left - {group} or set(range(len(groups)))
        orders.add((len(groups_left), group))
    assert shuffled
    assert len(orders) > len(groups)  # groups come at changing places


@pytest.mark.parametrize("groups", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_a_step_can_be_asked_for_at_any_time(tmp_path: Path, groups: Groups):
    split = split_of(tmp_path, groups)
    in_order = first_steps(TrainBatches(split, 4, seed=1), 30)
    at_random = TrainBatches(split, 4, seed=1)
    for step in np.random.default_rng(0).permutation(np.arange(1, 31)):
        assert same(at_random[int(step)], in_order[step - 1])
    assert same(TrainBatches(split, 4, seed=1)[30], in_order[29])


@pytest.mark.parametrize("groups", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_ranks_together_have_the_batch_of_one_process(tmp_path: Path, groups: Groups, ranks: int):
    split = split_of(tmp_path, groups)
    whole = TrainBatches(split, 6, seed=1)
    parts = [TrainBatches(split, 6, seed=1, rank=rank, world_size=ranks) for rank in range(ranks)]
    for step in range(1, 10):
        assert same(joined([part[step] for part in parts]), whole[step])


def test_seeds_differ(tmp_path: Path):
    split = split_of(tmp_path, UNEQUAL)
    streams = {str(joined(first_steps(TrainBatches(split, 8, seed), 4))["inputs"]) for seed in range(20)}
    assert len(streams) == 20


def test_batches_can_be_sent_to_another_process(tmp_path: Path):
    batches = TrainBatches(split_of(tmp_path, UNEQUAL), 4, seed=1)
    expected = batches[7]
    assert same(pickle.loads(pickle.dumps(batches))[7], expected)


def test_every_puzzle_of_a_group_is_equally_likely(tmp_path: Path):
    batches = TrainBatches(split_of(tmp_path, [[1] * 8, [1]]), 2, seed=0)
    counts = Counter(number for step in range(1, 801) for number in numbers(batches[step]["inputs"]))
    assert counts.pop(8) == 800
    chi_square = sum((counts[number] - 100) ** 2 / 100 for number in range(8))
    assert chi_square < 24.3  # 7 degrees of freedom, p = 0.001


def test_every_order_of_the_groups_is_equally_likely(tmp_path: Path):
    batches = TrainBatches(split_of(tmp_path, [[1]] * 4), 4, seed=0)
    counts = Counter(tuple(numbers(batches[step]["inputs"])) for step in range(1, 1201))
    assert len(counts) == 24
    assert sum((count - 50) ** 2 / 50 for count in counts.values()) < 49.7  # 23 degrees of freedom, p = 0.001


def test_contents_of_a_batch(tmp_path: Path):
    batch = joined(first_steps(TrainBatches(split_of(tmp_path, UNEQUAL), 6, seed=0), 20))
    identifiers = {e: 1 + p for p, (_, examples) in enumerate(puzzles_of(UNEQUAL)) for e in examples}
    examples = numbers(batch["inputs"])
    assert batch["puzzle_identifiers"].tolist() == [identifiers[example] for example in examples]
    labels = small_arrays(UNEQUAL)["labels"][examples]
    assert np.array_equal(batch["labels"], np.where(labels == 0, IGNORE_LABEL_ID, labels))
    assert {values.dtype for values in batch.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize(("ignored", "asked"), [(0, 1), (None, 0), (3, 0)])
def test_the_ignored_label(tmp_path: Path, ignored: int | None, asked: int):
    source = split_of(tmp_path, [[9]], ignore_label_id=ignored).sources[0]
    labels = next(iter(EvalBatches(source, source.shards[0], 9)))["labels"]
    expected = [[IGNORE_LABEL_ID if value == ignored else value for value in (n, 0, 0, 0)] for n in range(9)]
    assert labels.tolist() == expected
    assert labels[labels != IGNORE_LABEL_ID].min() == asked


def test_a_group_or_puzzle_without_examples_is_refused(tmp_path: Path):
    for name, groups in {"nothing": [], "no-puzzles": [[1], []], "no-examples": [[1], [0, 2]]}.items():
        with pytest.raises(UserError, match=f"{name}.*split 'train' has no groups, or a group or puzzle"):
            TrainBatches(split_of(tmp_path / name, groups), 1, seed=0)


# -- augmentation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 4])
def test_augmentation_does_not_depend_on_the_number_of_ranks(tmp_path: Path, ranks: int):
    split = PuzzleSplit([write_sudoku(tmp_path, 6, 2)], "train")
    augmentation = load_task("sudoku").of(split.metadata.seq_len, split.metadata.vocab_size).augmentation()
    plain = TrainBatches(split, 8, seed=5)
    whole = TrainBatches(split, 8, seed=5, augmentation=augmentation)
    parts = [TrainBatches(split, 8, 5, rank, ranks, augmentation) for rank in range(ranks)]
    changed = 0
    for step in range(1, 6):
        batch = whole[step]
        assert same(joined([part[step] for part in parts]), batch)
        clues = batch["inputs"] > 1
        assert np.array_equal(batch["inputs"][clues], batch["labels"][clues])
        assert np.array_equal(batch["puzzle_identifiers"], plain[step]["puzzle_identifiers"])
        changed += (batch["labels"] != plain[step]["labels"]).any(axis=1).sum()
    assert changed > 30  # of 40; the symmetries are many


def test_each_visit_is_augmented_anew(tmp_path: Path):
    split = PuzzleSplit([write_sudoku(tmp_path, 1, 1, copies=1)], "train")
    augmentation = load_task("sudoku").of(split.metadata.seq_len, split.metadata.vocab_size).augmentation()
    batches = TrainBatches(split, 4, seed=0, augmentation=augmentation)
    boards = {row.tobytes() for step in range(1, 11) for row in batches[step]["inputs"]}
    assert len(boards) > 30


# -- several data sets -------------------------------------------------------------------------------------------------


def test_several_data_sets_share_a_table_and_its_blank_row(tmp_path: Path):
    one = write_small(tmp_path / "one", [[1], [2]])
    other = write_small(tmp_path / "other", UNEQUAL)
    split = PuzzleSplit([one, other], "train")
    assert split.num_puzzle_identifiers == 1 + 2 + 7
    assert [source.table_ids.tolist() for source in split.sources] == [[0, 1, 2], [0, *range(3, 10)]]
    assert split.examples_per_epoch == pytest.approx(2 * 1.5 + 4 * 18 / 7)
    # together they are one data set with the groups of both
    plain = itertools.chain.from_iterable(plain_epochs([[1], [2], *UNEQUAL], seed=0))
    identifiers = {e: 1 + p for p, (_, found) in enumerate(puzzles_of([[1], [2], *UNEQUAL])) for e in found}
    for batch in first_steps(TrainBatches(split, 6, seed=0), 20):
        examples = list(itertools.islice(plain, 6))
        assert numbers(batch["inputs"]) == [example - 3 * (example >= 3) for example in examples]
        assert batch["puzzle_identifiers"].tolist() == [identifiers[example] for example in examples]


def test_a_single_data_set_keeps_its_numbering(tmp_path: Path):
    split = split_of(tmp_path, UNEQUAL)
    assert split.sources[0].table_ids.tolist() == list(range(8))


@pytest.mark.parametrize("changes", [{"vocab_size": 11}, {"seq_len": 4, "vocab_size": 12}])
def test_data_sets_that_disagree_are_refused(tmp_path: Path, changes: dict):
    roots = [write_small(tmp_path / "one", EQUAL), write_small(tmp_path / "other", EQUAL, **changes)]
    with pytest.raises(UserError, match=f"other has vocab_size {changes['vocab_size']}.*one has 10.*must agree"):
        PuzzleSplit(roots, "train")
    with pytest.raises(UserError, match="other has vocab_size"):
        PuzzleSplit(roots[1:], "train", like=PuzzleSplit(roots[:1], "train"))


def test_no_data_set_at_all_is_refused():
    with pytest.raises(UserError, match="data_paths is empty"):
        PuzzleSplit([], "train")


def test_a_folder_given_twice_is_refused(tmp_path: Path):
    root = write_small(tmp_path / "one", EQUAL)
    with pytest.raises(UserError, match="names one folder more than once"):
        PuzzleSplit([root, tmp_path / "other" / ".." / "one"], "train")


def test_the_other_split_of_the_same_folder_has_the_same_ids(tmp_path: Path):
    roots = [write_small(tmp_path / name, EQUAL) for name in ("one", "other")]
    for root in roots:
        write_small(root, [[1, 1]], split="test", num_puzzle_identifiers=7)
    train = PuzzleSplit(roots, "train")
    test = PuzzleSplit([tmp_path / "one" / ".." / "other"], "test", like=train)
    assert test.sources[0].table_ids.tolist() == [0, *range(7, 13)]
    assert test.num_puzzle_identifiers == train.num_puzzle_identifiers == 13


def test_splits_that_disagree_on_their_identifiers_are_refused(tmp_path: Path):
    root = write_small(tmp_path, EQUAL)
    write_small(root, [[1]], split="test")
    with pytest.raises(UserError, match="two splits disagree on num_puzzle_identifiers, 7 and 2"):
        PuzzleSplit([root], "test", like=PuzzleSplit([root], "train"))


def test_another_folder_finds_its_ids_by_name(tmp_path: Path):
    one = write_small(tmp_path / "one", [[1], [1]], names=["a", "b"])
    other = write_small(tmp_path / "other", [[1], [1], [1]], names=["c", "a", "d"])
    held_out = write_small(tmp_path / "held-out", [[1], [1], [1]], split="test", names=["d", "b", "a"])
    split = PuzzleSplit([held_out], "test", like=PuzzleSplit([one, other], "train"))
    (source,) = split.sources
    assert source.table_ids.tolist() == [0, 5, 2, 1]  # a, b: 1, 2; c, a, d: 3, 4, 5; the first a is taken
    batch = EvalBatches(source, source.shards[0], 3)[0]
    assert batch["puzzle_identifiers"].tolist() == [5, 2, 1]
    assert batch["own_identifiers"].tolist() == [1, 2, 3]


def test_unknown_names_are_refused(tmp_path: Path):
    train = PuzzleSplit([write_small(tmp_path / "one", EQUAL)], "train")
    held_out = write_small(tmp_path / "held-out", [[1], [1]], split="test", names=["p1", "new"])
    with pytest.raises(UserError, match=r"held-out: 1 of its 3 puzzles, such as \['new'\], are not among those of"):
        PuzzleSplit([held_out], "test", like=train)
    (held_out / "identifiers.json").unlink()  # without names every puzzle counts as blank
    assert PuzzleSplit([held_out], "test", like=train).sources[0].table_ids.tolist() == [0, 0, 0]


def test_a_list_of_names_of_another_length_is_refused(tmp_path: Path):
    train = PuzzleSplit([write_small(tmp_path / "one", EQUAL)], "train")
    held_out = write_small(tmp_path / "held-out", [[1], [1]], split="test", names=["p1"])
    with pytest.raises(UserError, match="held-out"):
        PuzzleSplit([held_out], "test", like=train)


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 13, 30])
def test_evaluation_covers_every_example_once_in_order(tmp_path: Path, batch_size: int, ranks: int):
    groups = [[5, 3], [4], [1]]  # 13 examples
    source = split_of(tmp_path, groups).sources[0]
    parts = [EvalBatches(source, source.shards[0], batch_size, rank, ranks) for rank in range(ranks)]
    assert {len(part) for part in parts} == {-(-13 // batch_size)}
    found = joined([batch for batches in zip(*parts, strict=True) for batch in batches])
    identifiers = [1 + p for p, (_, examples) in enumerate(puzzles_of(groups)) for _ in examples]
    assert numbers(found["inputs"]) == found["example_index"].tolist() == list(range(13))
    assert found["own_identifiers"].tolist() == found["puzzle_identifiers"].tolist() == identifiers
    for part in parts:
        assert all(len(batch["inputs"]) <= -(-batch_size // ranks) for batch in part)
        with pytest.raises(IndexError):
            part[len(part)]


def test_a_subset_is_the_same_for_the_same_seed(tmp_path: Path):
    source = split_of(tmp_path, [[40]]).sources[0]

    def subset(size: int, seed: int, ranks: int = 1) -> list[int]:
        parts = [EvalBatches(source, source.shards[0], 4, rank, ranks, size, seed) for rank in range(ranks)]
        return [index for part in parts for batch in part for index in batch["example_index"].tolist()]

    one = subset(10, seed=1)
    assert len(set(one)) == 10
    assert one == sorted(one) == subset(10, seed=1) == sorted(subset(10, seed=1, ranks=3))
    assert one != subset(10, seed=2)
    assert subset(40, seed=1) == subset(99, seed=1) == list(range(40))
    drawn = Counter(index for seed in range(200) for index in subset(10, seed))
    assert sum((drawn[index] - 50) ** 2 / 50 for index in range(40)) < 72.1  # at most 39 degrees of freedom, p = 0.001
