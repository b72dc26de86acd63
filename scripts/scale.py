"""What a run needs on 1, 8 and 64 GPUs, and what it costs, computed from measured parts.

    python -m scripts.scale                                    # the tables of docs/scale.md, as Markdown
    python -m scripts.scale --experiments arc1 --gpus 4 16     # others
    python -m scripts.scale --check                            # the same formulas against this machine, in minutes

The step, memory and checkpoint are those of `scripts.scale_model`, fitted to the benches of one GPU in
docs/gpu/bench.jsonl. The rates in `CLUSTER`, such as those between GPUs, are round figures of what is sold; nothing was
measured on several GPUs.
"""

import argparse
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from models.sparse_embedding import table_traffic
from scripts.scale_model import DataSize, Fitted, Measured, Needs, fit, parameter_bytes, pass_seconds, predict
from utils.hydra import compose
from utils.settings import ArchConfig, PretrainConfig

BENCH = Path(__file__).resolve().parents[1] / "docs" / "gpu" / "bench.jsonl"
STEP, PASS, UPDATE = "train step/best_ms", "evaluation, one ACT step/best_ms", "optimizer and EMA/best_ms"
PRICE = (2.0, 4.0)  # dollars for an hour of an H100


@dataclass(frozen=True)
class Published(DataSize):
    """A data set as published: what a run reads, and how long its epochs are."""

    examples: int  # in training, copies counted
    per_epoch: float  # examples of an epoch
    test_examples: int
    names_bytes: int = 0  # identifiers.json


# ARC: one puzzle of each group an epoch; of the mean number of examples, published runs show the total of their steps
DATA = {
    "sudoku": Published(11, 81, 1, 1_001_000, 1_000, 422_786),
    "maze": Published(6, 900, 1, 8_000, 1_000, 1_000),
    "arc1": Published(12, 900, 876_406, 3_632_000, 3_978.79, 382_000, 30_000_000),
    "arc2": Published(12, 900, 1_170_000, 5_080_000, 5_559.66, 153_000, 40_000_000),
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
    needs: Needs  # of a process that computes alone
    exchange: float  # seconds of a step that wait for the other processes
    gradients: int  # bytes that a process sends and receives in a step
    table: int  # bytes of the puzzle table's traffic in a step
    batch: int  # bytes of tokens in a step
    start: float  # seconds to the end of the first step
    waits: float  # seconds for which training waits at a checkpoint
    written: float  # seconds until it is on the disk

    @property
    def step(self) -> float:
        """Seconds."""
        return self.needs.step + self.exchange


def exchange_seconds(gradients: int, table: int, processes: int, rates: Rates) -> float:
    """Seconds for the sum of the dense gradients (a ring) and the gather of the puzzle table's rows.

    Taken as if nothing overlapped, which holds for TRM: its gradients are final only at the end of the backward pass.
    """
    if processes == 1:
        return 0.0
    band = rates.links if processes <= rates.machine else rates.network
    share = (processes - 1) / processes
    return (2 * share * gradients + share * table) / band + 2 * rates.latency


def start_seconds(data: Published, table: int, processes: int, rates: Rates) -> float:
    """Seconds to the end of the first step: one process reads and checks all tokens, the table goes to all others."""
    tokens = 2 * data.seq_len * (data.examples + data.test_examples)
    band = rates.links if processes <= rates.machine else rates.network
    spread = table / band if processes > 1 else 0.0
    return rates.program + (tokens + data.names_bytes) / rates.read + spread + rates.first_step


def scale(config: PretrainConfig, data: Published, gpus: int, machine: Fitted, rates: Rates) -> Scale:
    """The run of `config` on `gpus` devices, each of which is as fast as `machine`."""
    rows = config.global_batch_size // gpus
    traffic = table_traffic(config.global_batch_size, config.arch.own_keys.get("puzzle_emb_ndim", 0))
    needs, gradients = predict(config, data, gpus, machine), parameter_bytes(config, data)
    return Scale(
        gpus=gpus,
        rows=rows,
        needs=needs,
        exchange=exchange_seconds(gradients, traffic, gpus, rates),
        gradients=gradients,
        table=traffic if gpus > 1 else 0,
        batch=rows * (2 * data.seq_len + 1) * 4,
        start=start_seconds(data, needs.puzzle_table, gpus, rates),
        waits=needs.checkpoint / rates.copy,
        written=needs.checkpoint / rates.write,
    )


@cache
def measured() -> dict[str, Measured]:
    """The newest complete bench of each experiment, compiled, on one GPU; later lines are newer."""
    benches = [json.loads(line) for line in BENCH.read_text().splitlines()]
    found = {bench["experiment"]: bench for bench in benches if bench["compiled"] and {PASS, UPDATE} <= bench.keys()}
    return {
        name: Measured(
            config=compose("cfg_pretrain", [f"experiment={name}"]).model_copy(
                update={"arch": ArchConfig.model_validate(bench["arch"]), "global_batch_size": bench["batch"]}
            ),
            data=replace(data_of(name), puzzles=1),  # benches have random tokens of one puzzle
            step=bench[STEP] / 1e3,
            memory=bench["peak_memory_gb"] * 1e9,
            forward=bench[PASS] / 1e3,
            update=bench[UPDATE] / 1e3,
        )
        for name, bench in found.items()
    }


def machine_of(experiment: str) -> tuple[Fitted, str]:
    """(an H100 as it was measured with this experiment or a similar one, where the figures come from)."""
    nearest = "arc1" if experiment.startswith("arc") else "maze_hard" if "maze" in experiment else "sudoku_extreme_att"
    benches = measured()
    if experiment in benches:
        return fit([benches[experiment]]), "measured"
    return fit([benches[nearest]]), f"at the rates of {nearest}"


def data_of(experiment: str) -> Published:
    """The data set of a published experiment."""
    return DATA[next(name for name in DATA if experiment.startswith(name))]


def steps_of(config: PretrainConfig, data: Published) -> int:
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
    "SE-RRM, Sudoku-Extreme 93.7": "sudoku_extreme_se_rrm",
}


def evaluation_seconds(config: PretrainConfig, data: Published, machine: Fitted) -> float:
    """GPU seconds of one evaluation of all test examples, each with all its ACT steps."""
    steps = config.eval_halt_max_steps or int(config.arch.own_keys["halt_max_steps"])
    return pass_seconds(config, data, data.test_examples * steps, machine)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def scale_table(experiment: str, gpus: list[int]) -> str:
    """Memory, time and traffic of an experiment on each number of GPUs."""
    config, data = compose("cfg_pretrain", [f"experiment={experiment}"]), data_of(experiment)
    machine, source = machine_of(experiment)
    found = [scale(config, data, count, machine, CLUSTER) for count in gpus]
    rows: list[tuple[str, list[str]]] = [
        ("rows of the batch in a process", [f"{one.rows}" for one in found]),
        ("a step: computing", [f"{one.needs.step * 1e3:.0f} ms" for one in found]),
        ("a step: waiting for other processes", [f"{one.exchange * 1e3:.2f} ms" for one in found]),
        ("dense gradients that a process sums", [_gb(one.gradients) if one.gpus > 1 else "-" for one in found]),
        ("puzzle table's traffic in a step", [_gb(one.table) if one.gpus > 1 else "-" for one in found]),
        ("tokens of a step", [_gb(one.batch) for one in found]),
        ("memory: all", [_gb(one.needs.memory) for one in found]),
        ("memory: puzzle table", [_gb(one.needs.puzzle_table) for one in found]),
        ("memory: activations", [_gb(one.needs.activations) for one in found]),
        ("start to the end of the first step", [f"{one.start:.0f} s" for one in found]),
        ("a checkpoint: bytes", [_gb(one.needs.checkpoint) for one in found]),
        ("a checkpoint: training waits", [f"{one.waits:.2f} s" for one in found]),
        ("a checkpoint: on the disk after", [f"{one.written:.1f} s" for one in found]),
        ("the whole run", [f"{steps_of(config, data) * one.step / 3600:,.1f} h" for one in found]),
    ]
    rates = f"{machine.forward / 1e12:.0f} TFLOP/s forward, {machine.backward / 1e12:.0f} backward"
    head = f"| `{experiment}` ({rates}, {source}) | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in gpus) + " |"
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
        (machine, source), steps = machine_of(experiment), steps_of(config, data)
        step = predict(config, data, 1, machine).step
        count = config.epochs // (config.eval_interval or config.epochs) - (config.min_eval_interval or 0)
        evaluations = count * evaluation_seconds(config, data, machine) / 3600
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
