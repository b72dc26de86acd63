"""Evaluate a checkpoint, one of ours or a published one.

    uv run python evaluate.py load_checkpoint=checkpoints/.../step_1000
    uv run torchrun --nproc-per-node 8 evaluate.py load_checkpoint=.../step_1000 data_paths=[data/x]
    uv run python evaluate.py load_checkpoint=.../step_1000 task=path/to/task.py   a task of your own is named again

The architecture comes from the all_config.yaml beside the checkpoint. Prints a table and writes results.json.
Settings: docs/configuration.md, or --help.
"""

import time
from dataclasses import asdict

from dataset.task_choice import give_tasks
from evaluators.answers import HaltRule
from evaluators.batch_size import choose_batch_size
from evaluators.evaluation import EvaluationResult, check_save_outputs, evaluate_split
from evaluators.inside import Inside
from evaluators.opening import check_identifiers, choose_folder, identity, known_settings, open_data
from evaluators.result_table import BLANK, format_ids, format_result
from evaluators.unfinished import Unfinished
from models.acceleration import accelerate
from models.pretrained import load_model, open_checkpoint
from utils.atomic_file import write_json
from utils.config import validate
from utils.distributed import broadcast_object, errors_of_rank_0, launched_ranks, process_group
from utils.files import writing_to
from utils.hydra import hydra_main
from utils.machine import choose_machine
from utils.settings import EvaluateConfig, EvaluatorConfig


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
        inside = Inside(config, head, split, evaluators, max_steps)
        batch_size = config.global_batch_size or choose_batch_size(head.model, device) * ranks.world_size
        say(f"checkpoint: {checkpoint.path}\n{machine}; {batch_size} examples at once\n{acceleration}")
        started = time.perf_counter()
        results: dict[str, EvaluationResult] = {}
        folders = {"": save_path} | ({BLANK: save_path / "blank_puzzle_id"} if config.blank_puzzle_id else {})
        unfinished = [
            Unfinished(f, identity(config, checkpoint, evaluators, batch_size), ranks) for f in folders.values()
        ]
        for (ids, folder), part in zip(folders.items(), unfinished, strict=True):
            found = evaluate_split(
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
                unfinished=part,
                blank_ids=ids == BLANK,
            )
            results |= {f"{name}{ids}": result for name, result in found.items()}
        seconds = time.perf_counter() - started
        inside.roll_out(checkpoint.arch, ranks, batch_size)
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
            slots = -(-batch_size // ranks.world_size) if head.model.compiled else None
            content |= inside.report(checkpoint.path, save_path, slots)
            write_json(save_path / "results.json", content)
            for part in unfinished:
                part.remove()
            print(f"files: {save_path}")
    return results


if __name__ == "__main__":
    hydra_main("cfg_evaluate", EvaluateConfig, evaluate, give_tasks)
