"""The votes of ARC over many augmented examples: memory, time, progress, going on after a kill, and two processes.

    uv run python -m bench.full_arc --folder /tmp/votes --evaluate 20000

It builds a data set of 400 tasks whose grids are 30x30 and random, with as many augmented copies as are needed. A tiny
model is trained for a few steps, in which it learns to mistake some colours for others, so that nearly every prediction
is another grid of 30x30, which is the worst case. Its checkpoint is evaluated with evaluate.py.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.watch import Watched, torchrun, watch
from dataset.build_arc_dataset import Config, build
from dataset.tasks.arc.field import MAX_SIDE, NUM_COLOURS
from evaluators.unfinished import FOLDER

TASKS, BATCH, STEPS = 400, 8, 5
TINY = (
    "arch=transformers_baseline", "arch.hidden_size=16", "arch.num_heads=1", "arch.H_layers=1",
    "arch.puzzle_emb_ndim=16", "arch.halt_max_steps=1", "arch.forward_dtype=float32", "global_batch_size=8", "lr=1e-2",
    "lr_warmup_steps=1", f"max_steps={STEPS}", "ema=false", "compile=false", "eval_interval=null",
    "eval_max_examples=4", "eval_traces=0", "show_example=false", "report=false", "device=cpu", "wandb_mode=disabled",
)  # fmt: skip
HEAD = "| examples | seconds | seconds of the processor | memory of its own, at the peak |\n|---|---|---|---|"


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: what its processes took, and what it found."""

    watched: Watched
    sets: dict[str, dict[str, object]]  # of results.json
    submission: str

    def differs_from(self, other: "Evaluated") -> str:
        """How the results differ, in words."""
        if self.submission != other.submission:
            return "another submission"
        if self.sets == other.sets:
            return "the same results, bit for bit"
        pairs = zip(_numbers(self.sets), _numbers(other.sets), strict=True)
        largest = max(abs(one - two) / max(abs(one), abs(two), 1e-12) for one, two in pairs)
        return f"the same submission; sums within {largest:.0e}"


def write_tasks(folder: Path, tasks: int, copies: int, side: int = MAX_SIDE) -> Path:
    """The data set, built if it is not there: random grids, each task `copies` times in all, its answer its question.

    Returns:
        Its folder.
    """
    data, rng = folder / f"votes-{tasks}x{copies}", np.random.default_rng(0)
    if (data / "checksums.json").exists():
        return data
    source, challenges, solutions = folder / "source", dict[str, object](), dict[str, object]()
    source.mkdir(parents=True, exist_ok=True)
    for number in range(tasks):
        known, asked = rng.integers(0, NUM_COLOURS, (2, side, side)).tolist()
        challenges[f"{number:08x}"] = {"train": [{"input": known, "output": known}], "test": [{"input": asked}]}
        solutions[f"{number:08x}"] = [asked]
    (source / "votes_evaluation_challenges.json").write_text(json.dumps(challenges))
    (source / "votes_evaluation_solutions.json").write_text(json.dumps(solutions))
    build(
        Config(
            input_file_prefix=str(source / "votes"),
            output_dir=data,
            subsets=["evaluation"],
            test_set_name="evaluation",
            num_aug=copies - 1,
            overwrite=True,
        )
    )
    return data


def measure_votes(folder: Path, examples: int) -> None:
    """Evaluate so many examples, killed half-way and continued; over two processes; and a half and a quarter of them.

    Prints a table in Markdown, line by line as the evaluations end.
    """
    data = write_tasks(folder, TASKS, -(-examples // TASKS))
    checkpoint = folder / "votes-run" / f"step_{STEPS}"
    if not checkpoint.exists():
        train = ["pretrain.py", "experiment=arc1", *TINY, f"data_paths=[{data}]", "data_builder=null"]
        watch([sys.executable, *train, f"checkpoint_path={checkpoint.parent}"], folder / "training.txt")
    _say(HEAD)
    broken, state = _broken_off(checkpoint, folder / "killed", examples)
    _say(_row(f"{examples:,}, killed after {state['predictions']:,}", broken))
    continued = _evaluate(checkpoint, folder / "killed", examples)
    _say(_row(f"{examples:,}, the rest of it", continued.watched))
    two = _evaluate(checkpoint, folder / "two", examples, processes=2)
    _say(_row(f"{examples:,} over two processes", two.watched))
    for count in (examples // 2, examples // 4):
        _say(_row(f"{count:,}", _evaluate(checkpoint, folder / f"of-{count}", count).watched))
    going_on = next(line for line in continued.watched.output.splitlines() if "going on" in line)
    _say(
        f"\nThe file that was left by the kill has {state['bytes'] / 1e6:.1f} MB, with {state['grids']:,} different "
        f"grids in {state['predictions']:,} predictions. The progress then: `{_progress(broken.output)}`; "
        f"and later: `{going_on}`.\nTwo processes and the interrupted one: {two.differs_from(continued)}."
    )


def _say(text: str) -> None:
    print(text, flush=True)


def _row(name: str, found: Watched) -> str:
    processor, own = (
        ", ".join(form.format(getattr(process, value)) for process in found.processes)
        for value, form in (("processor", "{:.0f}"), ("own", "{:.3f} GB"))
    )
    return f"| {name} | {found.seconds:.0f} | {processor} | {own} |"


def _command(checkpoint: Path, folder: Path, examples: int, processes: int) -> list[str]:
    launcher = torchrun(processes) if processes > 1 else []
    settings = [f"load_checkpoint={checkpoint}", f"save_path={folder}", f"eval_max_examples={examples}"]
    return [sys.executable, *launcher, "evaluate.py", *settings, f"global_batch_size={BATCH}", "device=cpu"]


def _evaluate(checkpoint: Path, folder: Path, examples: int, processes: int = 1) -> Evaluated:
    """evaluate.py to its end."""
    command = _command(checkpoint, folder, examples, processes)
    found = watch(command, folder.with_suffix(".txt"), launched=processes > 1)
    sets = json.loads((folder / "results.json").read_text())["sets"]
    return Evaluated(found, sets, (folder / "submission.json").read_text())


def _broken_off(checkpoint: Path, folder: Path, examples: int) -> tuple[Watched, dict[str, int]]:
    """evaluate.py, killed once half of its answers are on the disk: (what it took, what is on the disk)."""
    file = folder / FOLDER / "all.0.npz"

    def half() -> bool:
        return file.exists() and 2 * BATCH * _kept(file)["batches"] >= examples

    found = watch(_command(checkpoint, folder, examples, 1), folder.with_suffix(".killed.txt"), kill=half)
    if not found.killed:
        raise SystemExit("the evaluation ended before half of its answers were on the disk: give more examples")
    return found, _kept(file)


def _kept(file: Path) -> dict[str, int]:
    """What an unfinished evaluation has kept."""
    with np.load(file, allow_pickle=False) as arrays:
        return {
            "batches": int(arrays["batches"]),
            "predictions": int(arrays["evaluator/0/votes"].sum()),
            "grids": len(arrays["evaluator/0/votes"]),
            "bytes": file.stat().st_size,
        }


def _progress(output: str) -> str:
    """The last line of a progress bar."""
    return [line.strip() for line in output.replace("\r", "\n").splitlines() if "it/s" in line or "s/it" in line][-1]


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        value = [item for _, item in sorted(value.items())]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []
