"""Evaluation: answer every example, score the answers, feed the evaluators."""

import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.puzzle_dataset import Batch, EvalBatches, PuzzleSplit, Source
from dataset.shards import PuzzleDatasetMetadata
from dataset.tasks import load_task, task_of
from dataset.tasks.given import given_tasks, library_task
from dataset.tasks.task import Task
from evaluators.answers import (
    CALIBRATION,
    CALIBRATION_BINS,
    COUNTS_BY_STEP,
    MODEL_INPUTS,
    PREDICTIONS,
    HaltRule,
    answer_batches,
    fixed_size,
)
from evaluators.picture import save_png
from evaluators.rules import Rules
from evaluators.solving import Solving
from evaluators.terminal import in_terminal
from evaluators.unfinished import Resumable, Unfinished
from models.losses import ACTLossHead, Score
from utils.distributed import Ranks, barrier, break_off_together, sum_over_ranks
from utils.errors import UserError, did_you_mean
from utils.file_names import safe_name
from utils.functions import load_class
from utils.settings import EvaluatorConfig

BATCH_OUTPUTS = (*MODEL_INPUTS, "example_index")
_PACE_IN_LOGS = 30.0  # seconds between two lines of progress, where stderr is no terminal


class Evaluator(Protocol):
    """Computes metrics of a task beyond token accuracy. `begin_eval` starts an evaluation."""

    required_outputs: ClassVar[set[str]]

    def begin_eval(self) -> None: ...

    def update_batch(self, batch: dict[str, Tensor], preds: dict[str, Tensor]) -> None: ...

    def result(
        self, save_path: str | None, rank: int, world_size: int, group: Any | None = None
    ) -> dict[str, float] | None: ...


@dataclass
class EvaluationResult:
    """The result for one set. What compares with labels is empty if no example has one."""

    metrics: dict[str, float]  # accuracy, exact_accuracy, q_halt_accuracy, steps, losses: means over labelled examples
    count: int  # labelled examples
    examples: int
    exact_accuracy_after_step: list[float]
    accuracy_after_step: list[float]
    task_metrics: dict[str, float] = field(default_factory=dict)  # of the evaluators, such as ARC/pass@2
    # what the halting head knew; lists by step begin with step 0, which means never
    lost: int = 0  # examples whose answer was right at some step and is wrong at the end
    steps_taken: list[int] = field(default_factory=list)  # examples by the number of steps that they took
    head_stops: list[int] = field(default_factory=list)  # by the first step at which the halting head alone would stop
    head_stops_right: list[int] = field(default_factory=list)  # those of them whose answer was right there
    # over all steps, by bin of the halting probability: answers, the sum of their probabilities, right answers
    calibration_count: list[float] = field(default_factory=list)
    calibration_probability: list[float] = field(default_factory=list)
    calibration_right: list[float] = field(default_factory=list)


def check_save_outputs(names: Sequence[str]) -> None:
    """Check the names in eval_save_outputs.

    Raises:
        UserError: no evaluation has such an output.
    """
    unknown = sorted(set(names) - {*BATCH_OUTPUTS, *PREDICTIONS})
    if unknown:
        raise UserError(f"eval_save_outputs: {unknown}: allowed are {', '.join((*BATCH_OUTPUTS, *PREDICTIONS))}.")


def make_evaluators(configs: Sequence[EvaluatorConfig], root: Path, metadata: PuzzleDatasetMetadata) -> list[Evaluator]:
    """Create the evaluators of a configuration for one data set.

    A name `x@Y` is the class Y of the module `evaluators.x`, or if there is none, the rules of the task x with title Y.

    Raises:
        UserError: an evaluator is unknown, does not accept an option, or is for another task than the data set.
    """
    made = []
    for config in configs:
        module, _, title = config.name.partition("@")
        options = config.model_extra or {}
        if title and (module in given_tasks() or library_task(module) or not _is_module(module)):
            task = load_task(module, f"evaluators: {config.name}: no module evaluators.{module}, so it must be a task;")
            made.append(_rules(task, title, options, root, metadata))
            continue
        cls = load_class(config.name, "evaluators.")
        try:
            made.append(cls(data_path=str(root), eval_metadata=metadata, **options))
        except TypeError as error:
            raise UserError(f"evaluators: {config.name}: {error}") from None
    return made


def _is_module(name: str) -> bool:
    """Whether `name` is a module of evaluators, or cannot be the name of a task."""
    return not name.isidentifier() or importlib.util.find_spec(f"evaluators.{name}") is not None


def _rules(task: type[Task], title: str, options: dict[str, Any], root: Path, metadata: PuzzleDatasetMetadata) -> Rules:
    """The rules of a task as an evaluator of one data set."""
    name = f"{task.name}@{title}"
    if title != task.title or not task.columns():
        has = f"its evaluator is {task.name}@{task.title}" if task.columns() else "it has no evaluator"
        raise UserError(
            f"evaluators: {name}: the task {task.name} has no class {title}; {has}."
            f"{did_you_mean(title, [task.title] if task.columns() else [])}"
        )
    if metadata.task not in (None, task.name):
        raise UserError(
            f"evaluators: {name}: the task of {root} is {metadata.task}, not {task.name}. "
            "Choose the evaluator of that task, or another data set."
        )
    try:
        sized = task.of(metadata.seq_len, metadata.vocab_size, **options)
        sized.load_notes(root)
        return Rules(sized, metadata.pad_id)
    except UserError as error:
        known = task_of(metadata)
        of = f" (which has the sizes of {known.name})" if known not in (None, task) else ""
        raise UserError(f"evaluators: {name}: {root}{of}: {error}") from None


def evaluate_split(
    head: ACTLossHead,
    split: PuzzleSplit,
    evaluators: Sequence[EvaluatorConfig],
    *,
    device: torch.device,
    ranks: Ranks,
    global_batch_size: int,
    max_examples: int | None = None,
    seed: int = 0,
    halting: HaltRule | None = None,
    max_steps: int | None = None,
    fixed_sizes: bool = False,
    save_outputs: Sequence[str] = (),
    save_path: Path | None = None,
    made: dict[Path, list[Evaluator]] | None = None,
    unfinished: Unfinished | None = None,
    blank_ids: bool = False,
    stops: Callable[[], bool] | None = None,
) -> dict[str, EvaluationResult]:
    """Evaluate every set of `split`.

    Args:
        head: the model, with the weights to be evaluated.
        split: what to evaluate on.
        evaluators: evaluators of the configuration, created for each data set.
        device, ranks: the device of this process, and its rank.
        global_batch_size: examples at once, over all ranks.
        max_examples, seed: evaluate a random subset of each set, drawn with this seed.
        halting: when an example may stop early; None: every example takes all its steps.
        max_steps: maximum number of ACT steps of an example; None: halt_max_steps of the model.
        fixed_sizes: use only a few batch sizes, for a compiled model.
        save_outputs: names of batch and model tensors to save under `save_path`.
        save_path: folder for these and for the files of evaluators.
        made: evaluators to reuse from earlier calls, since some accumulate over evaluations; new ones are added.
        unfinished: where to keep what there is so far, and to go on after an interruption; None: begin anew. Tensors
            to save, and evaluators that are not `Resumable`, make it begin anew.
        blank_ids: give the model the blank puzzle id for every example, as for puzzles that it does not know.
        stops: asked after each batch whether this rank is to break off.

    Returns:
        Set name (with several data sets, `folder/set`) -> result, on every rank; task metrics on rank 0.

    Raises:
        Interrupted: `stops` said so on any rank; raised on all of them.
    """
    results = {}
    made = {} if made is None else made
    for source, label in zip(split.sources, _labels([source.root for source in split.sources]), strict=True):
        if source.root not in made:
            made[source.root] = make_evaluators(evaluators, source.root, source.metadata)
        if blank_ids:
            source = replace(source, table_ids=np.zeros_like(source.table_ids))
        for shard in source.shards:
            batches = EvalBatches(source, shard, global_batch_size, ranks.rank, ranks.world_size, max_examples, seed)
            name = f"{label}/{shard.name}" if label else shard.name
            folder = save_path / label if save_path is not None else None
            results[name] = evaluate_set(
                head,
                batches,
                made[source.root],
                device,
                ranks,
                halting=halting,
                max_steps=max_steps,
                fixed_sizes=fixed_sizes,
                save_outputs=save_outputs,
                save_path=folder,
                name=name,
                unfinished=unfinished,
                stops=stops,
            )
    return results


def _labels(roots: Sequence[Path]) -> list[str]:
    """Short names that tell the data sets apart; a single one needs none."""
    if len(roots) == 1:
        return [""]
    # `..` and `.` name other folders, and the labels become folders
    names = [root.name if root.name not in ("", "..") else root.resolve().name for root in roots]
    for root, name in zip(roots, names, strict=True):
        safe_name(name, f"{root}: results are kept in a folder named after it;")
    return [name if names.count(name) == 1 else f"{name}-{index}" for index, name in enumerate(names)]


def evaluate_set(
    head: ACTLossHead,
    batches: EvalBatches,
    evaluators: Sequence[Evaluator],
    device: torch.device,
    ranks: Ranks,
    *,
    halting: HaltRule | None = None,
    max_steps: int | None = None,
    fixed_sizes: bool = False,
    save_outputs: Sequence[str] = (),
    save_path: Path | None = None,
    name: str = "all",
    unfinished: Unfinished | None = None,
    stops: Callable[[], bool] | None = None,
) -> EvaluationResult:
    """Evaluate one set; see `evaluate_split`."""
    was_training = head.training
    head.eval()
    steps = head.model.steps_limit(max_steps)
    wanted = set(save_outputs).union(*(evaluator.required_outputs for evaluator in evaluators))
    done, sums, interrupted = 0, dict[str, Tensor](), False
    saved: dict[str, list[Tensor]] = {key: [] for key in save_outputs}
    for evaluator in evaluators:
        evaluator.begin_eval()
    resumable = [evaluator for evaluator in evaluators if isinstance(evaluator, Resumable)]
    if unfinished is None or save_outputs or len(resumable) < len(evaluators):
        kept = None
    else:
        kept = unfinished.of_set(name)
        done, sums = kept.load(resumable, device)
        if done:
            ranks.say(f"{name}: going on after batch {done} of {len(batches)}")
    with torch.inference_mode():
        # the last batch may have no rows for this rank
        arrays = (batches[index] for index in range(done, len(batches)))
        on_device = (_to_device(batch, device) for batch in arrays if len(batch["inputs"]))
        slots = batches.rows.stop - batches.rows.start
        answered = answer_batches(head, on_device, slots, halting, "logits" in wanted, fixed_sizes, max_steps)
        pace = 0.1 if sys.stderr.isatty() else _PACE_IN_LOGS
        shown = tqdm(
            answered,
            f"evaluate {name}",
            len(batches),
            initial=done,
            disable=not ranks.is_main,
            leave=False,
            mininterval=pace,
            delay=pace,
        )
        for number, (batch, answers) in enumerate(shown, start=done + 1):
            _add(sums, answers.sums)
            # evaluators know the data set's own puzzle ids, not the rows of the embedding table
            batch["puzzle_identifiers"] = batch.pop("own_identifiers")
            for evaluator in evaluators:
                evaluator.update_batch(batch, answers.predictions)
            for key in save_outputs:
                saved[key].append({**batch, **answers.predictions}[key].cpu())
            interrupted = stops is not None and stops()
            if kept is not None:
                kept.save(number, sums, resumable, last=interrupted)
            if interrupted:
                break
    head.train(was_training)
    break_off_together(interrupted, device)  # ranks whose examples halt early wait here for the others

    if save_outputs and save_path is not None:
        save_path.mkdir(parents=True, exist_ok=True)
        file = save_path / f"{batches.shard.name}_preds.{ranks.rank}"
        torch.save({key: torch.cat(parts) for key, parts in saved.items() if parts}, file)
    zero = torch.zeros((), device=device)
    total = sum_over_ranks({key: sums.get(key, zero) for key in _sum_names(steps)})
    task_metrics: dict[str, float] = {}
    for evaluator in evaluators:
        metrics = evaluator.result(str(save_path) if save_path is not None else None, ranks.rank, ranks.world_size)
        task_metrics |= metrics or {}
    barrier()  # rank 0 may count votes for long

    labelled = int(total.pop("count"))
    examples = int(total.pop("examples"))
    if not labelled:
        return EvaluationResult({}, 0, examples, [], [], task_metrics)
    lists: dict[str, list[Any]] = {
        key: [int(total.pop(f"{key}/{step}")) for step in range(steps + 1)] for key in COUNTS_BY_STEP
    }
    lists |= {key: [total.pop(f"{key}/{place}") for place in range(CALIBRATION_BINS)] for key in CALIBRATION}
    lost = int(total.pop("lost"))
    after = {key: [total.pop(f"{key}/{step}") / labelled for step in range(steps)] for key in ("exact", "accuracy")}
    return EvaluationResult(
        metrics={key: value / labelled for key, value in total.items()},
        count=labelled,
        examples=examples,
        exact_accuracy_after_step=after["exact"],
        accuracy_after_step=after["accuracy"],
        task_metrics=task_metrics,
        lost=lost,
        **lists,
    )


def solve_example(
    head: ACTLossHead,
    source: Source,
    device: torch.device,
    candidates: int = 64,
    max_steps: int | None = None,
    slots: int | None = None,
) -> dict[str, Tensor]:
    """How an example is solved, step by step, for a picture.

    Of the first `candidates` examples it takes the one that is solved last, because that one shows the most.

    Args:
        head, source, device, max_steps: see `evaluate_split`.
        candidates: number of examples to choose from.
        slots: for a compiled model, the examples of a batch in the evaluations of this process. The batches here then
            have a size that they had, so that nothing is compiled for the picture. None: one batch of all candidates.

    Returns:
        {inputs, labels [seq], answers [steps, seq], q_halt [steps]}.
    """
    arrays = EvalBatches(source, source.shards[0], candidates)[0]
    data = {key: torch.from_numpy(arrays[key]).to(device) for key in MODEL_INPUTS}
    count = len(data["inputs"])
    size = count if slots is None else fixed_size(slots, min(slots, len(source.shards[0].inputs)))
    was_training = head.training
    head.eval()
    parts = [_solve(head, data, torch.arange(start, start + size), max_steps) for start in range(0, count, size)]
    head.train(was_training)
    answers, halts, exact = (torch.cat(values, 1)[:, :count] for values in zip(*parts, strict=True))
    wrong_steps = (~exact).sum(0)  # [candidates]
    chosen = int(wrong_steps.where(exact[-1], -1).argmax())
    return {
        "inputs": data["inputs"][chosen].cpu(),
        "labels": data["labels"][chosen].cpu(),
        "answers": answers[:, chosen].cpu(),
        "q_halt": halts[:, chosen].float().cpu(),
    }


def _solve(
    head: ACTLossHead, data: dict[str, Tensor], rows: Tensor, max_steps: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Answers [steps, rows, seq], halting probabilities and exactness [steps, rows] of `rows` of `data`.

    Rows beyond the end stand for the last one, to fill a batch.
    """
    rows = rows.clamp(max=len(data["inputs"]) - 1).to(data["inputs"].device)
    part = {key: values[rows] for key, values in data.items()}
    answers, halts, exact = [], [], []
    with torch.inference_mode():
        for _, outputs in head.model.answer_steps(part, max_steps):
            score = Score(outputs["logits"].argmax(-1), outputs["q_halt_logits"], part["labels"])
            answers.append(score.preds)
            halts.append(outputs["q_halt_logits"].sigmoid())
            exact.append(score.exact & score.labelled)
    return torch.stack(answers), torch.stack(halts), torch.stack(exact)


def picture_example(
    head: ACTLossHead,
    source: Source,
    device: torch.device,
    path: Path,
    candidates: int = 64,
    max_steps: int | None = None,
    slots: int | None = None,
) -> str | None:
    """Draw how an example is solved (see `solve_example`, also for the arguments) to a PNG at `path`.

    Returns:
        A picture for the terminal; None if this kind of data (such as mazes that are not square) cannot be drawn.
    """
    task = task_of(source.metadata)
    if task is None:
        return None
    try:
        look = task.of(source.metadata.seq_len, source.metadata.vocab_size).look()
    except UserError:
        return None
    tensors = solve_example(head, source, device, candidates, max_steps, slots)
    shown = (np.asarray(tensors[name]) for name in ("inputs", "labels", "answers", "q_halt"))
    solving = Solving(look, *shown, open_token=None)
    save_png(solving, path)
    return f"\n{in_terminal(solving, color=sys.stdout.isatty())}\n\npicture: {path}"


def _to_device(arrays: Batch, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}


def _sum_names(max_steps: int) -> Iterable[str]:
    totals = ("count", "examples", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps", "lm_loss", "q_halt_loss")
    by_step = (f"{key}/{step}" for key in ("exact", "accuracy") for step in range(max_steps))
    counts = (f"{key}/{step}" for key in COUNTS_BY_STEP for step in range(max_steps + 1))
    bins = (f"{key}/{place}" for key in CALIBRATION for place in range(CALIBRATION_BINS))
    return [*totals, "lost", *by_step, *counts, *bins]


def _add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for key, value in more.items():
        sums[key] = sums[key] + value if key in sums else value
