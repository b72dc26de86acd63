"""Evaluation: run every example for all its ACT steps, score the answers, feed the evaluators."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.puzzle_dataset import EvalBatches, PuzzleSplit, Source
from dataset.shards import PuzzleDatasetMetadata, task_of
from models.losses import ACTLossHead, Score
from utils.config import EvaluatorConfig
from utils.distributed import Ranks, sum_over_ranks
from utils.errors import UserError
from utils.functions import load_model_class
from utils.visualise import Solving, in_terminal, save_png

MODEL_INPUTS = ("inputs", "labels", "puzzle_identifiers")
BATCH_OUTPUTS = (*MODEL_INPUTS, "example_index")
PREDICTIONS = ("preds", "logits", "q_halt_logits", "q_continue_logits", "steps")


class Evaluator(Protocol):
    """What a task needs beyond token accuracy. Each `begin_eval` starts from nothing."""

    required_outputs: ClassVar[set[str]]

    def begin_eval(self) -> None: ...

    def update_batch(self, batch: dict[str, Tensor], preds: dict[str, Tensor]) -> None: ...

    def result(
        self, save_path: str | None, rank: int, world_size: int, group: Any | None = None
    ) -> dict[str, float] | None: ...


@dataclass
class EvaluationResult:
    """Of one set."""

    metrics: dict[str, float]  # accuracy, exact_accuracy, q_halt_accuracy, steps, losses: means over labelled examples
    count: int  # labelled examples
    examples: int
    exact_accuracy_after_step: list[float]
    accuracy_after_step: list[float]
    task_metrics: dict[str, float] = field(default_factory=dict)  # of the evaluators, such as ARC/pass@2


def check_save_outputs(names: Sequence[str]) -> None:
    """Refuse names in eval_save_outputs that no evaluation has."""
    unknown = sorted(set(names) - {*BATCH_OUTPUTS, *PREDICTIONS})
    if unknown:
        raise UserError(f"eval_save_outputs: {unknown}: allowed are {', '.join((*BATCH_OUTPUTS, *PREDICTIONS))}.")


def make_evaluators(configs: Sequence[EvaluatorConfig], root: Path, metadata: PuzzleDatasetMetadata) -> list[Evaluator]:
    """The evaluators of a configuration for one data set.

    Raises:
        UserError: an evaluator is unknown or does not take an option.
    """
    made = []
    for config in configs:
        cls = load_model_class(config.name, "evaluators.")
        try:
            made.append(cls(data_path=str(root), eval_metadata=metadata, **(config.model_extra or {})))
        except TypeError as error:
            raise UserError(f"evaluators: {config.name}: {error}") from None
    return made


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
    early_halting: bool = False,
    save_outputs: Sequence[str] = (),
    save_path: Path | None = None,
    made: dict[Path, list[Evaluator]] | None = None,
) -> dict[str, EvaluationResult]:
    """Evaluate every set of `split`.

    Args:
        head: the model, with the weights to be evaluated.
        split: what to evaluate on.
        evaluators: evaluators of the configuration, made for each data set.
        device, ranks: where this process computes, and its share.
        global_batch_size: examples at once, over all ranks.
        max_examples, seed: evaluate a random subset of each set, drawn with this seed.
        early_halting: let an example leave once it wants to halt, and compute only the others further.
        save_outputs: names of batch and model tensors to save under `save_path`.
        save_path: folder for those and for what evaluators write.
        made: evaluators kept between calls (for those that add up over evaluations).

    Returns:
        Set name (with several data sets, `folder/set`) -> result, on every rank; task metrics on rank 0.
    """
    results = {}
    made = {} if made is None else made
    for source, label in zip(split.sources, _labels([source.root for source in split.sources]), strict=True):
        if source.root not in made:
            made[source.root] = make_evaluators(evaluators, source.root, source.metadata)
        for shard in source.shards:
            batches = EvalBatches(source, shard, global_batch_size, ranks.rank, ranks.world_size, max_examples, seed)
            name = f"{label}/{shard.name}" if label else shard.name
            folder = save_path / label if save_path is not None else None
            results[name] = evaluate_set(
                head, batches, made[source.root], device, ranks, early_halting, save_outputs, folder, name
            )
    return results


def _labels(roots: Sequence[Path]) -> list[str]:
    """Short names that tell the data sets apart; a single one needs none."""
    if len(roots) == 1:
        return [""]
    names = [root.name for root in roots]
    return [name if names.count(name) == 1 else f"{name}-{index}" for index, name in enumerate(names)]


def evaluate_set(
    head: ACTLossHead,
    batches: EvalBatches,
    evaluators: Sequence[Evaluator],
    device: torch.device,
    ranks: Ranks,
    early_halting: bool = False,
    save_outputs: Sequence[str] = (),
    save_path: Path | None = None,
    name: str = "all",
) -> EvaluationResult:
    """Evaluate one set; see `evaluate_split`."""
    was_training = head.training
    head.eval()
    max_steps = head.model.max_steps
    wanted = set(save_outputs).union(*(evaluator.required_outputs for evaluator in evaluators))
    sums: dict[str, Tensor] = {}
    saved: dict[str, list[Tensor]] = {key: [] for key in save_outputs}
    for evaluator in evaluators:
        evaluator.begin_eval()
    with torch.inference_mode():
        bar = tqdm(batches, desc=f"evaluate {name}", disable=None if ranks.is_main else True, leave=False)
        for arrays in bar:
            if len(arrays["inputs"]) == 0:
                continue  # the last batch has nothing for this rank
            batch = {key: torch.from_numpy(values).to(device) for key, values in arrays.items()}
            answers = answer_batch(head, batch, max_steps, early_halting, keep_logits="logits" in wanted)
            _add(sums, answers.sums)
            # evaluators know the data set's own puzzle ids, not the rows of the embedding table
            batch["puzzle_identifiers"] = batch.pop("own_identifiers")
            for evaluator in evaluators:
                evaluator.update_batch(batch, answers.predictions)
            for key in save_outputs:
                saved[key].append({**batch, **answers.predictions}[key].cpu())
    head.train(was_training)

    if save_outputs and save_path is not None:
        save_path.mkdir(parents=True, exist_ok=True)
        file = save_path / f"{batches.shard.name}_preds.{ranks.rank}"
        torch.save({key: torch.cat(parts) for key, parts in saved.items() if parts}, file)
    zero = torch.zeros((), device=device)
    total = sum_over_ranks({key: sums.get(key, zero) for key in _sum_names(max_steps)})
    task_metrics: dict[str, float] = {}
    for evaluator in evaluators:
        found = evaluator.result(str(save_path) if save_path is not None else None, ranks.rank, ranks.world_size)
        task_metrics |= found or {}

    labelled = int(total.pop("count"))
    count = max(labelled, 1)
    examples = int(total.pop("examples"))
    after = {key: [total.pop(f"{key}/{step}") / count for step in range(max_steps)] for key in ("exact", "accuracy")}
    return EvaluationResult(
        metrics={key: value / count for key, value in total.items()},
        count=labelled,
        examples=examples,
        exact_accuracy_after_step=after["exact"],
        accuracy_after_step=after["accuracy"],
        task_metrics=task_metrics,
    )


@dataclass
class Answers:
    """The final answers to a batch, and sums of their scores."""

    predictions: dict[str, Tensor]  # preds [batch, seq], q_halt_logits, q_continue_logits, steps [batch] (, logits)
    sums: dict[str, Tensor]


def answer_batch(
    head: ACTLossHead, batch: dict[str, Tensor], max_steps: int, early_halting: bool, keep_logits: bool = False
) -> Answers:
    """Run the examples of a batch to their end.

    With `early_halting` an example that wants to halt leaves and keeps its answer; only the rest is computed on.
    Rows without labels count nowhere except in q_halt_loss, which takes them as right.
    """
    rows = len(batch["inputs"])
    data = {key: batch[key] for key in MODEL_INPUTS}
    active = torch.arange(rows, device=batch["inputs"].device)
    carry = head.initial_carry(data)
    answer: dict[str, Tensor] = {}  # of each row, overwritten step by step while the row is active
    sums: dict[str, Tensor] = {}
    for step in range(max_steps):
        if len(active):
            carry, outputs = head.model(carry, data)
            score = Score(outputs["logits"].argmax(-1), outputs["q_halt_logits"], data["labels"])
            lm_loss, q_halt_loss = head.example_losses(outputs, data["labels"], score)
            now = {
                "preds": score.preds,
                "q_halt_logits": outputs["q_halt_logits"],
                "q_continue_logits": outputs["q_continue_logits"],
                "steps": carry.steps,
                "exact": score.exact & score.labelled,
                "accuracy": score.accuracy,
                "q_halt_right": score.q_halt_right & score.labelled,
                "labelled": score.labelled,
                "lm_loss": lm_loss,
                "q_halt_loss": q_halt_loss,
            }
            if keep_logits:
                now["logits"] = outputs["logits"]
            for key, values in now.items():
                if key not in answer:
                    answer[key] = values.new_empty(rows, *values.shape[1:])
                answer[key][active] = values
            finished = carry.halted | (head.model.wants_to_halt(outputs) if early_halting else False)
            if early_halting or head.model.inner.halts_early(training=False):
                going = (~finished).nonzero().squeeze(-1)
                active, carry = active[going], carry.map(lambda x, going=going: x[going])
                data = {key: values[going] for key, values in data.items()}
        sums[f"exact/{step}"] = answer["exact"].sum()
        sums[f"accuracy/{step}"] = answer["accuracy"].sum()
    sums |= {
        "count": answer["labelled"].sum(),
        "examples": torch.tensor(rows, device=answer["labelled"].device),
        "accuracy": answer["accuracy"].sum(),
        "exact_accuracy": answer["exact"].sum(),
        "q_halt_accuracy": answer["q_halt_right"].sum(),
        "steps": answer["steps"].where(answer["labelled"], 0).sum(),
        "lm_loss": answer["lm_loss"].sum(),
        "q_halt_loss": answer["q_halt_loss"].sum(),
    }
    return Answers({key: answer[key] for key in PREDICTIONS if key in answer}, sums)


def solve_example(
    head: ACTLossHead, source: Source, device: torch.device, candidates: int = 64
) -> tuple[str | None, dict[str, Tensor]]:
    """How an example is solved, step by step, for a picture.

    Of the first `candidates` examples it takes the one that is solved last, where there is most to see.

    Returns:
        (task, {inputs, labels [seq], answers [steps, seq], q_halt [steps]}).
    """
    arrays = EvalBatches(source, source.shards[0], candidates)[0]
    data = {key: torch.from_numpy(arrays[key]).to(device) for key in MODEL_INPUTS}
    was_training = head.training
    head.eval()
    answers, halts, exact = [], [], []
    with torch.inference_mode():
        carry = head.initial_carry(data)
        for _ in range(head.model.max_steps):
            carry, outputs = head.model(carry, data)
            score = Score(outputs["logits"].argmax(-1), outputs["q_halt_logits"], data["labels"])
            answers.append(score.preds)
            halts.append(outputs["q_halt_logits"].sigmoid())
            exact.append(score.exact & score.labelled)
    head.train(was_training)
    wrong_steps = (~torch.stack(exact)).sum(0)  # [candidates]
    chosen = int(wrong_steps.where(exact[-1], -1).argmax())
    return task_of(source.metadata), {
        "inputs": data["inputs"][chosen].cpu(),
        "labels": data["labels"][chosen].cpu(),
        "answers": torch.stack(answers)[:, chosen].cpu(),
        "q_halt": torch.stack(halts)[:, chosen].float().cpu(),
    }


def picture_example(
    head: ACTLossHead, source: Source, device: torch.device, path: Path, candidates: int = 64
) -> str | None:
    """Draw how an example is solved (see `solve_example`) to a PNG at `path`.

    Returns:
        A picture for the terminal; None where there is none for this kind of data (such as mazes that are not square).
    """
    task, tensors = solve_example(head, source, device, candidates)
    if task is None:
        return None
    try:
        solving = Solving(task, **{name: np.asarray(tensor) for name, tensor in tensors.items()})
    except UserError:
        return None
    save_png(solving, path)
    return f"\n{in_terminal(solving, color=sys.stdout.isatty())}\n\npicture: {path}"


def _sum_names(max_steps: int) -> Iterable[str]:
    totals = ("count", "examples", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps", "lm_loss", "q_halt_loss")
    return [*totals, *(f"{key}/{step}" for key in ("exact", "accuracy") for step in range(max_steps))]


def _add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for key, value in more.items():
        sums[key] = sums[key] + value if key in sums else value
