"""Train a recursive language model on text.

    uv run python pretrain_text.py --config-name cfg_tinystories_1m
    uv run torchrun --nproc-per-node 8 pretrain_text.py --config-name cfg_tinystories_10m_moeut

Configuration: config/cfg_text.yaml and the cfg_tinystories_*.yaml made of it. `train` is the whole run, read top to
bottom.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from dataset.text.batches import Position, TextBatches, eval_batches
from dataset.text.documents import Documents, open_documents
from dataset.text.tokenizer import TextTokenizer, make_tokenizer
from evaluators.language import evaluate_language
from models.factory import check_arch, make_head
from models.text.loss import TextLossHead
from models.training import StepMetrics, TrainState
from utils.checkpoint import check_fits, load_weights
from utils.config import TextConfig, plain, validate
from utils.device import choose_compile, choose_device, choose_dtype
from utils.distributed import Ranks, barrier, broadcast_module, broadcast_object, launched_ranks, process_group
from utils.errors import UserError
from utils.hydra import hydra_main
from utils.logging import choose_wandb_mode
from utils.perf import StepTimer
from utils.run import (
    Say,
    check_batch_size,
    check_finite,
    line_of,
    open_log,
    plan_on_main,
    prepare_job,
    resume,
    save,
    warn_of_other_arch,
)
from utils.run_folder import RunPlan

# a resumed run must keep these: its state has their shape, or depends on them
MUST_AGREE = (
    "arch", "global_batch_size", "seed", "optimizer", "ema", "seq_len", "tokenizer", "max_vocab", "cap",
    "max_sequences",
)  # fmt: skip
# what the progress bar shows
SHOWN = {"loss": "train/lm_loss", "perplexity": "eval/perplexity", "tokens/s": "perf/tokens_per_second"}


def train(config: TextConfig) -> None:
    """One training run: text, model, steps with evaluations and checkpoints between them.

    Raises:
        UserError: something in the configuration, the text or the checkpoint does not fit.
    """
    # -- what can be checked without text or device
    ranks = launched_ranks()
    say = ranks.say
    check_batch_size(config, ranks)
    device, device_reason = choose_device(config.device, ranks.local_rank)
    dtype = config.arch.own_keys.get("forward_dtype", "float32")
    config.arch.forward_dtype, dtype_reason = choose_dtype(dtype, device)  # pyright: ignore[reportAttributeAccessIssue]
    check_arch(config.arch, data="text")

    with process_group(ranks, device):
        # -- the run folder and the text; rank 0 decides
        plan = plan_on_main(config, project_name(config), ranks)
        documents, held_out = open_text(config, ranks)
        tokenizer = choose_tokenizer(config, plan, documents, ranks)
        data = TextBatches(
            documents,
            tokenizer,
            seq_len=config.seq_len,
            global_batch_size=config.global_batch_size,
            seed=config.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
        held_out_batches = eval_batches(
            held_out,
            tokenizer,
            seq_len=config.seq_len,
            global_batch_size=config.global_batch_size,
            max_batches=config.eval_batches,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )

        # -- model, optimizer, averages
        torch.manual_seed(config.seed)
        head = make_head(config.arch, tokenizer.vocab_size, config.seq_len, data="text")
        assert isinstance(head, TextLossHead)
        if plan.weights is not None:
            start_from_weights(head, plan.weights, config, say)
        head.to(device)
        head.model.eval_max_steps = config.eval_halt_max_steps
        keep = head.model.config.halt_max_steps  # optimizer steps on each batch
        total_steps, eval_steps = plan_steps(config, keep)
        last_step = min(total_steps, config.max_steps or total_steps)
        state = TrainState(head, config.optimization(total_steps), ranks, total_steps)
        if plan.resume is not None:
            saved = resume(state, plan, config, MUST_AGREE, say)
            data.load_state_dict(saved["text"])
        broadcast_module(head)
        compiles, compile_reason = choose_compile(config.compile, device)
        if compiles:
            state.compile()
        head.train()

        wandb_mode, wandb_reason = choose_wandb_mode(config.wandb_mode)
        say(f"run: {plan.folder} ({plan.note})")
        say(f"text: {documents.describe()}; held out: {held_out.describe()}")
        say(f"tokenizer: {tokenizer.name}, {tokenizer.vocab_size:,} ids")
        say(f"device: {device} ({device_reason}); dtype: {config.arch.own_keys['forward_dtype']} ({dtype_reason})")
        say(f"compiled: {'yes' if compiles else 'no'} ({compile_reason})")
        say(f"W&B: {wandb_mode} ({wandb_reason})")
        say(f"model: {sum(p.numel() for p in head.parameters()):,} parameters; steps: {state.step} -> {last_step}")
        log = None
        if ranks.is_main:
            log = open_log(config, plan, state.step + 1, last_step, wandb_mode, SHOWN)
            tokenizer.save(plan.folder)

        # -- the loop: step, evaluate, log, save
        workers = config.num_workers if config.num_workers is not None else int(device.type == "cuda")
        steps = range(state.step + 1, last_step + 1)
        loader = DataLoader(
            Endless(data),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=tokenize_alone,
            pin_memory=device.type == "cuda",
        )
        metrics: dict[str, float] = {}
        # A step is read when the next one is under way, so that the device never waits for the host.
        unread: list[tuple[int, StepMetrics]] = []
        lag = int(device.type != "cpu")
        timer = StepTimer({"tokens": config.global_batch_size * config.seq_len}, 0, device)
        try:
            for step, batch, position in kept_batches(loader, data.state_dict(), steps, keep, device):
                timer.data_ready()
                unread.append((step, state.launch_step(batch)))
                evaluates = step in eval_steps or step == last_step
                saves = (
                    step == last_step
                    or (evaluates and config.checkpoint_every_eval)
                    or (config.checkpoint_every_steps and step % config.checkpoint_every_steps == 0)
                )
                while len(unread) > (0 if evaluates or saves else lag):
                    done, launched = unread.pop(0)
                    metrics, perf = launched.read(), timer.step_done()
                    check_finite(metrics, done)
                    metrics["train/sequences"] = -(-done // keep) * config.global_batch_size
                    if evaluates and done == step:
                        with state.averaged():
                            metrics |= evaluate_language(head, held_out_batches, device)
                    if log is not None:
                        log.step(done, metrics, perf)
                if saves:
                    save(config, state, plan, {"text": position})
                if evaluates or saves:
                    timer.restart()
        finally:
            if log is not None:
                log.close()
        found = {key: value for key, value in metrics.items() if key.startswith("eval/")}
        say(f"done: step {state.step}; {line_of(found) if found else 'nothing was left to do'}")
        say(f"files: {plan.folder}")


def project_name(config: TextConfig) -> str:
    """The project of a run that names none."""
    return "text" if config.data_files else config.data_name.split("/")[-1]


def open_text(config: TextConfig, ranks: Ranks) -> tuple[Documents, Documents]:
    """The documents to train on and those held out; rank 0 fetches what is missing before the others look."""
    if not ranks.is_main:
        barrier()
    found = open_documents(
        config.data_files or config.data_name,
        validation=config.data_files_test or None,
        held_out=config.held_out,
        streaming=config.streaming,
        cache_folder=config.data_cache,
    )
    if ranks.is_main:
        barrier()
    return found


def choose_tokenizer(config: TextConfig, plan: RunPlan, documents: Documents, ranks: Ranks) -> TextTokenizer:
    """The tokenizer of the checkpoint to start from, whose ids are the rows of its embedding, else one made here.

    Raises:
        UserError: the checkpoint's is missing, or not the one that the configuration asks for.
    """
    if plan.source is None:
        made = None
        if ranks.is_main:
            made = make_tokenizer(
                config.tokenizer,
                vocab_file=config.vocab_file,
                merges_file=config.merges_file,
                max_vocab=config.max_vocab,
                cap=config.cap,
                sample=islice(documents, config.cap_sample),
            )
        made = broadcast_object(made)
        assert made is not None
        return made
    tokenizer = TextTokenizer.load(plan.source)
    own = {"tokenizer": tokenizer.name, "cap": tokenizer.cap, "max_vocab": tokenizer.vocab_size}
    wanted = {"tokenizer": config.tokenizer, "cap": config.cap, "max_vocab": config.max_vocab}
    differ = [key for key, value in wanted.items() if None not in (value, own[key]) and own[key] != value]
    if differ:
        raise UserError(
            f"{plan.source}: the checkpoint was trained with another vocabulary: "
            + ", ".join(f"{key}={own[key]}, here {key}={wanted[key]}" for key in differ)
            + ". Its embedding means its own ids: leave these keys as they were."
        )
    return tokenizer


def plan_steps(config: TextConfig, keep: int) -> tuple[int, set[int]]:
    """(optimizer steps, those after which to evaluate), where each batch is kept for `keep` steps.

    Evaluations come with the first batch that reaches a multiple of eval_interval sequences.
    """
    size, interval = config.global_batch_size, config.eval_interval or config.max_sequences
    batches = config.max_sequences // size
    if batches < 1:
        raise UserError(
            f"max_sequences={config.max_sequences} make no whole batch of global_batch_size={size}: use more sequences "
            "or a smaller batch."
        )
    evaluations = {
        batch for batch in range(1, batches + 1) if batch * size // interval > (batch - 1) * size // interval
    }
    return batches * keep, {batch * keep for batch in evaluations}


class Endless(IterableDataset):
    """Batches in the form in which a DataLoader takes them."""

    def __init__(self, batches: TextBatches):
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[dict[str, np.ndarray], Position]]:
        return iter(self.batches)


def tokenize_alone(worker: int) -> None:
    """Keep the tokenizers library to one thread in a loading process: after a fork it would warn of its threads."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def kept_batches(
    loader: Iterable[tuple[dict[str, Tensor], Position]],
    start: Position,
    steps: range,
    keep: int,
    device: torch.device,
) -> Iterator[tuple[int, dict[str, Tensor], Position]]:
    """(step, batch, position) for every step, each batch for `keep` steps.

    A position is where the text stands for a run that is resumed after this step: behind the batch, or before it while
    it is kept further.

    Args:
        loader: pairs of a batch and the position behind it.
        start: the position before the first of them.
        steps: optimizer steps to be made, counted from 1; the first may be in the middle of a batch.
        keep: steps on each batch.
        device: where the batches go.
    """
    batches = iter(loader)
    batch: dict[str, Tensor] = {}
    position = behind = start
    for step in steps:
        if not batch or (step - 1) % keep == 0:
            tensors, behind = next(batches)
            batch = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        if step % keep == 0:
            position = behind
        yield step, batch, position


def start_from_weights(head: TextLossHead, path: Path, config: TextConfig, say: Say = print) -> None:
    """Load weights alone."""
    weights = load_weights(path)
    warn_of_other_arch(path.parent / "all_config.yaml", config.arch, say)
    check_fits(weights, head, path)
    head.load_state_dict(weights)


def run(composed: DictConfig) -> None:
    """One Hydra job."""
    config = validate(TextConfig, plain(composed))
    prepare_job(config)
    train(config)


if __name__ == "__main__":
    hydra_main("cfg_tinystories_1m", run)
