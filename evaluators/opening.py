"""What an evaluation of a checkpoint opens: the settings of its run, the data, and a folder for the results."""

from pathlib import Path
from typing import Any

from dataset.puzzle_dataset import PuzzleSplit
from models.pretrained import Checkpoint
from utils.data_record import check_same_puzzles
from utils.distributed import Ranks
from utils.errors import UserError
from utils.settings import CheckpointConfig, EvaluateConfig, EvaluatorConfig, PretrainConfig


def known_settings(checkpoint: Checkpoint, say=print) -> dict[str, Any]:
    """The configuration of the training run; unknown keys are reported and dropped."""
    foreign = sorted(set(checkpoint.config) - set(PretrainConfig.model_fields))
    if foreign:
        say(f"the configuration of {checkpoint.path}: dropped unknown keys: {', '.join(foreign)}")
    return {key: value for key, value in checkpoint.config.items() if key not in foreign}


def open_data(config: CheckpointConfig, trained: dict[str, Any], ranks: Ranks) -> tuple[PuzzleSplit, bool]:
    """The split to evaluate, and whether its puzzle ids were found by name in the data of the training run.

    Raises:
        UserError: a folder does not exist, or the data cannot be used.
    """
    trained_on = list(trained.get("data_paths") or [])
    wanted = config.data_paths_test or config.data_paths or trained.get("data_paths_test") or trained_on
    missing = [path for path in wanted if not Path(path).exists()]
    if missing:
        raise UserError(
            f"data_paths: {missing[0]} does not exist (from {Path.cwd()}). Give the folders of the shards to evaluate "
            "on, for example data_paths=[data/x]."
        )
    # In a part of the training data, or data_paths_test, a row is found by the name of its puzzle, as in training.
    by_name = list(wanted) in (trained_on[:1], trained_on[1:], trained.get("data_paths_test")) and wanted != trained_on
    if by_name and all(Path(path).exists() for path in trained_on):
        trained_split = PuzzleSplit(trained_on, "train", check_tokens=False)  # only its puzzle names are used
        return PuzzleSplit(wanted, config.split, like=trained_split, check_tokens=ranks.is_main), True
    return PuzzleSplit(wanted, config.split, check_tokens=ranks.is_main), False


def choose_folder(config: CheckpointConfig, checkpoint: Path) -> Path:
    """The folder for the results: save_path, or one named after the checkpoint that has no results yet.

    So the same command finds the folder of an evaluation that was interrupted.
    """
    if config.save_path is not None:
        return Path(config.save_path)
    name = f"{checkpoint.resolve().parent.name}-{checkpoint.name}"
    folder, number = Path("evaluations") / name, 1
    while (folder / "results.json").exists():
        number += 1
        folder = folder.with_name(f"{name}-{number}")
    return folder


def identity(
    config: EvaluateConfig, checkpoint: Checkpoint, evaluators: list[EvaluatorConfig], batch_size: int
) -> dict[str, Any]:
    """All that the results depend on, by which an interrupted evaluation is recognised."""
    file = checkpoint.path.stat()
    return {
        "weights": [str(checkpoint.path.resolve()), file.st_size, file.st_mtime_ns],
        "settings": config.model_dump(exclude={"save_path", "show_example"}),
        "evaluators": [evaluator.model_dump() for evaluator in evaluators],
        "batch_size": batch_size,
    }


def check_identifiers(split: PuzzleSplit, checkpoint: Checkpoint, by_name: bool) -> None:
    """Check that the puzzle ids of the data are those of the checkpoint's embedding table, if it has one.

    Raises:
        UserError: they are not.
    """
    rows = checkpoint.puzzle_rows
    if rows is None:
        return
    if split.num_puzzle_identifiers != rows:
        roots = ", ".join(str(source.root) for source in split.sources)
        raise UserError(
            f"{roots}: {split.num_puzzle_identifiers} puzzle identifiers, but the embedding table of {checkpoint.path} "
            f"has {rows} rows, so ids would name the wrong rows. Evaluate on the data set that it was trained on, "
            "built with the same options; for new puzzles fine-tune first (pretrain.py load_checkpoint=...)."
        )
    if rows > 1 and not by_name:
        for source in split.sources:
            check_same_puzzles(checkpoint.folder, source.root)
