"""Evaluate a checkpoint, one of ours or a published one.

    uv run python evaluate.py load_checkpoint=checkpoints/.../step_1000
    uv run torchrun --nproc-per-node 8 evaluate.py load_checkpoint=.../step_1000 data_paths=[data/x]
    uv run python evaluate.py load_checkpoint=.../step_1000 task=path/to/task.py   a task of your own is named again

The architecture comes from the all_config.yaml beside the checkpoint. Prints a table and writes results.json.
Settings: docs/configuration.md, or --help.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset.puzzle_dataset import PuzzleSplit
from dataset.task_choice import give_tasks
from evaluators.answers import HaltRule
from evaluators.batch_size import choose_batch_size
from evaluators.evaluation import EvaluationResult, check_save_outputs, evaluate_split, picture_example
from models.acceleration import accelerate
from models.pretrained import Checkpoint, load_model, open_checkpoint
from utils.config import validate
from utils.data_record import check_same_puzzles
from utils.distributed import Ranks, broadcast_object, errors_of_rank_0, launched_ranks, process_group
from utils.errors import UserError
from utils.files import writing_to
from utils.hydra import hydra_main
from utils.machine import choose_machine
from utils.settings import CheckpointConfig, EvaluateConfig, EvaluatorConfig, PretrainConfig

BLANK = ", blank puzzle id"  # behind the name of a set that was evaluated without puzzle ids


def evaluate(config: EvaluateConfig) -> dict[str, EvaluationResult]:
    """One evaluation, from the checkpoint to results.json.

    Raises:
        UserError: the checkpoint, its configuration, the data or the device cannot be used.
    """
    ranks = launched_ranks()
    say = ranks.say
    check_save_outputs(config.eval_save_outputs)
    checkpoint = open_checkpoint(config.load_checkpoint, config.load_config, config.arch, config.force, say)
    trained = known_settings(checkpoint, say)
    dtype = checkpoint.arch.own_keys.get("forward_dtype", "bfloat16")
    machine = choose_machine(config.device, dtype, config.compile, ranks.local_rank)
    device = machine.device

    with process_group(ranks, device):
        with errors_of_rank_0():  # only rank 0 reads all tokens to check them
            split, by_name = open_data(config, trained, ranks)
        check_identifiers(split, checkpoint, by_name)
        head = load_model(checkpoint, machine, split.metadata.seq_len, split.metadata.vocab_size)
        acceleration = accelerate(head.model, machine)

        save_path = broadcast_object(choose_folder(config, checkpoint.path))
        with writing_to(save_path, "Choose another save_path."):  # before the work, not after it
            save_path.mkdir(parents=True, exist_ok=True)
        evaluators = config.evaluators
        if evaluators is None:
            evaluators = [validate(EvaluatorConfig, item) for item in trained.get("evaluators") or []]
        max_steps = config.halt_max_steps or trained.get("eval_halt_max_steps")
        batch_size = config.global_batch_size or choose_batch_size(head.model, device) * ranks.world_size
        say(f"checkpoint: {checkpoint.path}\n{machine}; {batch_size} examples at once\n{acceleration}")
        started = time.perf_counter()

        def evaluated(folder: Path, blank_ids: bool = False) -> dict[str, EvaluationResult]:
            return evaluate_split(
                head,
                split,
                evaluators,
                device=device,
                ranks=ranks,
                global_batch_size=batch_size,
                max_examples=config.eval_max_examples,
                seed=config.seed,
                halting=HaltRule(config.halt_threshold, config.halt_unchanged) if config.early_halting else None,
                max_steps=max_steps,
                fixed_sizes=head.model.compiled,
                save_outputs=config.eval_save_outputs,
                save_path=folder,
                blank_ids=blank_ids,
            )

        results = evaluated(save_path)
        if config.blank_puzzle_id:
            blank = evaluated(save_path / "blank_puzzle_id", blank_ids=True)
            results |= {f"{name}{BLANK}": result for name, result in blank.items()}
        seconds = time.perf_counter() - started
        if ranks.is_main:
            for name, result in results.items():
                print(format_result(name, result))
            if config.blank_puzzle_id:
                print(format_ids(results, checkpoint.puzzle_rows))
            examples = sum(result.examples for result in results.values())
            print(f"\ntime: {seconds:.2f} s, {examples / seconds:.1f} examples/s")
            content = {
                "checkpoint": str(checkpoint.path),
                "data": [str(source.root) for source in split.sources],
                "config": config.model_dump(),
                "seconds": seconds,
                "sets": {name: asdict(result) for name, result in results.items()},
            }
            (save_path / "results.json").write_text(json.dumps(content, indent=1) + "\n")
            if config.show_example:
                path = save_path / "example.png"
                slots = -(-batch_size // ranks.world_size) if head.model.compiled else None
                picture = picture_example(head, split.sources[0], device, path, max_steps=max_steps, slots=slots)
                print(picture if picture is not None else "no picture: there is none for this kind of data")
            print(f"files: {save_path}")
    return results


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
    """The folder for the results: save_path, or one named after the checkpoint that has no results yet."""
    if config.save_path is not None:
        return Path(config.save_path)
    name = f"{checkpoint.resolve().parent.name}-{checkpoint.name}"
    folders = (Path("evaluations") / (name if number == 1 else f"{name}-{number}") for number in range(1, 10**9))
    return next(folder for folder in folders if not (folder / "results.json").exists())


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


def format_ids(results: dict[str, EvaluationResult], rows: int | None) -> str:
    """What the puzzle ids are worth to the model, as text; `rows`: those of its puzzle embedding, if it has one."""
    if rows is None or rows == 1:
        return "\npuzzle ids: this model has none, so the blank id makes no difference"
    lines = [f"\n  {'with and without puzzle ids':<40}{'known id':>10}{'blank id':>10}"]
    for name in [name for name in results if f"{name}{BLANK}" in results]:
        own, blank = ({**part.metrics, **part.task_metrics} for part in (results[name], results[f"{name}{BLANK}"]))
        shown = [key for key in own if "loss" not in key and key in blank]
        lines += [f"  {f'{name} {key}':<40}{own[key]:>10.4f}{blank[key]:>10.4f}" for key in shown]
    return "\n".join(lines)


def format_result(name: str, result: EvaluationResult) -> str:
    """The result of one set as text."""
    known = f"{result.count} of them with labels" if result.count else "no labels, so nothing to compare answers with"
    lines = [f"\n{name}: {result.examples} examples, {known}"]
    lines += [f"  {key:<24}{value:>10.4f}" for key, value in {**result.metrics, **result.task_metrics}.items()]
    if not result.count:
        return "\n".join(lines)
    lines.append("  after step    exact accuracy    accuracy")
    pairs = zip(result.exact_accuracy_after_step, result.accuracy_after_step, strict=True)
    lines += [f"  {step:>10}{exact:>18.4f}{tokens:>12.4f}" for step, (exact, tokens) in enumerate(pairs, start=1)]
    return "\n".join(lines)


if __name__ == "__main__":
    hydra_main("cfg_evaluate", EvaluateConfig, evaluate, give_tasks)
