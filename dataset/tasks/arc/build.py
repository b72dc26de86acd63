"""Build an ARC data set, with every task augmented by symmetries of the square and permutations of the colours.

    python -m dataset.build_arc_dataset --input-file-prefix kaggle/combined/arc-agi \
        --output-dir data/arc1concept-aug-1000 --subsets training evaluation concept --test-set-name evaluation

The files are byte for byte the same as those of the published builder, so puzzle ids match published checkpoints. This
fixes the order of all random draws (numpy's legacy generator), and that nothing is merged between subsets: a task that
is in two subsets makes two groups, and puzzles with the same name share an id.
"""

import json
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tyro
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from dataset.build_record import build_and_record
from dataset.legacy_random import LegacyRandom
from dataset.shards import BLANK_IDENTIFIER, PuzzleDatasetMetadata, build_folder, write_identifiers, write_metadata
from dataset.tasks.arc.distinct import all_symmetries, draw_augmentations
from dataset.tasks.arc.field import PAD, SEQ_LEN, VOCAB_SIZE
from dataset.tasks.arc.files import ArcTask, read_subset
from dataset.tasks.arc.leaks import find_leaks
from dataset.tasks.arc.render import Group, render
from utils.errors import UserError, did_you_mean, exit_on_user_error


class Config(BaseModel):
    """Build an ARC data set from Kaggle's combined files or from folders with one JSON file per task."""

    model_config = ConfigDict(extra="forbid")

    input_file_prefix: str
    """Reads {prefix}_{subset}_challenges.json and, if there, {prefix}_{subset}_solutions.json;
    or {prefix}/{subset}/*.json, the layout of the official ARC-AGI repositories."""
    output_dir: Path
    """Folder of the data set."""
    subsets: list[str]
    """Subsets to read, in this order, which determines the puzzle ids."""
    test_set_name: str
    """The subset whose test pairs form the test split. Everything else is training data."""
    test_set_name2: str | None = None
    """A second such subset."""
    seed: int = 42
    """Seed of every random draw; published data sets use 42."""
    num_aug: int = 1000
    """Augmented copies of each task; fewer if five times as many trials do not find enough distinct ones."""
    permute_colours: bool = True
    """Permute colours in the copies; false: the copies are the eight symmetries of the square, in a fixed order, as
    published for SE-RRM. The unchanged task is then among them once more."""
    puzzle_identifiers_start: int = 1
    """First puzzle id; lower ids are blank."""
    overwrite: bool = False
    """Replace the data set in the output folder, if there is one."""


def build(config: Config) -> None:
    """Build the data set that `config` describes.

    Raises:
        UserError: an option or the input is invalid; nothing is written then.
    """
    _check(config)
    with build_folder(config.output_dir, config.overwrite) as folder:
        subsets = {subset: read_subset(config.input_file_prefix, subset) for subset in config.subsets}
        test_sets = [name for name in (config.test_set_name, config.test_set_name2) if name is not None]
        _check_test_sets(subsets, test_sets)
        _report_missing_solutions(subsets, test_sets)
        _warn_of_leaks(subsets, test_sets)

        rng = LegacyRandom(config.seed)
        splits, test_tasks = _augment(subsets, test_sets, rng, config.num_aug if config.permute_colours else None)
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
            # Only training grids are translated. The published builder draws for test as well, but no output depends on
            # it.
            _write_split(folder / split, groups, ids[split], len(names), rng if split == "train" else None)
        write_identifiers(folder, names)
        with (folder / "test_puzzles.json").open("w") as file:
            json.dump({name: task.to_json() for name, task in test_tasks.items()}, file)
    print(f"{config.output_dir}: {len(names)} puzzle ids, {len(test_tasks)} test tasks")


def _augment(
    subsets: dict[str, list[ArcTask]], test_sets: list[str], rng: LegacyRandom, num_aug: int | None
) -> tuple[dict[str, list[Group]], dict[str, ArcTask]]:
    """The groups of each split, and the test tasks by name; `num_aug`: None for the eight symmetries."""
    splits: dict[str, list[Group]] = {"train": [], "test": []}
    test_tasks: dict[str, ArcTask] = {}
    short: list[str] = []
    with tqdm(total=sum(map(len, subsets.values())), desc="augment", unit="task", disable=None) as progress:
        for subset, tasks in subsets.items():
            tasks = tasks.copy()
            rng.shuffle(tasks)
            for task in tasks:
                if subset in test_sets:
                    test_tasks[task.name] = task
                    halves = task.parts
                else:  # examples without an output cannot be trained on
                    pairs = [pair for pairs in task.parts.values() for pair in pairs if pair.output is not None]
                    halves = {"train": pairs}
                if num_aug is None:
                    transforms, colours = all_symmetries()
                else:
                    every_pair = [pair for pairs in halves.values() for pair in pairs]
                    transforms, colours = draw_augmentations(rng, every_pair, num_aug)
                    if len(transforms) <= num_aug:
                        short.append(task.name)
                for split, pairs in halves.items():
                    splits[split].append(Group(task.name, pairs, transforms, colours))
                progress.update()
    if short:
        _notice(f"{len(short)} tasks have fewer than {num_aug} distinct augmentations: {_shortened(short)}")
    return splits, test_tasks


def _write_split(
    folder: Path,
    groups: list[Group],
    ids: list[int],
    num_identifiers: int,
    rng: LegacyRandom | None,
) -> None:
    """Write one split, with tokens written group by group; `ids` has one id per puzzle; for `rng` see `render`."""
    folder.mkdir()
    examples = sum(len(group.pairs) * len(group.transforms) for group in groups)
    with ExitStack() as stack:
        inputs, labels = (
            stack.enter_context((folder / f"all__{name}.npy").open("wb")) for name in ("inputs", "labels")
        )
        for file in (inputs, labels):
            _write_header(file, examples)
        # Writing takes a third of the time, so one group is written while the next is rendered.
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
    if not config.permute_colours and config.num_aug != Config.model_fields["num_aug"].default:
        raise UserError(
            f"--num-aug {config.num_aug}: without permuted colours there are always eight copies; leave it out."
        )
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


def _check_test_sets(subsets: dict[str, list[ArcTask]], test_sets: list[str]) -> None:
    """Check that test tasks have test pairs and unique names, since votes and submissions are collected by name."""
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


def _report_missing_solutions(subsets: dict[str, list[ArcTask]], test_sets: list[str]) -> None:
    for subset, tasks in subsets.items():
        unsolved = sum(any(pair.output is None for pair in task.parts["test"]) for task in tasks)
        if unsolved:
            effect = "are predicted but not scored" if subset in test_sets else "are left out"
            _notice(f"subset {subset!r}: {unsolved} of {len(tasks)} tasks lack solutions; those test inputs {effect}")


def _warn_of_leaks(subsets: dict[str, list[ArcTask]], test_sets: list[str]) -> None:
    for subset, names in find_leaks(subsets, test_sets).items():
        _notice(
            f"WARNING: subset {subset!r} gives away {len(names)} of the test tasks: training sees tasks of the same id "
            "or their test inputs with the answers, so scores on them show memory. (ARC-AGI-2's training set contains "
            f"ARC-AGI-1 evaluation tasks: do not train on it to test on those.) Tasks: {', '.join(names)}"
        )


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f", ... ({len(names) - 10} more)" if len(names) > 10 else "")


def _notice(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line; see `python -m dataset.build_arc_dataset --help`."""
    exit_on_user_error(lambda: build_and_record(build, tyro.cli(Config)))


if __name__ == "__main__":
    main()
