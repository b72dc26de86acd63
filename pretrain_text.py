"""Train a recursive language model on text.

    uv run python pretrain_text.py --config-name cfg_tinystories_1m
    uv run torchrun --nproc-per-node 8 pretrain_text.py --config-name cfg_tinystories_10m_moeut

Settings: docs/configuration.md, or --help. `train` is the whole run, from top to bottom.
"""

from functools import partial

import torch

from dataset.text.feed import text_feed
from dataset.text.opening import open_text, plan_rows, project_name, row_names
from evaluators.language import evaluate_language
from evaluators.report.page import report_at_end
from models.acceleration import accelerate
from models.factory import comparable_config, count_parameters, make_head, resolve_arch
from models.pretrained import start_from_weights
from models.text.loss import TextLossHead
from models.training import TrainState
from utils.distributed import broadcast_module, launched_ranks
from utils.divergence import explained_divergence, largest_loss, train_through
from utils.hydra import hydra_main
from utils.run import (
    OWED,
    DueEvaluation,
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
from utils.settings import TextConfig

# a resume must not change these, because the saved state depends on them
KEYS_FIXED_ON_RESUME = (
    "arch", "global_batch_size", "seed", "optimizer", "ema", "seq_len", "tokenizer", "max_vocab", "cap",
    "max_sequences",
)  # fmt: skip
# what the progress bar shows
SHOWN = {"loss": "train/lm_loss", "perplexity": "eval/perplexity", "tokens/s": "perf/tokens_per_second"}


def train(config: TextConfig) -> None:
    """One training run: text, model, steps with evaluations and checkpoints between them.

    Raises:
        UserError: the configuration, the text or the checkpoint cannot be used.
    """
    # -- what can be checked without text
    ranks = launched_ranks()
    say = ranks.say
    check_batch_size(config, ranks)
    machine, config = resolve_arch(config, ranks, data="text")
    arch, device, size = config.arch, machine.device, config.global_batch_size

    with RunControl(config, ranks, device) as control:
        # -- the run folder, which rank 0 chooses, and the text
        plan = plan_on_main(config, project_name(config), machine, comparable_config, control)
        text = open_text(config, plan.source, ranks)

        # -- model, optimizer, averages
        torch.manual_seed(config.seed)
        recompute, vocab_size = config.activation_checkpointing, text.tokenizer.vocab_size
        head = make_head(arch, vocab_size, config.seq_len, data="text", recompute=recompute, dtype=machine.dtype)
        assert isinstance(head, TextLossHead)
        if plan.weights is not None:
            start_from_weights(head, plan.weights, arch, say=say)
        head.to(device)
        keep = head.model.config.halt_max_steps  # optimizer steps on each batch
        schedule = make_schedule(config, *plan_rows(config, keep))
        warmup_steps = round(config.lr_warmup_ratio * schedule.total_steps)
        state = TrainState(head, config, ranks, schedule.total_steps, warmup_steps, skipped=plan.skipped)
        owed: Owed = {}  # the step whose evaluation a signal has broken off
        if plan.resume is not None:
            saved = resume(state, plan, config, KEYS_FIXED_ON_RESUME, comparable_config, say)
            text.batches.load_state_dict(saved["text"])
            owed = saved.get(OWED, {})
        broadcast_module(head)  # no rank may start with other weights than rank 0
        acceleration = accelerate(head.model, machine)
        state.use_fast_update(acceleration)
        head.train()

        # -- the log
        say(f"run: {plan.folder} ({plan.note})\n{text}\n{machine}\n{acceleration}")
        say(f"model: {count_parameters(head):,} parameters; steps: {state.step} -> {schedule.last_step}")
        say_if_short(config, schedule.last_step, warmup_steps, say)
        steps = schedule.after(state.step)
        log = open_log(config, plan, range(owed.get("step", steps.start), steps.stop), SHOWN, ranks)
        if ranks.is_main:
            text.tokenizer.save(plan.folder)

        def evaluate() -> dict[str, float]:
            with state.averaged():
                return evaluate_language(
                    head, text.held_out_batches, device, config.eval_halt_max_steps, control.asked_to_end
                )

        # -- the loop: step, evaluate, log, save
        workers = config.num_workers if config.num_workers is not None else int(device.type == "cuda")
        feed = text_feed(text.batches, steps, keep, device, workers)
        reader = StepReader({"tokens": size * config.seq_len}, 0, device, largest_loss(config, vocab_size), control)
        metrics: dict[str, float] = owed.get("metrics", {})
        names = partial(row_names, size=size, keep=keep)
        with explained_divergence(config, plan, names, ranks), log, control.loop(schedule, plan):
            if owed:  # the evaluation that a signal broke off
                log_step(log, control, **owed, due=DueEvaluation(evaluate))
                if control.stops(state.step):
                    return
            for step, batch, position in feed:
                reader.data_ready()
                reader.add(step, state.launch_step(batch, control.asks))
                evaluates, saves = schedule.evaluates(step), schedule.saves(step)
                # on GPUs a step is read one step later, so that the device never waits for the host
                for done, metrics, perf in reader.ready(all_steps=evaluates or saves):
                    metrics["train/sequences"] = -(-done // keep) * size
                    due = DueEvaluation(evaluate) if evaluates and done == step else None
                    owed = log_step(log, control, done, metrics, perf, due)
                saves = saves or control.saves
                if saves:
                    save(config, state, plan, control, {"text": position, OWED: owed})
                if evaluates or saves:
                    reader.restart()
                if control.stops(step):
                    return  # and the end of the block ends the program
            report_at_end(plan.folder, config.report and ranks.is_main, log.say)
        final = {key: value for key, value in metrics.items() if key.startswith("eval/")}
        outcome = format_metrics(final) if final else "nothing was left to do"
        say(f"done: step {state.step}; {outcome}\nfiles: {plan.folder}")


def run(config: TextConfig) -> None:
    """Run one Hydra job."""
    train_through(train, prepare_job(config), launched_ranks().say)


if __name__ == "__main__":
    hydra_main("cfg_tinystories_1m", TextConfig, run)
