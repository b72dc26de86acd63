"""Train a recursive reasoner on puzzles.

    uv run python pretrain.py experiment=quickstart
    uv run torchrun --nproc-per-node 8 pretrain.py experiment=sudoku_extreme_mlp
    uv run python pretrain.py experiment=own_task task=path/to/task.py     (docs/your_own_task.md)

Settings: docs/configuration.md, or --help. `train` is the whole run, from top to bottom.
"""

import torch

from dataset.device_feed import device_batches, stays_on_device
from dataset.opening import open_puzzles, plan_epochs
from dataset.task_choice import task_overrides
from evaluators.during_training import TrainingEvaluation
from evaluators.evaluation import check_save_outputs
from evaluators.report.page import report_at_end
from models.acceleration import accelerate
from models.factory import comparable_config, count_parameters, make_head, resolve_arch, with_board
from models.flops import flops_of_run
from models.memory import say_memory
from models.pretrained import start_from_weights
from models.training import PuzzleEmbRates, TrainState
from utils.distributed import broadcast_module, launched_ranks
from utils.divergence import explained_divergence, largest_loss, train_through
from utils.hydra import hydra_main
from utils.run import (
    OWED,
    Owed,
    check_batch_size,
    format_metrics,
    log_step,
    open_log,
    plan_on_main,
    prepare_job,
    resume,
    save,
)  # fmt: skip
from utils.run_control import RunControl
from utils.schedule import StepReader, make_schedule, say_if_short
from utils.settings import PretrainConfig

# a resume must not change these, because the saved state depends on them
KEYS_FIXED_ON_RESUME = (
    "arch", "global_batch_size", "seed", "optimizer", "ema", "freeze_weights", "augmentation", "epochs",
)  # fmt: skip
# what the progress bar shows
SHOWN = {"loss": "train/lm_loss", "exact": "train/exact_accuracy", "examples/s": "perf/examples_per_second"}


def train(config: PretrainConfig) -> None:
    """One training run: data, model, steps with evaluations and checkpoints between them, and a final picture.

    Raises:
        UserError: the configuration, the data or the checkpoint cannot be used.
    """
    # -- what can be checked without data
    ranks = launched_ranks()
    say = ranks.say
    check_batch_size(config, ranks)
    check_save_outputs(config.eval_save_outputs)
    machine, config = resolve_arch(config, ranks)
    device, size, recompute = machine.device, config.global_batch_size, config.activation_checkpointing

    with RunControl(config, ranks, device) as control:
        # -- data, length, and the run folder, which rank 0 chooses
        data = open_puzzles(config, ranks)
        config = with_board(config, data.board)
        arch, shape, num_puzzles = config.arch, data.metadata, data.train.num_puzzle_identifiers
        schedule = make_schedule(config, *plan_epochs(config, data.train))
        evaluation = TrainingEvaluation(config, data.test, device, ranks) if data.test is not None else None
        plan = plan_on_main(config, data.project_name, machine, comparable_config, control)

        # -- model, optimizers, averages
        torch.manual_seed(config.seed)
        head = make_head(arch, shape.vocab_size, shape.seq_len, num_puzzles, recompute=recompute, dtype=machine.dtype)
        if plan.weights is not None:
            start_from_weights(head, plan.weights, arch, data.same_puzzles(plan.weights.parent), say)
        head.to(device)
        puzzle_emb = PuzzleEmbRates(config.puzzle_emb_lr, config.puzzle_emb_weight_decay)
        warmup_steps, frozen = config.lr_warmup_steps, config.freeze_weights
        state = TrainState(head, config, ranks, schedule.total_steps, warmup_steps, puzzle_emb, frozen, plan.skipped)
        owed: Owed = {}  # the step whose evaluation a signal has broken off
        if plan.resume is not None:
            # data that are known to be the same may lie elsewhere
            fixed = KEYS_FIXED_ON_RESUME + (() if data.check_same(plan.resume[0]) else ("data_paths",))
            for note in evaluation.notes_on_resume() if evaluation is not None else []:
                say(f"note: {note}")
            owed = resume(state, plan, config, fixed, comparable_config, say).get(OWED, {})
        broadcast_module(head)  # no rank may start with other weights than rank 0
        work, step_flops = flops_of_run(arch, shape.vocab_size, shape.seq_len, size, schedule.total_steps)
        acceleration = accelerate(head.model, machine, work)
        state.use_fast_update(acceleration)
        head.train()

        # -- the log
        resident, resident_reason = stays_on_device(config.data_on_device, data.batches, device)
        say(f"run: {plan.folder} ({plan.note})\n{machine}\n{acceleration}")
        say_memory(config, shape, num_puzzles, ranks.world_size, machine, acceleration, say)
        say(f"training data: {'on the device' if resident else 'loaded step by step'} ({resident_reason})")
        say(f"model: {count_parameters(head):,} parameters; steps: {state.step} -> {schedule.last_step}")
        say_if_short(config, schedule.last_step, warmup_steps, say)
        steps = schedule.after(state.step)
        log = open_log(config, plan, range(owed.get("step", steps.start), steps.stop), SHOWN, ranks)
        if ranks.is_main:
            data.write_record(plan.folder)

        # -- the loop: step, evaluate, log, save
        workers = config.num_workers if config.num_workers is not None else int(device.type == "cuda")
        feed = device_batches(data.batches, steps, device, resident, workers)
        reader = StepReader({"examples": size}, step_flops, device, largest_loss(config, shape.vocab_size), control)
        metrics: dict[str, float] = owed.get("metrics", {})
        with explained_divergence(config, plan, data.batches.names, ranks), log, control.loop(schedule, plan):
            if owed:  # the evaluation that a signal broke off
                due = evaluation and evaluation.due(state, plan, control, goes_on=True)
                log_step(log, control, **owed, due=due)
                if control.stops(state.step):
                    return
            for step, batch in zip(steps, feed, strict=True):
                reader.data_ready()
                reader.add(step, state.launch_step(batch, control.asks))
                evaluates, saves = schedule.evaluates(step), schedule.saves(step)
                # on GPUs a step is read one step later, so that the device never waits for the host
                for done, metrics, perf in reader.ready(all_steps=evaluates or saves):
                    due = evaluation.due(state, plan, control) if evaluation and evaluates and done == step else None
                    owed = log_step(log, control, done, metrics, perf, due)
                saves = saves or control.saves
                if saves:
                    save(config, state, plan, control, {OWED: owed})
                if evaluates or saves:
                    reader.restart()
                if control.stops(step):
                    return  # and the end of the block ends the program

            # -- the results
            if evaluation is not None and config.show_example and ranks.is_main:
                with state.averaged():
                    text = evaluation.picture(head, plan.folder / "example.png")
                log.example(text, plan.folder / "example.png", state.step)
            report_at_end(plan.folder, config.report and ranks.is_main, log.say)
        final = {key: value for key, value in metrics.items() if not key.startswith(("train/", "optim/"))}
        say(f"done: step {state.step}; {format_metrics(final) if final else 'no evaluation'}\nfiles: {plan.folder}")


def run(config: PretrainConfig) -> None:
    """Run one Hydra job."""
    train_through(train, prepare_job(config), launched_ranks().say)


if __name__ == "__main__":
    hydra_main("cfg_pretrain", PretrainConfig, run, task_overrides)
