"""What a run needs on 1, 8 and 64 GPUs, and what it costs, computed from measured parts.

    python -m scripts.scale                                    # the tables of docs/scale.md, as Markdown
    python -m scripts.scale --experiments arc1 --gpus 4 16     # others
    python -m scripts.scale --check                            # the same formulas against this machine, in minutes

The parts are the training steps in docs/gpu/bench.jsonl, the sizes of data sets, and the rates in `CLUSTER`, which are
round figures of what is sold, not measured here.
"""

import argparse
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from models.flops import flops_per_example
from models.memory import StepMemory, step_memory
from models.sparse_embedding import table_traffic
from utils.hydra import compose
from utils.settings import ArchConfig, PretrainConfig

BENCH = Path(__file__).resolve().parents[1] / "docs" / "gpu" / "bench.jsonl"
PRICE = (2.0, 4.0)  # dollars for an hour of an H100


@dataclass(frozen=True)
class DataSize:
    """A data set as published: what a run reads, and how long its epochs are."""

    vocab_size: int
    seq_len: int
    puzzles: int  # rows of the puzzle table
    examples: int  # in training, copies counted
    per_epoch: float  # examples of an epoch
    test_examples: int
    names_bytes: int = 0  # identifiers.json


# ARC: one puzzle of each group an epoch; of the mean number of examples, published runs show the total of their steps
DATA = {
    "sudoku": DataSize(11, 81, 1, 1_001_000, 1_000, 422_786),
    "maze": DataSize(6, 900, 1, 8_000, 1_000, 1_000),
    "arc1": DataSize(12, 900, 876_406, 3_632_000, 3_978.79, 382_000, 30_000_000),
    "arc2": DataSize(12, 900, 1_170_000, 5_080_000, 5_559.66, 153_000, 40_000_000),
}


@dataclass(frozen=True)
class Rates:
    """What the machines do besides the training step, in bytes a second, or seconds."""

    links: float  # of an all-reduce or a gather, for each process, inside a machine
    network: float  # likewise between machines
    latency: float  # of a collective, in seconds
    read: float  # of the tokens, by the one process that checks them
    copy: float  # from the device to host memory, while training waits
    write: float  # to the disk of the checkpoints, while training goes on
    program: float  # seconds from the start of a process to its data: imports, CUDA, NCCL
    first_step: float  # seconds of compiling
    machine: int = 8  # devices


CLUSTER = Rates(links=200e9, network=25e9, latency=50e-6, read=0.5e9, copy=10e9, write=1e9, program=20, first_step=15)


@dataclass(frozen=True)
class Scale:
    """A run on so many devices. Bytes and seconds; those of a process where nothing else is said."""

    gpus: int
    rows: int  # of the batch
    compute: float  # seconds of a step
    exchange: float  # seconds of a step that wait for the other processes
    gradients: int  # bytes that a process sends and receives in a step
    table: int  # bytes of the puzzle table's traffic in a step
    batch: int  # bytes of tokens in a step
    memory: StepMemory
    start: float  # seconds to the end of the first step
    checkpoint: int  # bytes of both files
    waits: float  # seconds for which training waits at a checkpoint
    written: float  # seconds until it is on the disk

    @property
    def step(self) -> float:
        """Seconds."""
        return self.compute + self.exchange


def step_seconds(rows: float, flops: float, rate: float, overhead: float) -> float:
    """Seconds of a training step without communication.

    Args:
        rows: examples of a process.
        flops: operations of one example, see `models.flops`.
        rate: operations a second.
        overhead: seconds that do not depend on the number of rows.
    """
    return overhead + rows * flops / rate


def exchange_seconds(gradients: int, table: int, processes: int, rates: Rates) -> float:
    """Seconds for the sum of the dense gradients (a ring) and the gather of the puzzle table's rows.

    Taken as if nothing overlapped, which holds for TRM: its gradients are final only at the end of the backward pass.
    """
    if processes == 1:
        return 0.0
    band = rates.links if processes <= rates.machine else rates.network
    share = (processes - 1) / processes
    return (2 * share * gradients + share * table) / band + 2 * rates.latency


def checkpoint_bytes(config: PretrainConfig, data: DataSize) -> int:
    """Bytes of the two files of a checkpoint: weights with the table; raw weights, averages, moments and the carry."""
    sizes = _sizes(config, data)
    table = data.puzzles * config.arch.own_keys.get("puzzle_emb_ndim", 0) * 4
    copies = 1 + config.ema + 2 * (config.optimizer is not None)
    tokens = config.global_batch_size * (2 * data.seq_len + 3) * 4
    return sizes.parameters + table + copies * sizes.parameters + config.global_batch_size * sizes.state + tokens


@dataclass(frozen=True)
class _Sizes:
    parameters: int  # bytes, as the following
    state: int  # of one example


@cache
def _traced(text: str, vocab_size: int, seq_len: int) -> tuple[int, int, StepMemory]:
    config = PretrainConfig.model_validate_json(text)
    memory = step_memory(config, vocab_size, seq_len, 0, 1, str(config.arch.own_keys["forward_dtype"]), compiled=True)
    copies = 2 + 2 * (config.optimizer is not None) + config.ema
    return memory.weights // copies, memory.states // (2 * config.global_batch_size), memory


def _sizes(config: PretrainConfig, data: DataSize) -> _Sizes:
    parameters, state, _ = _traced(config.model_dump_json(), data.vocab_size, data.seq_len)
    return _Sizes(parameters, state)


def start_seconds(data: DataSize, table: int, processes: int, rates: Rates) -> float:
    """Seconds to the end of the first step: one process reads and checks all tokens, the table goes to all others."""
    tokens = 2 * data.seq_len * (data.examples + data.test_examples)
    band = rates.links if processes <= rates.machine else rates.network
    spread = table / band if processes > 1 else 0.0
    return rates.program + (tokens + data.names_bytes) / rates.read + spread + rates.first_step


def scale(config: PretrainConfig, data: DataSize, gpus: int, rate: float, overhead: float, rates: Rates) -> Scale:
    """The run of `config` on `gpus` devices that make `rate` operations a second."""
    rows = config.global_batch_size // gpus
    width = config.arch.own_keys.get("puzzle_emb_ndim", 0)
    table_bytes, traffic = data.puzzles * width * 4, table_traffic(config.global_batch_size, width)
    gradients, flops = _sizes(config, data).parameters, _flops(config, data)
    dtype = str(config.arch.own_keys["forward_dtype"])
    memory = step_memory(config, data.vocab_size, data.seq_len, data.puzzles, gpus, dtype, compiled=True)
    files = checkpoint_bytes(config, data)
    return Scale(
        gpus=gpus,
        rows=rows,
        compute=step_seconds(rows, flops, rate, overhead),
        exchange=exchange_seconds(gradients, traffic, gpus, rates),
        gradients=gradients,
        table=traffic if gpus > 1 else 0,
        batch=rows * (2 * data.seq_len + 1) * 4,
        memory=memory,
        start=start_seconds(data, table_bytes, gpus, rates),
        checkpoint=files,
        waits=files / rates.copy,
        written=files / rates.write,
    )


def _flops(config: PretrainConfig, data: DataSize) -> int:
    return _counted(config.arch.model_dump_json(), data.vocab_size, data.seq_len)


@cache
def _counted(arch: str, vocab_size: int, seq_len: int) -> int:
    return flops_per_example(ArchConfig.model_validate_json(arch), vocab_size, seq_len)


def measured() -> dict[str, dict[str, Any]]:
    """The newest compiled bench of each published experiment, by its name; later lines are newer."""
    found = {}
    for line in BENCH.read_text().splitlines():
        bench = json.loads(line)
        if not bench["compiled"]:
            continue
        if bench["seq_len"] == 81:
            name = "sudoku_extreme_mlp" if bench["arch"]["mlp_t"] else "sudoku_extreme_att"
        else:
            name = "maze_hard" if bench["batch"] == 128 else "arc1"
        found[name] = bench
    return found


def rate_of(experiment: str) -> tuple[float, str]:
    """(operations a second of an H100 in a training step, where the figure comes from)."""
    benches = measured()
    if experiment in benches:
        return benches[experiment]["train step/tflops"] * 1e12, "measured"
    nearest = "arc1" if experiment.startswith("arc") else "maze_hard" if "maze" in experiment else "sudoku_extreme_att"
    return benches[nearest]["train step/tflops"] * 1e12, f"at the rate of {nearest}"


def data_of(experiment: str) -> DataSize:
    """The data set of a published experiment."""
    return DATA[next(name for name in DATA if experiment.startswith(name))]


def steps_of(config: PretrainConfig, data: DataSize) -> int:
    """Optimizer steps of the whole run."""
    return int(config.epochs * data.per_epoch / config.global_batch_size)


# published number -> experiment
PUBLISHED = {
    "TRM-MLP, Sudoku-Extreme 87.4": "sudoku_extreme_mlp",
    "TRM-Att, Sudoku-Extreme 74.7": "sudoku_extreme_att",
    "TRM-Att, Maze-Hard 85.3": "maze_hard",
    "TRM-Att, ARC-AGI-1 44.6": "arc1",
    "TRM-Att, ARC-AGI-2 7.8": "arc2",
    "URM, ARC-AGI-1 53.8": "arc1_urm",
    "URM, Sudoku-Extreme about 78": "sudoku_extreme_urm",
    "EqR, Sudoku-Extreme 99.8": "sudoku_extreme_eqr",
}
_ACT_STEPS_SHARE = (
    1 / 3
)  # of a training step, what one ACT step of an evaluation takes (measured: 0.5, without gradient)


def evaluation_seconds(config: PretrainConfig, data: DataSize, rate: float) -> float:
    """GPU seconds of one evaluation of all test examples, each with all its ACT steps.

    An ACT step without gradient takes a third of the operations of a training step: no backward pass.
    """
    steps = config.eval_halt_max_steps or int(config.arch.own_keys["halt_max_steps"])
    return data.test_examples * steps * _flops(config, data) * _ACT_STEPS_SHARE / rate * _slower()


def _slower() -> float:
    """How much slower an operation is without gradient than in a training step: the mean of the benches."""
    ratios = [
        bench["evaluation, one ACT step/best_ms"] / (bench["train step/best_ms"] * _ACT_STEPS_SHARE)
        for bench in measured().values()
        if "evaluation, one ACT step/best_ms" in bench
    ]
    return sum(ratios) / len(ratios)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def scale_table(experiment: str, gpus: list[int]) -> str:
    """Memory, time and traffic of an experiment on each number of GPUs."""
    config, data = compose("cfg_pretrain", [f"experiment={experiment}"]), data_of(experiment)
    rate, source = rate_of(experiment)
    found = [scale(config, data, count, rate, 0.0, CLUSTER) for count in gpus]
    rows: list[tuple[str, list[str]]] = [
        ("rows of the batch in a process", [f"{one.rows}" for one in found]),
        ("a step: computing", [f"{one.compute * 1e3:.0f} ms" for one in found]),
        ("a step: waiting for other processes", [f"{one.exchange * 1e3:.2f} ms" for one in found]),
        ("dense gradients that a process sums", [_gb(one.gradients) if one.gpus > 1 else "-" for one in found]),
        ("puzzle table's traffic in a step", [_gb(one.table) if one.gpus > 1 else "-" for one in found]),
        ("tokens of a step", [_gb(one.batch) for one in found]),
        ("memory: all", [_gb(one.memory.total) for one in found]),
        ("memory: puzzle table", [_gb(one.memory.puzzle_table) for one in found]),
        ("memory: activations", [_gb(one.memory.activations) for one in found]),
        ("start to the end of the first step", [f"{one.start:.0f} s" for one in found]),
        ("a checkpoint: bytes", [_gb(one.checkpoint) for one in found]),
        ("a checkpoint: training waits", [f"{one.waits:.2f} s" for one in found]),
        ("a checkpoint: on the disk after", [f"{one.written:.1f} s" for one in found]),
        ("the whole run", [f"{steps_of(config, data) * one.step / 3600:,.1f} h" for one in found]),
    ]
    head = f"| `{experiment}` ({rate / 1e12:.0f} TFLOP/s, {source}) | " + " | ".join(f"{n} GPUs" for n in gpus) + " |"
    lines = [head, "|---|" + "---|" * len(gpus)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(values)} |" for name, values in rows)])


def cost_table() -> str:
    """GPU hours and price of each published number."""
    lines = [
        "| published | experiment | steps | a step on one H100 | evaluations | GPU hours | price |",
        "|---" * 7 + "|",
    ]
    for number, experiment in PUBLISHED.items():
        config, data = compose("cfg_pretrain", [f"experiment={experiment}"]), data_of(experiment)
        (rate, source), steps = rate_of(experiment), steps_of(config, data)
        step = step_seconds(config.global_batch_size, _flops(config, data), rate, 0.0)
        count = config.epochs // (config.eval_interval or config.epochs) - (config.min_eval_interval or 0)
        evaluations = count * evaluation_seconds(config, data, rate) / 3600
        hours = steps * step / 3600 + evaluations
        price = f"${hours * PRICE[0]:,.0f} to ${hours * PRICE[1]:,.0f}"
        lines.append(
            f"| {number} | `{experiment}` | {steps:,} | {step:.2f} s, {source} | {count}, {evaluations:,.0f} h | "
            f"{hours:,.0f} | {price} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", nargs="+", default=["arc1", "sudoku_extreme_mlp", "maze_hard"])
    parser.add_argument("--gpus", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--check", action="store_true", help="predict and measure three small runs on this machine")
    given = parser.parse_args()
    if given.check:
        from scripts.scale_check import check  # a benchmark, which the tables do without

        print(check())
        return
    print("\n\n".join([*(scale_table(name, given.gpus) for name in given.experiments), cost_table()]))


if __name__ == "__main__":
    main()
