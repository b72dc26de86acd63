"""Evaluate a checkpoint, one of ours or a published one.

    uv run python evaluate.py load_checkpoint=checkpoints/.../step_1000
    uv run torchrun --nproc-per-node 8 evaluate.py load_checkpoint=.../step_1000 data_paths=[data/x]

The all_config.yaml beside the checkpoint says what its architecture is. Prints a table and writes results.json.
Configuration: config/cfg_evaluate.yaml.
"""

import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dataset.puzzle_dataset import PuzzleSplit
from evaluators.answers import HaltRule
from evaluators.batch_size import choose_batch_size
from evaluators.evaluation import (
    EvaluationResult,
    check_save_outputs,
    evaluate_split,
    picture_example,
)
from models.factory import PUZZLE_TABLE, check_arch, known_arch_keys, make_head
from models.losses import ACTLossHead
from utils.checkpoint import check_fits, load_weights
from utils.config import ArchConfig, EvaluateConfig, EvaluatorConfig, PretrainConfig, plain, read_yaml, validate
from utils.data_record import check_same_puzzles
from utils.device import choose_compile, choose_device, choose_dtype
from utils.distributed import Ranks, broadcast_object, errors_of_rank_0, launched_ranks, process_group
from utils.errors import UserError
from utils.hydra import hydra_main


def evaluate(config: EvaluateConfig) -> dict[str, EvaluationResult]:
    """One evaluation, from the checkpoint to results.json.

    Raises:
        UserError: the checkpoint, its configuration, the data or the device does not fit.
    """
    ranks = launched_ranks()
    say = ranks.say
    assert config.load_checkpoint is not None
    check_save_outputs(config.eval_save_outputs)
    checkpoint = Path(config.load_checkpoint)
    weights = load_weights(checkpoint)
    trained = read_trained_config(config, checkpoint, say)
    arch = choose_arch(config, trained, say)
    device, device_reason = choose_device(config.device, ranks.local_rank)
    dtype, dtype_reason = choose_dtype(arch.own_keys.get("forward_dtype", "bfloat16"), device)
    arch.forward_dtype = dtype  # pyright: ignore[reportAttributeAccessIssue]
    check_arch(arch)

    with process_group(ranks, device):
        table = weights.get(PUZZLE_TABLE)
        with errors_of_rank_0():  # which alone reads all tokens to check them
            split, by_name = open_data(config, trained, ranks)
        if table is not None:
            check_identifiers(split, len(table), checkpoint, by_name)
        rows = len(table) if table is not None else split.num_puzzle_identifiers
        head = make_head(arch, split.metadata.vocab_size, split.metadata.seq_len, rows)
        check_fits(weights, head, checkpoint)
        head.load_state_dict(weights, assign=True)  # the file stays memory-mapped: a large table is not copied
        head.to(device).requires_grad_(False)
        head.model.eval_max_steps = config.halt_max_steps or trained.get("eval_halt_max_steps")
        fuses, fuse_reason = head.model.fuse(config.compile)
        if choose_compile(config.compile, device)[0]:
            head.model.compile_recursion()

        save_path = broadcast_object(choose_folder(config, checkpoint))
        evaluators = config.evaluators
        if evaluators is None:
            evaluators = [validate(EvaluatorConfig, item) for item in trained.get("evaluators") or []]
        say(f"checkpoint: {checkpoint}")
        batch_size = config.global_batch_size or choose_batch_size(head.model, device) * ranks.world_size
        say(f"device: {device} ({device_reason}); dtype: {dtype} ({dtype_reason}); {batch_size} examples at once")
        say(f"fused operators: {'yes' if fuses else 'no'} ({fuse_reason})")
        started = time.perf_counter()
        results = evaluate_split(
            head,
            split,
            evaluators,
            device=device,
            ranks=ranks,
            global_batch_size=batch_size,
            max_examples=config.eval_max_examples,
            seed=config.seed,
            halting=HaltRule(config.halt_threshold, config.halt_unchanged) if config.early_halting else None,
            fixed_sizes=head.model.compiled,
            save_outputs=config.eval_save_outputs,
            save_path=save_path,
        )
        seconds = time.perf_counter() - started
        if ranks.is_main:
            for name, result in results.items():
                print(table_of(name, result))
            examples = sum(result.examples for result in results.values())
            print(f"\ntime: {seconds:.2f} s, {examples / seconds:.1f} examples/s")
            save_path.mkdir(parents=True, exist_ok=True)
            content = {
                "checkpoint": str(checkpoint),
                "data": [str(source.root) for source in split.sources],
                "config": config.model_dump(),
                "seconds": seconds,
                "sets": {name: asdict(result) for name, result in results.items()},
            }
            (save_path / "results.json").write_text(json.dumps(content, indent=1) + "\n")
            if config.show_example:
                show_example(head, split, device, save_path)
            print(f"files: {save_path}")
    return results


def read_trained_config(config: EvaluateConfig, checkpoint: Path, say=print) -> dict[str, Any]:
    """The configuration of the training run; keys that mean nothing here are named and dropped."""
    path = Path(config.load_config) if config.load_config else checkpoint.parent / "all_config.yaml"
    if not path.exists():
        raise UserError(
            f"{path} is missing: it says what the checkpoint's architecture is. Put the run's all_config.yaml beside "
            "the checkpoint, or give load_config=FILE."
        )
    values = read_yaml(path)
    if not isinstance(values.get("arch"), dict):
        raise UserError(f"{path} has no section arch, so it does not say what the checkpoint's architecture is.")
    foreign = sorted(set(values) - set(PretrainConfig.model_fields))
    if foreign:
        say(f"{path}: dropped unknown keys: {', '.join(foreign)}")
    return {key: value for key, value in values.items() if key not in foreign}


def choose_arch(config: EvaluateConfig, trained: dict[str, Any], say=print) -> ArchConfig:
    """The checkpoint's architecture; another value is refused unless forced."""
    own = dict(trained["arch"])
    changed = {key: value for key, value in config.arch.items() if key not in own or own[key] != value}
    if changed and not config.force:
        lines = [f"arch.{key}={value!r}, the checkpoint has {own.get(key)!r}" for key, value in changed.items()]
        raise UserError(
            "the checkpoint was trained with another architecture:\n  " + "\n  ".join(lines) + "\n"
            "Its weights would run, and give wrong answers. Leave arch out, or add force=true if you mean it."
        )
    for key, value in changed.items():
        say(f"warning: forced arch.{key}={value!r}; the checkpoint was trained with {own.get(key)!r}")
    arch = validate(ArchConfig, {**own, **config.arch}, where="arch.")
    foreign = sorted(set(arch.own_keys) - known_arch_keys(arch))
    if foreign:
        if any(key in config.arch for key in foreign):
            check_arch(arch)  # says what is allowed
        say(f"dropped unknown architecture keys: {', '.join(f'arch.{key}' for key in foreign)}")
        for key in foreign:
            delattr(arch, key)
    return arch


def open_data(config: EvaluateConfig, trained: dict[str, Any], ranks: Ranks) -> tuple[PuzzleSplit, bool]:
    """The split to evaluate, and whether its puzzle ids were found by name in the data of the training run."""
    trained_on = list(trained.get("data_paths") or [])
    wanted = config.data_paths_test or config.data_paths or trained.get("data_paths_test") or trained_on
    missing = [path for path in wanted if not Path(path).exists()]
    if missing:
        raise UserError(
            f"data_paths: {missing[0]} does not exist (from {Path.cwd()}). Give the folders of the shards to evaluate "
            "on, for example data_paths=[data/x]."
        )
    # A part of the training data, or data_paths_test: as in training, a row is found by the name of its puzzle.
    by_name = list(wanted) in (trained_on[:1], trained_on[1:], trained.get("data_paths_test")) and wanted != trained_on
    if by_name and all(Path(path).exists() for path in trained_on):
        trained_split = PuzzleSplit(trained_on, "train", check_tokens=False)  # only its names are asked for
        return PuzzleSplit(wanted, config.split, like=trained_split, check_tokens=ranks.is_main), True
    return PuzzleSplit(wanted, config.split, check_tokens=ranks.is_main), False


def choose_folder(config: EvaluateConfig, checkpoint: Path) -> Path:
    """Where the results go: save_path, or a folder named after the checkpoint that holds no results yet."""
    if config.save_path is not None:
        return Path(config.save_path)
    name = f"{checkpoint.resolve().parent.name}-{checkpoint.name}"
    folders = (Path("evaluations") / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(folder for folder in folders if not (folder / "results.json").exists())


def check_identifiers(split: PuzzleSplit, rows: int, checkpoint: Path, by_name: bool) -> None:
    """Refuse data whose puzzle ids are not those of the checkpoint's embedding table."""
    if split.num_puzzle_identifiers != rows:
        roots = ", ".join(str(source.root) for source in split.sources)
        raise UserError(
            f"{roots}: {split.num_puzzle_identifiers} puzzle identifiers, but the embedding table of {checkpoint} has "
            f"{rows} rows, so ids would name the wrong rows. Evaluate on the data set that it was trained on, built "
            "with the same options; for new puzzles fine-tune first (pretrain.py load_checkpoint=...)."
        )
    if rows > 1 and not by_name:
        for source in split.sources:
            check_same_puzzles(checkpoint.parent, source.root)


def table_of(name: str, result: EvaluationResult) -> str:
    """The result of one set as text."""
    lines = [f"\n{name}: {result.examples} examples, {result.count} of them with labels"]
    lines += [f"  {key:<24}{value:>10.4f}" for key, value in {**result.metrics, **result.task_metrics}.items()]
    lines.append("  after step    exact accuracy    accuracy")
    pairs = zip(result.exact_accuracy_after_step, result.accuracy_after_step, strict=True)
    lines += [f"  {step:>10}{exact:>18.4f}{tokens:>12.4f}" for step, (exact, tokens) in enumerate(pairs, start=1)]
    return "\n".join(lines)


def show_example(head: ACTLossHead, split: PuzzleSplit, device, folder: Path) -> None:
    """Print and draw how the model solves an example."""
    picture = picture_example(head, split.sources[0], device, folder / "example.png")
    print(picture if picture is not None else "no picture: there is none for this kind of data")


def run(composed: DictConfig) -> None:
    """One Hydra job."""
    evaluate(validate(EvaluateConfig, plain(composed)))


if __name__ == "__main__":
    hydra_main("cfg_evaluate", run)
