"""Time the parts of an experiment: training step, evaluation, optimizer and data.

    uv run python bench/train_step.py experiment=sudoku_extreme_mlp device=cuda
    uv run python bench/train_step.py experiment=sudoku_extreme_mlp global_batch_size=32 plain=[bfloat16,float32]
    uv run python bench/train_step.py experiment=maze_hard global_batch_size=8 trace=step.json
    uv run python bench/train_step.py -m experiment=sudoku_extreme_mlp global_batch_size=8,16,32 output=scaling.jsonl
    uv run torchrun --nproc-per-node 2 bench/train_step.py experiment=maze_hard global_batch_size=8 device=cpu

It takes all keys of pretrain.py, and those of `BenchConfig`. If data_paths does not exist, tokens are random, which
costs the same; seq_len and vocab_size set their sizes, by default the published sizes of the task that data_builder
builds. The rate of a matrix product in the dtype of the run is measured between the steps, because the speed of a
machine varies; the share of a step is its rate divided by that of the matrix product. Under torchrun, all processes
time the same part at the same time: times are those of the slowest process, and rates are sums over all processes.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from hydra.core.hydra_config import HydraConfig
from pydantic import Field
from torch import Tensor

from bench.plain import PlainOptimizer, PlainTRM
from dataset.opening import open_augmentation
from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from dataset.tasks import task_built_by
from models.acceleration import Acceleration, accelerate
from models.act import draw_min_steps
from models.factory import count_parameters, make_head, resolve_arch
from models.flops import flops_per_example
from models.inner import ReasonerConfig
from models.losses import ACTLossHead
from models.recursive_reasoning.trm import TinyRecursiveModel
from models.training import PuzzleEmbRates, TrainState
from utils.distributed import Ranks, barrier, largest_over_ranks, launched_ranks, process_group
from utils.errors import UserError
from utils.hydra import hydra_main
from utils.machine import Machine
from utils.run import check_batch_size
from utils.settings import PretrainConfig

MATMUL_SIZE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class BenchConfig(PretrainConfig):
    """The settings of pretrain.py, and what to time."""

    sections = {
        "what to time": "repeats plain parts seq_len vocab_size matmul_size trace output"
    } | PretrainConfig.sections

    repeats: int = Field(default=5, ge=1)
    """Timed steps of each kind; the kinds alternate."""
    plain: tuple[Literal["bfloat16", "float32"], ...] = ()
    """Also time bench/plain.py in these dtypes, alternating with the other steps."""
    parts: tuple[Literal["train", "evaluation", "optimizer", "data"], ...] = (
        "train", "evaluation", "optimizer", "data",
    )  # fmt: skip
    """Parts to time."""
    seq_len: int | None = Field(default=None, ge=1)
    """Sequence length of random tokens if data_paths does not exist. null: that of the published data set."""
    vocab_size: int | None = Field(default=None, ge=2)
    """Vocabulary size of random tokens. null: that of the published data set."""
    matmul_size: int | None = Field(default=None, ge=1)
    """Rows and columns of the matrix product beside the steps. null: 8192 on CUDA, 4096 on MPS, 2048 on a CPU."""
    trace: str | None = None
    """Write a profile of one training step to this file (chrome://tracing, ui.perfetto.dev). null: none."""
    output: str | None = None
    """Append the results to this file as one line of JSON. null: only print them."""


class Bench:
    """Times one experiment on one device."""

    def __init__(self, config: BenchConfig, ranks: Ranks, machine: Machine):
        self.config, self.ranks, self.machine = config, ranks, machine
        self.device, self.say = machine.device, ranks.say
        self.batches, seq_len, vocab_size, puzzles = open_data(config, ranks)
        torch.manual_seed(config.seed)
        recompute = config.activation_checkpointing
        self.head = make_head(config.arch, vocab_size, seq_len, puzzles, recompute=recompute, dtype=machine.dtype).to(
            self.device
        )
        self.flops = flops_per_example(config.arch, vocab_size, seq_len) * config.global_batch_size
        self.figures: dict[str, float | str | int] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        self.acceleration = self.accelerate(self.head)
        self.figures |= {"compiled": self.acceleration.compiled, "fused": self.acceleration.fused}
        self.say(f"{machine}; {ranks.world_size} x {torch.get_num_threads()} threads\n{self.acceleration}")
        self.say(
            f"batch {config.global_batch_size}, {seq_len} tokens, "
            f"{count_parameters(self.head):,} parameters, {self.flops / 1e12:.3f} TFLOP a step"
        )

    def accelerate(self, head: ACTLossHead) -> Acceleration:
        """Accelerate a model as in a long run."""
        return accelerate(head.model, self.machine, work=self.flops * 1e6)

    def batch(self, index: int = 1) -> dict[str, Tensor]:
        return {key: value.to(self.device) for key, value in self.batches(index).items()}

    def time(self, function: Callable[[], object]) -> float:
        """Seconds of one call, including the work of the device, on the slowest process; all start together."""
        self.synchronize()
        barrier()
        started = time.perf_counter()
        function()
        self.synchronize()
        return largest_over_ranks(time.perf_counter() - started, self.device)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def matmul_rate(self) -> float:
        """FLOP/s of a square matrix product in the dtype of the run, best of ten, summed over all processes."""
        n = self.config.matmul_size or MATMUL_SIZE[self.device.type]
        a, b = (torch.randn(n, n, dtype=DTYPES[self.machine.dtype], device=self.device) for _ in range(2))
        return self.ranks.world_size * 2 * n**3 / min(self.time(lambda: a @ b) for _ in range(10))

    def report(self, name: str, seconds: list[float], amount: float, unit: str, flops: float = 0) -> None:
        """Print and store the best and the median of `seconds`.

        Args:
            name: name of the part.
            seconds: time of each call.
            amount, unit: amount of work per call and its unit, for the rate.
            flops: floating-point operations per call; 0 if not reported.
        """
        best, median = min(seconds), statistics.median(seconds)
        line = f"{name:34} {best * 1e3:10.2f} ms best {median * 1e3:10.2f} ms median {amount / best:12.1f} {unit}/s"
        self.figures |= {f"{name}/best_ms": best * 1e3, f"{name}/median_ms": median * 1e3}
        if flops:
            line += f" {flops / best / 1e12:9.3f} TFLOP/s"
            self.figures[f"{name}/tflops"] = flops / best / 1e12
        self.say(line)

    def train_state(self, head: ACTLossHead, config: BenchConfig, acceleration: Acceleration) -> TrainState:
        """The training state, set up as in a training run."""
        puzzle_emb = PuzzleEmbRates(config.puzzle_emb_lr, config.puzzle_emb_weight_decay)
        state = TrainState(head, config, self.ranks, 10**9, config.lr_warmup_steps, puzzle_emb)
        state.use_fast_update(acceleration)
        return state

    # -- the parts ---------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Time the training step, alternating with the matrix product and, if requested, the plain implementations."""
        config, rows = self.config, self.config.global_batch_size
        own_rows = rows // self.ranks.world_size
        plain_runs = {dtype: self.plain_trm(dtype) for dtype in config.plain}
        state = self.train_state(self.head, config, self.acceleration)
        self.head.train()
        batch = self.batch()
        first = self.time(lambda: state.train_step(batch))
        again = min(self.time(lambda: state.train_step(batch)) for _ in range(2))
        self.say(f"first step {first:.1f} s, of which compilation and other beginnings {max(0.0, first - again):.1f} s")
        self.figures["first_step_s"] = first
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

        ours: list[float] = []
        rates: list[float] = []
        others: dict[str, list[float]] = {dtype: [] for dtype in plain_runs}
        minimum = draw_min_steps(own_rows, 16, 0.1).to(self.device)
        for _ in range(config.repeats):
            rates.append(self.matmul_rate())
            ours.append(self.time(lambda: state.train_step(batch)))
            for dtype, other in plain_runs.items():
                others[dtype].append(self.time(lambda p=other: p.train_step(batch, minimum, config.lr, config.lr)))
        self.report("train step", ours, rows, "examples", self.flops)
        shares = [self.flops / seconds / rate for seconds, rate in zip(ours, rates, strict=True)]
        best = self.flops / min(ours) / max(rates)
        self.say(
            f"{self.machine.dtype} matrix product: {max(rates) / 1e12:.3f} TFLOP/s best, "
            f"{statistics.median(rates) / 1e12:.3f} median; "
            f"the step's share of it: {best:.3f} (best of each), {statistics.median(shares):.3f} (median of pairs)"
        )
        self.figures |= {
            "matmul_tflops": max(rates) / 1e12,
            "share_best": best,
            "share_median": statistics.median(shares),
        }
        if self.device.type == "cuda":
            gigabytes = torch.cuda.max_memory_allocated() / 1e9
            self.say(f"peak memory {gigabytes:.2f} GB")
            self.figures["peak_memory_gb"] = gigabytes
        for dtype, seconds in others.items():
            self.report(f"plain eager step, {dtype}", seconds, rows, "examples", self.flops)
            ratio = statistics.median(other / own for other, own in zip(seconds, ours, strict=True))
            self.say(f"  ratio to it: {ratio:.2f} (median of pairs), {min(seconds) / min(ours):.2f} (best of each)")
            self.figures[f"ratio_{dtype}"] = ratio
        if config.trace is not None:
            with torch.profiler.profile() as profile:
                state.train_step(batch)
                self.synchronize()
            if self.ranks.is_main:  # all ranks have the same path
                profile.export_chrome_trace(config.trace)
            key = "self_cuda_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
            self.say(profile.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60))
            self.say(f"trace: {config.trace}")

    def plain_trm(self, dtype: str) -> PlainTRM:
        if not isinstance(self.head.model, TinyRecursiveModel):
            raise UserError(f"plain is for TRM; arch.name is {self.config.arch.name}. Use plain=[].")
        config = self.head.model.config
        assert isinstance(config, ReasonerConfig)
        return PlainTRM(self.head.state_dict(), config, DTYPES[dtype])

    def evaluation(self) -> None:
        """Time one ACT step without gradients."""
        self.head.eval()
        batch = self.batch()
        with torch.inference_mode():
            carry = self.head.initial_carry(batch)
            seconds = [self.time(lambda: self.head.model(carry, batch)) for _ in range(self.config.repeats + 1)][1:]
        self.report("evaluation, one ACT step", seconds, self.config.global_batch_size, "example steps")

    def optimizer(self) -> None:
        """Time the optimizer with EMA, alternating with the same update written tensor by tensor."""
        loop = PlainOptimizer({name: p.detach().clone() for name, p in self.head.named_parameters()})
        head = copy_of(self.head)
        state = self.train_state(head, self.config.model_copy(update={"ema": True}), self.accelerate(head))
        ours, plain_loop = [], []
        for _ in range(self.config.repeats + 5):
            for parameter in (*state.parameters.values(), *loop.weights.values()):
                parameter.grad = torch.randn_like(parameter)
            ours.append(self.time(state.update))
            plain_loop.append(self.time(lambda: loop.update(self.config.lr)))
        count = sum(p.numel() for p in loop.weights.values())
        self.report("optimizer and EMA", ours[2:], count, "parameters")
        self.report("the same tensor by tensor", plain_loop[2:], count, "parameters")
        ratio = statistics.median(b / a for a, b in zip(ours[2:], plain_loop[2:], strict=True))
        self.say(f"  ratio to it: {ratio:.2f} (median of pairs)")
        self.figures["ratio_optimizer"] = ratio

    def data(self) -> None:
        """Time loading batches, as the training loop does."""
        seconds = [self.time(lambda i=i: self.batch(i)) for i in range(1, 4 * self.config.repeats + 1)]
        self.report("data", seconds[1:], self.config.global_batch_size, "examples")


def copy_of(head: ACTLossHead) -> ACTLossHead:
    """A head with the same weights that has never been compiled."""
    model = type(head.model)(head.model.config.model_dump())
    copied = ACTLossHead(model).to(next(head.parameters()).device)
    copied.load_state_dict(head.state_dict())
    return copied


def open_data(config: BenchConfig, ranks: Ranks) -> tuple[Callable[[int], dict[str, Tensor]], int, int, int]:
    """(batch by step, seq_len, vocab_size, number of puzzle identifiers) of data_paths, or of random tokens.

    Raises:
        UserError: data_paths does not exist, and the sizes of random tokens are not known.
    """
    if all(Path(path).exists() for path in config.data_paths):
        split = PuzzleSplit(config.data_paths, "train")
        shape = split.metadata
        augmentation = None
        if config.augmentation is not None:
            augmentation = open_augmentation(config.augmentation, split)
        batches = TrainBatches(split, config.global_batch_size, config.seed, ranks.rank, ranks.world_size, augmentation)
        ranks.say(f"data: {', '.join(config.data_paths)}")
        return (
            lambda step: {key: torch.as_tensor(value) for key, value in batches[step].items()},
            shape.seq_len,
            shape.vocab_size,
            split.num_puzzle_identifiers,
        )
    task = task_built_by(config.data_builder.module) if config.data_builder is not None else None
    published = task.published[0] if task is not None and task.published else (None, None)
    seq_len, vocab_size = config.seq_len or published[0], config.vocab_size or published[1]
    if seq_len is None or vocab_size is None:
        raise UserError(
            f"data_paths={config.data_paths} does not exist: build it, or give seq_len=... and vocab_size=... to time "
            "random tokens."
        )
    ranks.say(f"data: random tokens, because {config.data_paths[0]} does not exist")

    rows = config.global_batch_size // ranks.world_size

    def random_batch(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step * ranks.world_size + ranks.rank)
        shape = (rows, seq_len)
        return {
            "inputs": torch.randint(1, vocab_size, shape, generator=generator, dtype=torch.int32),
            "labels": torch.randint(1, vocab_size, shape, generator=generator, dtype=torch.int32),
            "puzzle_identifiers": torch.zeros(rows, dtype=torch.int32),
        }

    return random_batch, seq_len, vocab_size, 1


def run(config: BenchConfig) -> None:
    """Run one Hydra job."""
    torch.compiler.reset()  # count compilations separately for each job of a sweep
    ranks = launched_ranks()
    check_batch_size(config, ranks)
    machine, config = resolve_arch(config, ranks)
    with process_group(ranks, machine.device):
        bench = Bench(config, ranks, machine)
        for part in config.parts:
            getattr(bench, part)()
    if config.output is not None and ranks.is_main:
        described = {
            "experiment": HydraConfig.get().runtime.choices.get("experiment"),
            "arch": config.arch.model_dump(),
            "batch": config.global_batch_size,
            "seq_len": bench.head.model.config.seq_len,
            "vocab_size": bench.head.model.config.vocab_size,
            "device": str(machine.device),
            "processes": ranks.world_size,
        }
        with Path(config.output).open("a") as file:
            file.write(json.dumps(described | bench.figures) + "\n")


if __name__ == "__main__":
    hydra_main("cfg_pretrain", BenchConfig, run)
