"""ARC-AGI-1 at its full size, with tokens that cost no disk: how a run starts, steps and saves on several processes.

    uv run python -m bench.full_arc --folder /tmp/full --processes 2
    uv run python -m bench.full_arc --folder /tmp/full --processes 2 arch.hidden_size=512 global_batch_size=768
    uv run python -m bench.full_arc --folder /tmp/votes --evaluate 20000          # votes instead: bench/arc_votes.py

The data set has the 876,406 puzzle ids of the published one and as many examples and test examples; all tokens are
padding, in files with holes. The model is small unless overrides say otherwise, but its puzzle table has the published
width. Prints seconds from the start of the launcher, and for each process seconds of the processor and the peak of its
resident memory, of which pages of the data that the system may drop at any time are named apart.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.arc_votes import measure_votes
from bench.watch import torchrun, watch
from dataset.checksums import write_checksums
from dataset.shards import BLANK_IDENTIFIER, PuzzleDatasetMetadata, write_identifiers, write_metadata
from dataset.tasks.arc.augmentation import puzzle_name
from dataset.tasks.arc.field import SEQ_LEN, VOCAB_SIZE

PUZZLES, GROUPS, TEST_GROUPS = 876_405, 960, 400
EXAMPLES = 4  # of a puzzle in training; 4.14 in the published set
SMALL = (
    "arch.hidden_size=64", "arch.num_heads=2", "arch.H_cycles=1", "arch.L_cycles=1", "arch.puzzle_emb_ndim=512",
    "arch.forward_dtype=float32", "global_batch_size=4", "compile=false", "lr_warmup_steps=1", "max_steps=3",
    "eval_interval=null", "eval_max_examples=4", "show_example=false", "device=cpu", "wandb_mode=disabled",
)  # fmt: skip


def write_full_arc(root: Path, puzzles: int = PUZZLES, groups: int = GROUPS, test_groups: int = TEST_GROUPS) -> None:
    """Write the data set, if it is not there: `puzzles` in `groups`, of which the first `test_groups` are asked."""
    if (root / "checksums.json").exists():
        return
    ends = np.linspace(0, puzzles, groups + 1).astype(np.int64)
    asked = int(ends[test_groups])
    for split, count, examples, of_split in (
        ("train", puzzles, EXAMPLES, ends),
        ("test", asked, 1, ends[: test_groups + 1]),
    ):
        folder = root / split
        folder.mkdir(parents=True, exist_ok=True)
        metadata = PuzzleDatasetMetadata(
            pad_id=0,
            ignore_label_id=0,
            blank_identifier_id=0,
            vocab_size=VOCAB_SIZE,
            seq_len=SEQ_LEN,
            num_puzzle_identifiers=puzzles + 1,
            total_groups=len(of_split) - 1,
            mean_puzzle_examples=float(examples),
            total_puzzles=count,
            sets=["all"],
            task="arc",
        )
        write_metadata(folder, metadata)
        for name in ("inputs", "labels"):  # a file that was never written to has a hole for its content
            np.lib.format.open_memmap(folder / f"all__{name}.npy", "w+", np.uint8, (count * examples, SEQ_LEN))
        np.save(folder / "all__puzzle_identifiers.npy", np.arange(1, count + 1, dtype=np.int32))
        np.save(folder / "all__puzzle_indices.npy", np.arange(0, count * examples + 1, examples, dtype=np.int32))
        np.save(folder / "all__group_indices.npy", of_split.astype(np.int32))
    group_of = np.searchsorted(ends, np.arange(puzzles), side="right") - 1
    rng, names = np.random.default_rng(0), [BLANK_IDENTIFIER]
    colours = ["0" + "".join(map(str, rng.permutation(9) + 1)) for _ in range(1000)]
    for puzzle, group in enumerate(group_of.tolist()):
        task, copy = f"{group:08x}", puzzle - int(ends[group])
        names.append(puzzle_name(task, copy % 8, colours[copy % 1000]) if copy else task)
    write_identifiers(root, names)
    pair = {"input": [[0]], "output": [[1]]}
    tasks = {f"{group:08x}": {"train": [pair], "test": [pair]} for group in range(test_groups)}
    (root / "test_puzzles.json").write_text(json.dumps(tasks))
    write_checksums(root)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the data set and the run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("overrides", nargs="*", help="of pretrain.py")
    parser.add_argument("--evaluate", type=int, metavar="EXAMPLES", help="measure the votes over so many instead")
    given = parser.parse_args()
    if given.evaluate is not None:
        measure_votes(given.folder, given.evaluate)
        return
    write_full_arc(given.folder / "data")
    run = given.folder / f"run-{int(time.time())}"
    data = [f"data_paths=[{given.folder / 'data'}]", "data_builder=null", f"checkpoint_path={run}"]
    log = run / "metrics.jsonl"
    events = {
        "run folder": lambda: (run / "all_config.yaml").exists(),
        "first step": lambda: log.exists() and log.stat().st_size > 0,
        "checkpoint": lambda: any(run.glob("step_*_train_state.pt")),
    }
    program = ["pretrain.py", "experiment=arc1", *SMALL, *data, *given.overrides]
    command = [sys.executable, *torchrun(given.processes), *program]
    found = watch(command, run.with_suffix(".txt"), events, launched=True)
    print(found.output)
    sizes = {path.name: path.stat().st_size / 1e9 for path in sorted(run.glob("step_*"))}
    processes = [asdict(process) for process in found.processes]
    print(json.dumps({**found.seen, "end": found.seconds, "processes": processes, "checkpoint in GB": sizes}, indent=1))


if __name__ == "__main__":
    main()
