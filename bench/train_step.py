"""Time the parts of any experiment: training step, evaluation, optimizer, data.

    uv run python bench/train_step.py experiment=sudoku_extreme_mlp device=cuda
    uv run python bench/train_step.py experiment=sudoku_extreme_mlp global_batch_size=32 plain=[bfloat16,float32]
    uv run python bench/train_step.py experiment=maze_hard global_batch_size=8 trace=step.json
    uv run python bench/train_step.py -m experiment=sudoku_extreme_mlp global_batch_size=8,16,32 output=scaling.jsonl
    uv run torchrun --nproc-per-node 2 bench/train_step.py experiment=maze_hard global_batch_size=8 device=cpu

All keys of pretrain.py, and those of `BenchConfig`. Where data_paths is missing, tokens are random, at the same cost.
The rate of a bf16 matrix product is measured between the steps, because machines change their pace; shares are of it.
Under torchrun the processes time the same thing at the same time: the slowest counts, and rates are sums over them.
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
from omegaconf import DictConfig
from pydantic import Field
from torch import Tensor

from bench.plain import PlainOptimizer, PlainTRM
from dataset.augment import make_augmentation
from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from models.act import draw_min_steps
from models.factory import check_arch, make_head
from models.flops import flops_per_example
from models.losses import ACTLossHead
from models.recursive_reasoning.trm import TinyRecursiveModel
from models.training import TrainState
from utils.config import PretrainConfig, plain, validate
from utils.device import choose_compile, choose_device, choose_dtype
from utils.distributed import Ranks, barrier, largest_over_ranks, launched_ranks, process_group
from utils.errors import UserError
from utils.hydra import hydra_main
from utils.run import check_batch_size

MATMUL_SIZE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
KNOWN_SHAPES = {"sudoku": (81, 11), "maze": (900, 6), "arc": (900, 12)}  # (seq_len, vocab_size) of the published data
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class BenchConfig(PretrainConfig):
    """cfg_pretrain.yaml and what to time."""

    repeats: int = Field(default=5, ge=1)  # timed steps of each kind, in turn
    plain: tuple[Literal["bfloat16", "float32"], ...] = ()  # time bench/plain.py in these dtypes too, in turn
    parts: tuple[Literal["train", "evaluation", "optimizer", "data"], ...] = (
        "train", "evaluation", "optimizer", "data",
    )  # fmt: skip
    seq_len: int | None = Field(default=None, ge=1)  # of random tokens, where data_paths is missing
    vocab_size: int | None = Field(default=None, ge=2)
    trace: str | None = None  # write a profile of one training step here (chrome://tracing, ui.perfetto.dev)
    output: str | None = None  # append the figures to this file as one line of JSON


class Bench:
    """One experiment on one device."""

    def __init__(self, config: BenchConfig, ranks: Ranks, device: torch.device, reason: str):
        self.config, self.ranks, self.device, self.say = config, ranks, device, ranks.say
        dtype, dtype_reason = choose_dtype(config.arch.own_keys.get("forward_dtype", "bfloat16"), self.device)
        config.arch.forward_dtype = dtype  # pyright: ignore[reportAttributeAccessIssue]
        check_arch(config.arch)
        self.batches, seq_len, vocab_size, puzzles = open_data(config, ranks)
        torch.manual_seed(config.seed)
        self.head = make_head(config.arch, vocab_size, seq_len, puzzles).to(self.device)
        self.flops = flops_per_example(config.arch, vocab_size, seq_len) * config.global_batch_size
        self.figures: dict[str, float | str | int] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        work = self.flops * 1e6  # as in a long run
        self.compiles, compile_reason = choose_compile(config.compile, self.device, work)
        self.say(f"device: {self.device} ({reason}); {ranks.world_size} x {torch.get_num_threads()} threads")
        self.say(f"dtype: {dtype} ({dtype_reason})")
        self.say(f"compiled: {'yes' if self.compiles else 'no'} ({compile_reason})")
        fuses, fuse_reason = self.head.model.fuse(config.compile)
        self.figures |= {"compiled": self.compiles, "fused": fuses}
        self.say(f"fused operators: {'yes' if fuses else 'no'} ({fuse_reason})")
        self.say(
            f"batch {config.global_batch_size}, {seq_len} tokens, "
            f"{sum(p.numel() for p in self.head.parameters()):,} parameters, {self.flops / 1e12:.3f} TFLOP a step"
        )

    def batch(self, index: int = 1) -> dict[str, Tensor]:
        return {key: value.to(self.device) for key, value in self.batches(index).items()}

    def time(self, function: Callable[[], object]) -> float:
        """Seconds of one call, the device's work included: of the slowest process, all beginning together."""
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
        """FLOP/s of a square bf16 matrix product, the best of ten, on all processes together."""
        n = MATMUL_SIZE[self.device.type]
        a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=self.device) for _ in range(2))
        return self.ranks.world_size * 2 * n**3 / min(self.time(lambda: a @ b) for _ in range(10))

    def report(self, name: str, seconds: list[float], amount: float, unit: str, flops: float = 0) -> None:
        """Print and keep the best and the median of `seconds`."""
        best, median = min(seconds), statistics.median(seconds)
        line = f"{name:34} {best * 1e3:10.2f} ms best {median * 1e3:10.2f} ms median {amount / best:12.1f} {unit}/s"
        self.figures |= {f"{name}/best_ms": best * 1e3, f"{name}/median_ms": median * 1e3}
        if flops:
            line += f" {flops / best / 1e12:9.3f} TFLOP/s"
            self.figures[f"{name}/tflops"] = flops / best / 1e12
        self.say(line)

    def train_state(self, head: ACTLossHead, config: BenchConfig) -> TrainState:
        """Made ready as a training run makes it."""
        state = TrainState(head, config, self.ranks, total_steps=10**9)
        state.fuse(config.compile)
        if self.compiles:
            state.compile()
        return state

    # -- the parts ---------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """The training step in turn with the matrix product and, where asked for, with the plain implementations."""
        config, rows = self.config, self.config.global_batch_size
        own_rows = rows // self.ranks.world_size
        plain_runs = {dtype: self.plain_trm(dtype) for dtype in config.plain}
        state = self.train_state(self.head, config)
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
            f"bf16 matrix product: {max(rates) / 1e12:.3f} TFLOP/s best, {statistics.median(rates) / 1e12:.3f} median; "
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
            if self.ranks.is_main:  # the others have the same path
                profile.export_chrome_trace(config.trace)
            key = "self_cuda_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
            self.say(profile.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60))
            self.say(f"trace: {config.trace}")

    def plain_trm(self, dtype: str) -> PlainTRM:
        if not isinstance(self.head.model, TinyRecursiveModel):
            raise UserError(f"plain is for TRM; arch.name is {self.config.arch.name}. Use plain=[].")
        return PlainTRM(self.head.state_dict(), self.head.model.config, DTYPES[dtype])

    def evaluation(self) -> None:
        """One ACT step without gradient."""
        self.head.eval()
        batch = self.batch()
        with torch.inference_mode():
            carry = self.head.initial_carry(batch)
            seconds = [self.time(lambda: self.head.model(carry, batch)) for _ in range(self.config.repeats + 1)][1:]
        self.report("evaluation, one ACT step", seconds, self.config.global_batch_size, "example steps")

    def optimizer(self) -> None:
        """Optimizer with EMA, in turn with the same update written tensor by tensor."""
        loop = PlainOptimizer({name: p.detach().clone() for name, p in self.head.named_parameters()})
        state = self.train_state(copy_of(self.head), self.config.model_copy(update={"ema": True}))
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
        """Batches as the loop takes them."""
        seconds = [self.time(lambda i=i: self.batch(i)) for i in range(1, 4 * self.config.repeats + 1)]
        self.report("data", seconds[1:], self.config.global_batch_size, "examples")


def copy_of(head: ACTLossHead) -> ACTLossHead:
    """A head of the same weights that was never compiled."""
    model = type(head.model)(head.model.config.model_dump())
    copied = ACTLossHead(model).to(next(head.parameters()).device)
    copied.load_state_dict(head.state_dict())
    return copied


def open_data(config: BenchConfig, ranks: Ranks) -> tuple[Callable[[int], dict[str, Tensor]], int, int, int]:
    """(batch by step, seq_len, vocab_size, puzzle identifiers) of data_paths, or of random tokens."""
    if all(Path(path).exists() for path in config.data_paths):
        split = PuzzleSplit(config.data_paths, "train")
        shape = split.metadata
        augmentation = None
        if config.augmentation is not None:
            augmentation = make_augmentation(config.augmentation, shape.seq_len, shape.vocab_size)
        batches = TrainBatches(split, config.global_batch_size, config.seed, ranks.rank, ranks.world_size, augmentation)
        ranks.say(f"data: {', '.join(config.data_paths)}")
        return (
            lambda step: {key: torch.as_tensor(value) for key, value in batches[step].items()},
            shape.seq_len,
            shape.vocab_size,
            split.num_puzzle_identifiers,
        )
    known = next((shape for word, shape in KNOWN_SHAPES.items() if word in config.data_paths[0]), (None, None))
    seq_len, vocab_size = config.seq_len or known[0], config.vocab_size or known[1]
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


def run(composed: DictConfig) -> None:
    """One Hydra job."""
    torch.compiler.reset()  # each job of a sweep counts its compilations anew
    config = validate(BenchConfig, plain(composed))
    ranks = launched_ranks()
    check_batch_size(config, ranks)
    device, reason = choose_device(config.device, ranks.local_rank)
    with process_group(ranks, device):
        bench = Bench(config, ranks, device, reason)
        for part in config.parts:
            getattr(bench, part)()
    if config.output is not None and ranks.is_main:
        described = {
            "arch": config.arch.model_dump(),
            "batch": config.global_batch_size,
            "seq_len": bench.head.model.config.seq_len,
            "device": str(device),
            "processes": ranks.world_size,
        }
        with Path(config.output).open("a") as file:
            file.write(json.dumps(described | bench.figures) + "\n")


if __name__ == "__main__":
    hydra_main("cfg_pretrain", run)
