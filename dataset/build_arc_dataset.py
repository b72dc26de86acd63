"""Build the ARC data sets, with every task augmented by symmetries of the square and permutations of the colours.

    python -m dataset.build_arc_dataset --input-file-prefix kaggle/combined/arc-agi \
        --output-dir data/arc1concept-aug-1000 --subsets training evaluation concept --test-set-name evaluation

The files equal the published builder's byte for byte, so puzzle ids match published checkpoints. That fixes the order
of all random draws (numpy's legacy stream) and that nothing is merged between subsets: a task that is in two of them
makes two groups, whose puzzles share an id where they share a name.

A puzzle is kept as (transform, colours) until it is written; no more than one task's grids exist at a time.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

if __package__ in (None, ""):  # run by path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from dataset.arc import (
    FIRST_COLOUR,
    MAX_SIDE,
    NUM_COLOURS,
    PAD,
    SEQ_LEN,
    VOCAB_SIZE,
    Stamp,
    puzzle_name,
)
from dataset.arc_tasks import PARTS, Pair, Task, read_subset
from dataset.dihedral import dihedral_transform, inverse_dihedral_transform
from dataset.legacy_random import LegacyRandom
from dataset.shards import BLANK_IDENTIFIER, PuzzleDatasetMetadata, build_folder, write_identifiers, write_metadata
from utils.errors import UserError, did_you_mean, exit_on_user_error

TRIALS_PER_AUGMENTATION = 5
TRANSFORMS = 8

# One random number per cell of an input (row 0) and an output (row 1): see `Fingerprints`. Any seed would do.
_CELL_NUMBERS = np.random.default_rng(0).integers(0, 1 << 64, size=(2, MAX_SIDE, MAX_SIDE), dtype=np.uint64)


class Config(BaseModel):
    """Build an ARC data set from Kaggle's combined files or from folders with one JSON file per task."""

    model_config = ConfigDict(extra="forbid")

    input_file_prefix: str
    """Reads {prefix}_{subset}_challenges.json and, if there, {prefix}_{subset}_solutions.json;
    or {prefix}/{subset}/*.json, the layout of the official ARC-AGI repositories."""
    output_dir: Path
    """Folder of the data set."""
    subsets: list[str]
    """Subsets to read, in this order: it decides the puzzle ids."""
    test_set_name: str
    """The subset whose test pairs form the test split. Everything else is trained on."""
    test_set_name2: str | None = None
    """A second such subset."""
    seed: int = 42
    """Seed of every random draw; published data sets use 42."""
    num_aug: int = 1000
    """Augmented copies of each task; fewer where five times as many trials find no more distinct ones."""
    puzzle_identifiers_start: int = 1
    """First puzzle id; those below are blank."""
    overwrite: bool = False
    """Replace the output folder if it exists."""


@dataclass(frozen=True)
class Group:
    """A task's pairs that go to one split, and its distinct augmentations: the first is the identity."""

    name: str
    pairs: list[Pair]
    transforms: np.ndarray  # uint8 [puzzles]
    colours: np.ndarray  # uint8 [puzzles, 10]

    def puzzle_names(self) -> Iterator[str]:
        """The bare id, then one name per augmentation."""
        yield self.name
        digits = (self.colours + ord("0")).tobytes().decode()
        for puzzle, transform in enumerate(self.transforms[1:].tolist(), start=1):
            yield puzzle_name(self.name, transform, digits[puzzle * NUM_COLOURS : (puzzle + 1) * NUM_COLOURS])


class Fingerprints:
    """Fingerprints of a task under augmentations, equal where the multisets of (input, output) grids are equal.

    No grid is transformed. The number of a pair is the sum over its cells of (colour + 1) * (random number of the place
    to which the cell moves), modulo 2**64; so the cells of one colour add up once per symmetry, and a permutation of
    colours is a product with those sums. Two different pairs meet with probability 2**-61 (all tests of a 1000-fold
    build together: under one in 10**7). Mixing each pair's number before adding keeps the pairs apart.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        colours = np.arange(NUM_COLOURS)[:, None]
        self._sums = np.zeros((TRANSFORMS, NUM_COLOURS, len(pairs)), dtype=np.uint64)
        for index, pair in enumerate(pairs):
            for numbers, grid in zip(_CELL_NUMBERS, (pair.input, pair.output), strict=True):
                if grid is None:
                    continue
                moved = [
                    inverse_dihedral_transform(_corner(numbers, dihedral_transform(grid, transform)), transform)
                    for transform in range(TRANSFORMS)
                ]
                has_colour = (grid.reshape(-1) == colours).astype(np.uint64)  # [10, cells]
                self._sums[:, :, index] += (has_colour @ np.stack(moved, axis=-1).reshape(grid.size, TRANSFORMS)).T

    def __call__(self, transforms: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """uint64 [n] for `transforms` [n] and `colours` [n, 10]."""
        found = np.empty(len(transforms), dtype=np.uint64)
        values = colours.astype(np.uint64) + np.uint64(1)
        for transform in range(TRANSFORMS):
            chosen = transforms == transform
            found[chosen] = _mix(values[chosen] @ self._sums[transform]).sum(axis=1, dtype=np.uint64)
        return found


def _corner(numbers: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return numbers[: grid.shape[0], : grid.shape[1]]


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: a bijection of uint64 under which sums no longer add up."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw_augmentations(rng: LegacyRandom, pairs: Sequence[Pair], num_aug: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw until `num_aug` augmentations differ from each other and from the identity, in 5 * num_aug trials at most.

    Returns:
        transforms uint8 [puzzles] and colours uint8 [puzzles, 10], the identity first.
    """
    transforms = [np.zeros(1, dtype=np.uint8)]
    colours = [np.arange(NUM_COLOURS, dtype=np.uint8)[None]]
    fingerprints = Fingerprints(pairs)
    seen = set(fingerprints(transforms[0], colours[0]).tolist())
    trials = TRIALS_PER_AUGMENTATION * num_aug
    while trials and len(seen) <= num_aug:
        # As many trials as are surely needed: one at a time would draw them all, too.
        count = min(trials, num_aug + 1 - len(seen))
        trials -= count
        drawn_transforms = np.empty(count, dtype=np.uint8)
        drawn_colours = np.tile(colours[0], (count, 1))
        for trial, movable in enumerate(drawn_colours[:, 1:]):  # colour 0 stays
            drawn_transforms[trial] = rng.below(TRANSFORMS)
            rng.shuffle(movable)
        new = []
        for trial, fingerprint in enumerate(fingerprints(drawn_transforms, drawn_colours).tolist()):
            if fingerprint not in seen:
                seen.add(fingerprint)
                new.append(trial)
        transforms.append(drawn_transforms[new])
        colours.append(drawn_colours[new])
    return np.concatenate(transforms), np.concatenate(colours)


class Placeable(NamedTuple):
    """A pair of grids under one symmetry; rows and columns count the places where both fit."""

    input: Stamp
    output: Stamp
    rows: int
    columns: int


def _placeable(pair: Pair, transform: int) -> Placeable:
    unknown = np.zeros((0, 0), dtype=np.uint8)  # its field is empty: all labels are ignored
    grids = [dihedral_transform(unknown if grid is None else grid, transform) for grid in (pair.input, pair.output)]
    height, width = np.max([grid.shape for grid in grids], axis=0).tolist()
    return Placeable(Stamp(grids[0]), Stamp(grids[1]), MAX_SIDE + 1 - height, MAX_SIDE + 1 - width)


def render(group: Group, rng: LegacyRandom | None) -> Iterator[tuple[bytes, bytes]]:
    """Inputs and labels of each puzzle of a group, 900 bytes per example.

    Args:
        rng: where given, all examples of a puzzle but one, drawn from it, are moved to a place drawn from it.
    """
    placeable = {t: [_placeable(pair, t) for pair in group.pairs] for t in np.unique(group.transforms).tolist()}
    recolour = np.tile(np.arange(256, dtype=np.uint8), (len(group.colours), 1))  # token -> token, per puzzle
    recolour[:, FIRST_COLOUR : FIRST_COLOUR + NUM_COLOURS] = group.colours + FIRST_COLOUR
    for transform, table in zip(group.transforms.tolist(), recolour, strict=True):
        still = None if rng is None else rng.below(len(group.pairs))
        inputs, labels = [], []
        for example, (grid, answer, rows, columns) in enumerate(placeable[transform]):
            row = column = 0
            if rng is not None and example != still:
                row = rng.below(rows)
                column = rng.below(columns)
            inputs.append(grid.at(row, column))
            labels.append(answer.at(row, column))
        tokens = table.tobytes()
        yield b"".join(inputs).translate(tokens), b"".join(labels).translate(tokens)


def build(config: Config) -> None:
    """Write the data set of `config`.

    Raises:
        UserError: an option or the input is wrong; nothing is written.
    """
    _check(config)
    with build_folder(config.output_dir, config.overwrite) as folder:
        subsets = {subset: read_subset(config.input_file_prefix, subset) for subset in config.subsets}
        test_sets = [name for name in (config.test_set_name, config.test_set_name2) if name is not None]
        _check_test_sets(subsets, test_sets)
        _say_what_lacks_solutions(subsets, test_sets)
        _warn_of_leaks(subsets, test_sets)

        rng = LegacyRandom(config.seed)
        splits, test_tasks = _augment(subsets, test_sets, rng, config.num_aug)
        identifiers: dict[str, int] = {}  # name -> id
        ids = {
            split: [
                identifiers.setdefault(name, config.puzzle_identifiers_start + len(identifiers))
                for group in groups
                for name in group.puzzle_names()
            ]
            for split, groups in splits.items()
        }
        names = [BLANK_IDENTIFIER] * config.puzzle_identifiers_start + list(identifiers)
        for split, groups in splits.items():
            # Only train is moved about. The published builder draws for test as well, but nothing depends on it.
            _write_split(folder / split, groups, ids[split], len(names), rng if split == "train" else None)
        write_identifiers(folder, names)
        with (folder / "test_puzzles.json").open("w") as file:
            json.dump({name: task.to_json() for name, task in test_tasks.items()}, file)
    print(f"{config.output_dir}: {len(names)} puzzle ids, {len(test_tasks)} test tasks")


def _augment(
    subsets: dict[str, list[Task]], test_sets: list[str], rng: LegacyRandom, num_aug: int
) -> tuple[dict[str, list[Group]], dict[str, Task]]:
    """The groups of each split, and the test tasks by name."""
    splits: dict[str, list[Group]] = {"train": [], "test": []}
    test_tasks: dict[str, Task] = {}
    short: list[str] = []
    with tqdm(total=sum(map(len, subsets.values())), desc="augment", unit="task", disable=None) as progress:
        for subset, tasks in subsets.items():
            tasks = tasks.copy()
            rng.shuffle(tasks)
            for task in tasks:
                if subset in test_sets:
                    test_tasks[task.name] = task
                    halves = task.parts
                else:  # an example without an output teaches nothing
                    pairs = [pair for pairs in task.parts.values() for pair in pairs if pair.output is not None]
                    halves = {"train": pairs}
                transforms, colours = draw_augmentations(
                    rng, [pair for pairs in halves.values() for pair in pairs], num_aug
                )
                if len(transforms) <= num_aug:
                    short.append(task.name)
                for split, pairs in halves.items():
                    splits[split].append(Group(task.name, pairs, transforms, colours))
                progress.update()
    if short:
        _notice(f"{len(short)} tasks have fewer than {num_aug} distinct augmentations: {_listed(short)}")
    return splits, test_tasks


def _write_split(
    folder: Path,
    groups: list[Group],
    ids: list[int],
    num_identifiers: int,
    rng: LegacyRandom | None,
) -> None:
    """Write one split, tokens group by group; `ids` has one per puzzle, and `render` says what `rng` is for."""
    folder.mkdir()
    examples = sum(len(group.pairs) * len(group.transforms) for group in groups)
    with ExitStack() as stack:
        inputs, labels = (
            stack.enter_context((folder / f"all__{name}.npy").open("wb")) for name in ("inputs", "labels")
        )
        for file in (inputs, labels):
            _write_header(file, examples)
        # The disk works on one group while the next is drawn: a third of the time goes there.
        writer = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        pending: list[Future[int]] = []
        for group in tqdm(groups, desc=f"write {folder.name}", unit="task", disable=None):
            parts = zip(*render(group, rng), strict=True)
            tokens = [b"".join(part) for part in parts]
            for future in pending:
                future.result()
            pending = [writer.submit(file.write, part) for file, part in zip((inputs, labels), tokens, strict=True)]
        for future in pending:
            future.result()
    examples_of = [len(group.pairs) for group in groups for _ in range(len(group.transforms))]
    np.save(folder / "all__puzzle_identifiers.npy", np.array(ids, dtype=np.int32))
    np.save(folder / "all__puzzle_indices.npy", _offsets(examples_of))
    np.save(folder / "all__group_indices.npy", _offsets(len(group.transforms) for group in groups))
    write_metadata(
        folder,
        PuzzleDatasetMetadata(
            pad_id=PAD,
            ignore_label_id=PAD,
            blank_identifier_id=0,
            vocab_size=VOCAB_SIZE,
            seq_len=SEQ_LEN,
            num_puzzle_identifiers=num_identifiers,
            total_groups=len(groups),
            mean_puzzle_examples=examples / len(ids),
            total_puzzles=len(ids),
            sets=["all"],
        ),
    )


def _write_header(file: BinaryIO, examples: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (examples, SEQ_LEN)}
    np.lib.format.write_array_header_1_0(file, header)


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int32)


def _check(config: Config) -> None:
    for option, least in (("num_aug", 0), ("puzzle_identifiers_start", 1), ("seed", 0)):
        value = getattr(config, option)
        if value < least:
            raise UserError(f"--{option.replace('_', '-')} {value}: must be at least {least}.")
    if config.seed >= 1 << 32:
        raise UserError(f"--seed {config.seed}: must be below 2**32.")
    twice = sorted({name for name in config.subsets if config.subsets.count(name) > 1})
    if twice or not config.subsets:
        what = f"{', '.join(twice)} more than once" if twice else "none"
        raise UserError(f"--subsets: {what}. Name each subset to read, once.")
    for option, name in (("--test-set-name", config.test_set_name), ("--test-set-name2", config.test_set_name2)):
        if name is not None and name not in config.subsets:
            raise UserError(
                f"{option} {name!r} is none of --subsets {' '.join(config.subsets)}."
                f"{did_you_mean(name, config.subsets)} Add it to --subsets, or name one of them."
            )


def _check_test_sets(subsets: dict[str, list[Task]], test_sets: list[str]) -> None:
    """A test task needs something to predict, and its own name: votes and submissions go by name."""
    seen: dict[str, str] = {}
    for subset in dict.fromkeys(test_sets):
        for task in subsets[subset]:
            if not task.parts["test"]:
                raise UserError(f"subset {subset!r}, task {task.name!r}: no test pairs. A test set needs them.")
            if task.name in seen:
                raise UserError(
                    f"task {task.name!r} is in both test sets, {seen[task.name]!r} and {subset!r}: "
                    "they cannot be told apart. Build two data sets, or rename the task in one of them."
                )
            seen[task.name] = subset


def _say_what_lacks_solutions(subsets: dict[str, list[Task]], test_sets: list[str]) -> None:
    for subset, tasks in subsets.items():
        unsolved = sum(any(pair.output is None for pair in task.parts["test"]) for task in tasks)
        if unsolved:
            effect = "are predicted but not scored" if subset in test_sets else "are left out"
            _notice(f"subset {subset!r}: {unsolved} of {len(tasks)} tasks lack solutions; those test inputs {effect}")


def _warn_of_leaks(subsets: dict[str, list[Task]], test_sets: list[str]) -> None:
    for subset, names in find_leaks(subsets, test_sets).items():
        _notice(
            f"WARNING: subset {subset!r} gives away {len(names)} of the test tasks: training sees tasks of the same id "
            "or their test inputs with the answers, so scores on them show memory. (ARC-AGI-2's training set contains "
            f"ARC-AGI-1 evaluation tasks: do not train on it to test on those.) Tasks: {', '.join(names)}"
        )


def find_leaks(subsets: dict[str, list[Task]], test_sets: Sequence[str]) -> dict[str, list[str]]:
    """Test tasks that the train split gives away: subset that does -> names of test tasks, sorted.

    A test task is given away by another task of its id, or by a pair of another task that is trained on and equals
    one of its test pairs (its test input alone, where the answer is not known).
    """
    tested: dict[bytes, list[tuple[Task, Pair]]] = {}
    by_name = {task.name: task for name in test_sets for task in subsets[name]}
    for task in by_name.values():
        for pair in task.parts["test"]:
            tested.setdefault(_content(pair.input), []).append((task, pair))
    leaks: dict[str, set[str]] = {}
    for subset, tasks in subsets.items():
        for task in tasks:
            found = leaks.setdefault(subset, set())
            if subset not in test_sets and task.name in by_name:
                found.add(task.name)
            for part in ("train",) if subset in test_sets else PARTS:
                for pair in task.parts[part]:
                    for test_task, test_pair in tested.get(_content(pair.input), ()):
                        if test_task is not task and _same_answer(pair, test_pair):
                            found.add(test_task.name)
    return {subset: sorted(names) for subset, names in leaks.items() if names}


def _content(grid: np.ndarray) -> bytes:
    return bytes(grid.shape) + grid.tobytes()


def _same_answer(trained: Pair, tested: Pair) -> bool:
    if trained.output is None:
        return False
    return tested.output is None or np.array_equal(trained.output, tested.output)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f", ... ({len(names) - 10} more)" if len(names) > 10 else "")


def _notice(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Command line: `python -m dataset.build_arc_dataset --help`."""
    exit_on_user_error(lambda: build(tyro.cli(Config)))


if __name__ == "__main__":
    main()
