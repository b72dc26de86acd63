"""Train a recursive reasoner on puzzles.

    uv run python pretrain.py experiment=quickstart
    uv run torchrun --nproc-per-node 8 pretrain.py experiment=sudoku_extreme_mlp

Configuration: config/cfg_pretrain.yaml. `train` is the whole run, read top to bottom.
"""

import importlib
from pathlib import Path

import torch
from omegaconf import DictConfig

from dataset.augment import make_augmentation
from dataset.device_feed import device_batches, stays_on_device
from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from evaluators.answers import HaltRule
from evaluators.evaluation import (
    Evaluator,
    check_save_outputs,
    evaluate_split,
    make_evaluators,
    picture_example,
)
from models.factory import PUZZLE_TABLE, check_arch, make_head
from models.flops import flops_per_example
from models.losses import ACTLossHead
from models.training import StepMetrics, TrainState
from utils.checkpoint import check_fits, load_weights
from utils.config import PretrainConfig, plain, validate
from utils.data_record import FILE as DATA_RECORD
from utils.data_record import check_same_data, same_puzzles, write_data_record
from utils.device import choose_compile, choose_device, choose_dtype
from utils.distributed import Ranks, barrier, broadcast_module, errors_of_rank_0, launched_ranks, process_group
from utils.errors import UserError
from utils.hydra import hydra_main
from utils.logging import RunLog, choose_wandb_mode
from utils.perf import StepTimer
from utils.run import (
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
    "arch", "global_batch_size", "seed", "optimizer", "ema", "freeze_weights", "data_paths", "augmentation", "epochs",
)  # fmt: skip
# what the progress bar shows
SHOWN = {"loss": "train/lm_loss", "exact": "train/exact_accuracy", "examples/s": "perf/examples_per_second"}


def train(config: PretrainConfig) -> None:
    """One training run: data, model, steps with evaluations and checkpoints between them, a closing picture.

    Raises:
        UserError: something in the configuration, the data or the checkpoint does not fit.
    """
    # -- what can be checked without data or device
    ranks = launched_ranks()
    say = ranks.say
    check_batch_size(config, ranks)
    check_save_outputs(config.eval_save_outputs)
    device, device_reason = choose_device(config.device, ranks.local_rank)
    dtype = config.arch.own_keys.get("forward_dtype", "bfloat16")
    config.arch.forward_dtype, dtype_reason = choose_dtype(dtype, device)  # pyright: ignore[reportAttributeAccessIssue]
    check_arch(config.arch)

    with process_group(ranks, device):
        # -- data
        if ranks.is_main:
            build_missing_data(config)
        barrier()
        with errors_of_rank_0():  # which alone reads all tokens to check them
            train_split = PuzzleSplit(config.data_paths, "train", check_tokens=ranks.is_main)
            test_split = open_test_split(config, train_split, ranks)
        metadata = train_split.metadata
        augmentation = None
        if config.augmentation is not None:
            augmentation = make_augmentation(config.augmentation, metadata.seq_len, metadata.vocab_size)
        batches = TrainBatches(
            train_split, config.global_batch_size, config.seed, ranks.rank, ranks.world_size, augmentation
        )
        total_steps, eval_steps = plan_steps(config, train_split)
        last_step = min(total_steps, config.max_steps or total_steps)
        evaluators: dict[Path, list[Evaluator]] = {}
        if test_split is not None:
            for source in test_split.sources:
                evaluators[source.root] = make_evaluators(config.evaluators, source.root, source.metadata)

        # -- the run folder; rank 0 decides
        plan = plan_on_main(config, f"{Path(config.data_paths[0]).name.capitalize()}-ACT-torch", ranks)

        # -- model, optimizers, averages
        torch.manual_seed(config.seed)
        head = make_head(config.arch, metadata.vocab_size, metadata.seq_len, train_split.num_puzzle_identifiers)
        if plan.weights is not None:
            start_from_weights(head, plan.weights, config, train_split, say)
        head.to(device)
        head.model.eval_max_steps = config.eval_halt_max_steps
        state = TrainState(head, config, ranks, total_steps)
        if plan.resume is not None:
            check_data_of_resume(plan, config, say)
            resume(state, plan, config, MUST_AGREE, say)
        broadcast_module(head)
        step_flops = config.global_batch_size * flops_per_example(config.arch, metadata.vocab_size, metadata.seq_len)
        compiles, compile_reason = choose_compile(config.compile, device, total_steps * step_flops)
        fuses, fuse_reason = state.fuse(config.compile)
        if compiles:
            state.compile()
        head.train()

        resident, resident_reason = stays_on_device(config.data_on_device, batches, device)
        wandb_mode, wandb_reason = choose_wandb_mode(config.wandb_mode)
        say(f"run: {plan.folder} ({plan.note})")
        say(f"device: {device} ({device_reason}); dtype: {config.arch.own_keys['forward_dtype']} ({dtype_reason})")
        say(f"compiled: {'yes' if compiles else 'no'} ({compile_reason})")
        say(f"fused operators: {'yes' if fuses else 'no'} ({fuse_reason})")
        say(f"W&B: {wandb_mode} ({wandb_reason})")
        say(f"training data: {'on the device' if resident else 'loaded step by step'} ({resident_reason})")
        say(f"model: {sum(p.numel() for p in head.parameters()):,} parameters; steps: {state.step} -> {last_step}")
        log = None
        if ranks.is_main:
            log = open_log(config, plan, state.step + 1, last_step, wandb_mode, SHOWN)
            write_data_record(plan.folder, [s.root for s in train_split.sources], train_split.num_puzzle_identifiers)

        # -- the loop: step, evaluate, log, save
        workers = config.num_workers if config.num_workers is not None else int(device.type == "cuda")
        steps = range(state.step + 1, last_step + 1)
        feed = device_batches(batches, steps, device, resident, workers)
        metrics: dict[str, float] = {}
        # A step is read when the next one is under way, so that the device never waits for the host.
        unread: list[tuple[int, StepMetrics]] = []
        lag = int(device.type != "cpu")
        timer = StepTimer({"examples": config.global_batch_size}, step_flops, device)
        try:
            for step, batch in zip(steps, feed, strict=True):
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
                    if test_split is not None and evaluates and done == step:
                        found = evaluate(config, state, test_split, evaluators, device, plan.folder)
                        metrics |= found
                        if log is not None:
                            log.say(f"evaluated after step {step}: {line_of(found)}")
                    if log is not None:
                        log.step(done, metrics, perf)
                if log is not None and evaluates:
                    for picture in sorted(evaluation_folder(plan.folder, step).glob("**/*.png")):
                        log.picture(f"pictures/{picture.stem}", picture, step)
                if saves:
                    save(config, state, plan)
                if evaluates or saves:
                    timer.restart()

            # -- what came out
            if log is not None and test_split is not None and config.show_example:
                show_example(state, test_split, device, plan.folder, log)
        finally:
            if log is not None:
                log.close()
        found = {key: value for key, value in metrics.items() if not key.startswith(("train/", "optim/"))}
        say(f"done: step {state.step}; {line_of(found) if found else 'no evaluation'}")
        say(f"files: {plan.folder}")


def build_missing_data(config: PretrainConfig) -> None:
    """Make data_paths[0] with the experiment's builder, or say which command makes it."""
    missing = [path for path in config.data_paths if not Path(path).exists()]
    missing_test = [path for path in config.data_paths_test if not Path(path).exists()]
    builder = config.data_builder
    if missing_test or (missing and (builder is None or missing != config.data_paths[:1])):
        key, path = ("data_paths_test", missing_test[0]) if missing_test else ("data_paths", missing[0])
        raise UserError(
            f"{key}: {path} does not exist (from {Path.cwd()}). Correct the path, or build the data, for example with\n"
            f"  {_build_command(path)}"
        )
    if not missing or builder is None:
        return
    try:
        module = importlib.import_module(builder.module)
    except ModuleNotFoundError:
        raise UserError(f"data_builder.module={builder.module!r}: no such module; see dataset/build_*.py.") from None
    options = validate(module.Config, {**builder.options, "output_dir": missing[0]}, where="data_builder.options.")
    print(f"building {missing[0]} with {builder.module}")
    module.build(options)


def _build_command(path: str) -> str:
    for kind in ("sudoku", "maze", "arithmetic"):
        if kind in path.lower():
            return f"python -m dataset.build_{kind}_dataset --output-dir {path}"
    if "arc" in path.lower():
        return (
            f"python -m dataset.build_arc_dataset --output-dir {path} --input-file-prefix kaggle/combined/arc-agi "
            "--subsets training evaluation concept --test-set-name evaluation"
        )
    return f"python -m dataset.build_sudoku_dataset --output-dir {path}  (or another dataset.build_*)"


def open_test_split(config: PretrainConfig, train_split: PuzzleSplit, ranks: Ranks) -> PuzzleSplit | None:
    """The data to evaluate on: data_paths_test, else the test splits of data_paths, else None."""
    paths = config.data_paths_test
    if not paths:
        paths = [path for path in config.data_paths if (Path(path) / "test").exists()]
        for path in config.data_paths:
            if path not in paths:
                ranks.say(f"note: {path} has no test split, so there is no evaluation on it")
    return PuzzleSplit(paths, "test", like=train_split, check_tokens=ranks.is_main) if paths else None


def plan_steps(config: PretrainConfig, split: PuzzleSplit) -> tuple[int, set[int]]:
    """(total steps, steps after which to evaluate).

    total = int(epochs * total_groups * mean_puzzle_examples / global_batch_size).
    """
    per_epoch = split.examples_per_epoch / config.global_batch_size
    total = int(config.epochs * per_epoch)
    if total < 1:
        raise UserError(
            f"epochs={config.epochs} of {split.examples_per_epoch:g} examples make no whole batch of "
            f"global_batch_size={config.global_batch_size}: use more epochs or a smaller batch."
        )
    interval = config.eval_interval or config.epochs
    evaluations = range(config.min_eval_interval or 0, config.epochs // interval)
    return total, {int((index + 1) * interval * per_epoch) for index in evaluations} & set(range(1, total + 1))


def start_from_weights(head: ACTLossHead, path: Path, config: PretrainConfig, split: PuzzleSplit, say=print) -> None:
    """Load weights alone; a puzzle table of another size or of other puzzles is filled with the mean of its rows."""
    weights = load_weights(path)
    warn_of_other_arch(path.parent / "all_config.yaml", config.arch, say)
    check_fits(weights, head, path, skip=(PUZZLE_TABLE,))
    if PUZZLE_TABLE in weights:
        rows, width = head.state_dict()[PUZZLE_TABLE].shape
        loaded = weights[PUZZLE_TABLE]
        if loaded.shape[1] != width:
            raise UserError(f"{path}: puzzle embeddings of width {loaded.shape[1]}, arch.puzzle_emb_ndim is {width}.")
        roots = [source.root for source in split.sources]
        has_record = (path.parent / DATA_RECORD).exists()  # published checkpoints have none
        if len(loaded) != rows or (has_record and not same_puzzles(path.parent, roots)):
            say(f"puzzle table: {len(loaded)} rows in the checkpoint, {rows} of other puzzles here: all rows start at "
                "the mean of it")  # fmt: skip
            weights[PUZZLE_TABLE] = loaded.mean(0, keepdim=True).expand(rows, -1)
    head.load_state_dict(weights)


def check_data_of_resume(plan: RunPlan, config: PretrainConfig, say=print) -> None:
    """Refuse to go on with other data than those of the checkpoint; say what of the evaluation starts anew."""
    assert plan.resume is not None
    check_same_data(plan.resume[0], [Path(path) for path in config.data_paths])
    if any(evaluator.model_extra and evaluator.model_extra.get("aggregated_voting") for evaluator in config.evaluators):
        say("note: aggregated_voting starts anew; the votes of evaluations before the resume are not in it")


def evaluate(
    config: PretrainConfig,
    state: TrainState,
    split: PuzzleSplit,
    evaluators: dict[Path, list[Evaluator]],
    device: torch.device,
    folder: Path,
) -> dict[str, float]:
    """Metrics `{set}/{name}` of the averages (when they are on) on the test data."""
    halting = HaltRule(config.eval_halt_threshold, config.eval_halt_unchanged) if config.eval_early_halting else None
    with state.averaged():
        results = evaluate_split(
            state.head,
            split,
            config.evaluators,
            device=device,
            ranks=state.ranks,
            global_batch_size=config.eval_batch_size or config.global_batch_size,
            max_examples=config.eval_max_examples,
            halting=halting,
            fixed_sizes=state.head.model.compiled,
            save_outputs=config.eval_save_outputs,
            save_path=evaluation_folder(folder, state.step),
            made=evaluators,
        )
    metrics: dict[str, float] = {}
    for name, result in results.items():
        metrics |= {f"{name}/{key}": value for key, value in result.metrics.items()}
        prefix = "" if len(results) == 1 else f"{name}/"
        metrics |= {f"{prefix}{key}": value for key, value in result.task_metrics.items()}
    return metrics


def evaluation_folder(folder: Path, step: int) -> Path:
    """Where evaluators write (submission.json, pictures) and eval_save_outputs goes."""
    return folder / f"evaluation_step_{step}"


def show_example(state: TrainState, split: PuzzleSplit, device: torch.device, folder: Path, log: RunLog) -> None:
    """Print and draw how the model solves a held-out puzzle."""
    path = folder / "example.png"
    with state.averaged():
        picture = picture_example(state.head, split.sources[0], device, path, min(64, state.config.global_batch_size))
    if picture is None:
        log.say("no picture of an example: there is none for this kind of data")
    else:
        log.picture("example", path, state.step)
        log.say(picture)


def run(composed: DictConfig) -> None:
    """One Hydra job."""
    config = validate(PretrainConfig, plain(composed))
    prepare_job(config)
    train(config)


if __name__ == "__main__":
    hydra_main("cfg_pretrain", run)
