"""Solve puzzles with an LDT by search. Every solution is checked against the rules, so that none is wrong.

    uv run python search.py load_checkpoint=checkpoints/.../step_4000
    uv run python search.py load_checkpoint=.../step_4000 eval_max_examples=100 chains=8 device=cpu
    uv run python search.py load_checkpoint=weights/sudoku_search/model.safetensors propagate=true device=cpu
    uv run python search.py load_checkpoint=.../step_250 task=path/to/task.py

The architecture comes from the all_config.yaml beside the checkpoint. Prints a table and writes results.json, and the
answers to puzzles.npz. Settings: docs/configuration.md, or --help.
"""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataset.puzzle_dataset import EvalBatches
from dataset.task_choice import give_tasks
from evaluators.acceptance import accept_of, task_with_rules
from evaluators.opening import choose_folder, known_settings, open_data
from evaluators.search import Accept, SearchResult, SearchRule
from evaluators.searches import run_search
from models.acceleration import accelerate
from models.pretrained import load_model, open_checkpoint
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.atomic_file import write_json
from utils.distributed import broadcast_object, errors_of_rank_0, launched_ranks, process_group, sum_over_ranks
from utils.errors import UserError
from utils.files import writing_to
from utils.hydra import hydra_main
from utils.machine import choose_machine
from utils.settings import SearchConfig


def search_puzzles(config: SearchConfig) -> dict[str, dict[str, float]]:
    """One search, from the checkpoint to results.json: set name -> figures (see `figures`).

    Raises:
        UserError: the checkpoint is no LDT, or it, the data or the device cannot be used.
    """
    ranks = launched_ranks()
    say = ranks.say
    checkpoint = open_checkpoint(config.load_checkpoint, config.load_config, config.arch, config.force, say)
    trained = known_settings(checkpoint, say)
    dtype = checkpoint.arch.own_keys.get("forward_dtype", "float32")
    machine = choose_machine(config.device, dtype, config.compile, ranks.local_rank)
    rule = SearchRule(
        config.chains, config.rounds, config.conflict_threshold, config.dropout, config.seconds, config.loops,
        config.propagate, config.call_depth,
    )  # fmt: skip
    slots = config.rows if config.propagate else max(1, config.rows // config.chains)

    with process_group(ranks, machine.device):
        with errors_of_rank_0():  # only rank 0 reads all tokens to check them
            split, _ = open_data(config, trained, ranks)
        task = task_with_rules(split)
        accept = accept_of(task)
        model = load_model(checkpoint, machine, split.metadata.seq_len, split.metadata.vocab_size).model
        if not isinstance(model, LatticeDeductionTransformer):
            raise UserError(
                f"load_checkpoint={config.load_checkpoint}: search needs an LDT (arch=ldt); this is "
                f"{checkpoint.arch.name}. Use evaluate.py for it."
            )
        acceleration = accelerate(model, machine)
        save_path = Path(broadcast_object(choose_folder(config, checkpoint.path)))
        with writing_to(save_path, "Choose another save_path."):  # before the work, not after it
            save_path.mkdir(parents=True, exist_ok=True)
        say(f"checkpoint: {checkpoint.path}\n{machine}; {slots} puzzles at once\n{acceleration}")

        results: dict[str, dict[str, float]] = {}
        for source in split.sources:
            for shard in source.shards:
                name = shard.name if len(split.sources) == 1 else f"{source.root.name}/{shard.name}"
                whole = EvalBatches(source, shard, len(shard.inputs), 0, 1, config.eval_max_examples, config.seed)[0]
                # in random order, so that a search that is stopped has seen a fair sample
                order = np.random.default_rng(config.seed).permutation(len(whole["inputs"]))
                mine = order[ranks.rank :: ranks.world_size]
                inputs, labels = whole["inputs"][mine], whole["labels"][mine]
                with tqdm(total=len(inputs), desc=f"search {name}", disable=None if ranks.is_main else True) as bar:

                    def report(left: int, solved: int, bar: tqdm = bar) -> None:
                        bar.update(left - bar.n)
                        bar.set_postfix(solved=solved)

                    seed = config.seed + ranks.rank
                    found = run_search(model, inputs, accept, task.units(), rule, slots, seed, report)
                results[name] = figures(found, inputs, labels, accept, machine.device)
                file = save_path / f"{name.replace('/', '-')}_puzzles.{ranks.rank}.npz"
                kept = {key: getattr(found, key) for key in ("solved", "unsolvable", "answers", "rounds", "restarts")}
                np.savez_compressed(file, example=whole["example_index"][mine], inputs=inputs, labels=labels, **kept)
                say(table(name, results[name]))
        if ranks.is_main:
            content = {"checkpoint": str(checkpoint.path), "config": config.model_dump(), "sets": results}
            write_json(save_path / "results.json", content)
            print(f"files: {save_path}")
    return results


def figures(
    found: SearchResult, inputs: np.ndarray, labels: np.ndarray, accept: Accept, device: torch.device
) -> dict[str, float]:
    """The figures of a set, over all ranks.

    `wrong` counts solved puzzles whose answer, checked once more, breaks the rules. `other_solutions` counts those with
    another answer than the label: without a second solution there can be none, but a maze may have several.
    """
    other = found.solved & ((labels > 0) & (found.answers != labels)).any(1)
    sums = {
        "puzzles": len(found.solved),
        "solved": found.solved.sum(),
        "wrong": (found.solved & ~accept(inputs, found.answers)).sum(),
        "other_solutions": other.sum(),
        "solved_by_rules_alone": (found.solved & (found.rows == 0)).sum(),
        "unsolvable": found.unsolvable.sum(),
        "undecided": (~found.solved & ~found.unsolvable).sum(),
        "not_tried": ((found.rounds == 0) & ~found.solved & ~found.unsolvable).sum(),
        "rejected_boards": found.rejected,
        "calls": found.calls,
        "rows": found.rows.sum(),
        "rounds_of_solved": found.rounds[found.solved].sum(),
        "restarts": found.restarts.sum(),
        "seconds": found.seconds,
        "ranks": 1,
    }
    total = sum_over_ranks({name: torch.tensor(float(value), device=device) for name, value in sums.items()})
    total["seconds"] /= total.pop("ranks")
    return total


def table(name: str, result: dict[str, float]) -> str:
    """The figures of a set as text."""
    tried, solved = max(1, result["puzzles"] - result["not_tried"]), max(1, result["solved"])
    speed = tried / max(1e-9, result["seconds"])
    lines = [
        f"\n{name}: {result['puzzles']:,.0f} puzzles",
        f"  {'solved':<26}{result['solved']:>10,.0f}{result['solved'] / tried:>10.3%} of those begun",
        f"  {'  by the rules alone':<26}{result['solved_by_rules_alone']:>10,.0f}",
        f"  {'wrong':<26}{result['wrong']:>10,.0f}",
        f"  {'another than the label':<26}{result['other_solutions']:>10,.0f}",
        f"  {'unsolvable':<26}{result['unsolvable']:>10,.0f}",
        f"  {'undecided':<26}{result['undecided']:>10,.0f}    {result['not_tried']:,.0f} of them not begun",
        f"  {'boards rejected':<26}{result['rejected_boards']:>10,.0f}",
        f"  {'network calls':<26}{result['calls']:>10,.0f}    on {result['rows']:,.0f} lattices",
        f"  {'rounds per solved puzzle':<26}{result['rounds_of_solved'] / solved:>10.2f}",
        f"  {'restarts per puzzle':<26}{result['restarts'] / tried:>10.2f}",
        f"  {'seconds':<26}{result['seconds']:>10.2f}    {speed:.1f} puzzles/s",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    hydra_main("cfg_search", SearchConfig, search_puzzles, give_tasks)
