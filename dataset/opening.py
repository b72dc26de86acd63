"""The puzzles of a training run: build missing data sets, then open and check the splits and cut them into batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.augmentation import Augmentation
from dataset.building import build_missing_data
from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from dataset.shards import PuzzleDatasetMetadata
from dataset.tasks import load_task, task_of
from dataset.tasks.board import board_of
from dataset.tasks.symmetric import SymmetryAugmentation, check_symmetries
from utils.data_record import check_same_data, same_puzzles, write_data_record
from utils.distributed import Ranks, barrier, errors_of_rank_0
from utils.errors import UserError
from utils.schedule import ComputedSteps
from utils.settings import PretrainConfig


@dataclass(frozen=True)
class PuzzleData:
    """The data of a training run."""

    train: PuzzleSplit
    test: PuzzleSplit | None  # None if there is nothing to evaluate on
    batches: TrainBatches

    @property
    def roots(self) -> list[Path]:
        """The folders of the training data."""
        return [source.root for source in self.train.sources]

    @property
    def project_name(self) -> str:
        """The default project name, as in the published code."""
        return f"{self.roots[0].name.capitalize()}-ACT-torch"

    def same_puzzles(self, folder: Path) -> bool | None:
        """Whether the run in `folder` was trained on these puzzles; None if not recorded. See `utils.data_record`."""
        return same_puzzles(folder, self.roots)

    def check_same(self, folder: Path) -> bool:
        """Whether the run in `folder` was trained on these data; False if not recorded. See `utils.data_record`.

        Raises:
            UserError: it was trained on other data.
        """
        return check_same_data(folder, self.roots)

    def write_record(self, folder: Path) -> None:
        """Write the record of the training data into a run folder."""
        sizes = self.metadata.model_dump(include={"seq_len", "vocab_size", "task"})
        write_data_record(folder, self.roots, self.train.num_puzzle_identifiers, sizes)

    def board(self) -> dict[str, Any] | None:
        """The boards of the task of the data, see `dataset.tasks.board`; None if the task is unknown.

        Raises:
            UserError: the task does not say which answers cells may have.
        """
        task = task_of(self.metadata)
        if task is None:
            return None
        sized = task.of(self.metadata.seq_len, self.metadata.vocab_size)
        shards = (shard for source in self.train.sources for shard in source.shards)
        return board_of(sized, ((shard.inputs, shard.labels) for shard in shards))

    @property
    def metadata(self) -> PuzzleDatasetMetadata:
        """The metadata of the first training data set; `seq_len` and `vocab_size` are the same for all."""
        return self.train.metadata


def open_puzzles(config: PretrainConfig, ranks: Ranks) -> PuzzleData:
    """Open the data of a configuration; rank 0 builds what is missing while the other ranks wait. Collective.

    Raises:
        UserError: on every rank, if data are missing, damaged or do not fit together.
    """
    if ranks.is_main:
        build_missing_data(config.data_paths, config.data_paths_test, config.data_builder)
    barrier()
    with errors_of_rank_0():  # only rank 0 reads and checks all tokens
        train = PuzzleSplit(config.data_paths, "train", check_tokens=ranks.is_main)
        test = _open_test_split(config, train, ranks)
    augmentation = open_augmentation(config.augmentation, train) if config.augmentation is not None else None
    size, seed = config.global_batch_size, config.seed
    return PuzzleData(train, test, TrainBatches(train, size, seed, ranks.rank, ranks.world_size, augmentation))


def open_augmentation(name: str, split: PuzzleSplit) -> Augmentation:
    """The symmetries of the task called `name`, for the data sets of `split`.

    Raises:
        UserError: there is no such task, it has no augmentation or not for this size, a data set is of another task, or
            a symmetry makes labels wrong.
    """
    task = load_task(name, "augmentation")
    for source in split.sources:
        known = task_of(source.metadata)
        if known is not None and known is not task:
            raise UserError(
                f"augmentation={name}: {source.root} holds puzzles of the task {known.name}, whose labels other "
                f"symmetries make wrong. Use augmentation={known.name} or augmentation=null."
            )
    sized = task.of(split.metadata.seq_len, split.metadata.vocab_size)
    augmentation = sized.augmentation()
    if isinstance(augmentation, SymmetryAugmentation):
        for shard in (shard for source in split.sources for shard in source.shards):
            check_symmetries(sized, shard.inputs, shard.labels)
    return augmentation


def _open_test_split(config: PretrainConfig, train: PuzzleSplit, ranks: Ranks) -> PuzzleSplit | None:
    """The data to evaluate on: data_paths_test, else the test splits of data_paths, else None."""
    paths = config.data_paths_test
    if not paths:
        paths = [path for path in config.data_paths if (Path(path) / "test").exists()]
        for path in config.data_paths:
            if path not in paths:
                ranks.say(f"note: {path} has no test split, so there is no evaluation on it")
    return PuzzleSplit(paths, "test", like=train, check_tokens=ranks.is_main) if paths else None


def plan_epochs(config: PretrainConfig, split: PuzzleSplit) -> tuple[int, ComputedSteps]:
    """(total steps, steps after which to evaluate).

    total = int(epochs * total_groups * mean_puzzle_examples / global_batch_size).

    Raises:
        UserError: the epochs do not fill a single batch.
    """
    per_epoch = split.examples_per_epoch / config.global_batch_size
    total = int(config.epochs * per_epoch)
    if total < 1:
        raise UserError(
            f"epochs={config.epochs} of {split.examples_per_epoch:g} examples make no whole batch of "
            f"global_batch_size={config.global_batch_size}: use more epochs or a smaller batch."
        )
    interval = config.eval_interval or config.epochs
    evaluations = range((config.min_eval_interval or 0) + 1, config.epochs // interval + 1)
    return total, ComputedSteps(evaluations, lambda number: int(number * interval * per_epoch))
