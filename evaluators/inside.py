"""What an evaluation shows of single answers, besides the scores: an example, traces, many steps, many starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dataset.puzzle_dataset import EvalBatches, PuzzleSplit, Source
from dataset.tasks import task_of
from dataset.tasks.task import Task
from evaluators.answers import MODEL_INPUTS, HaltRule, fixed_size
from evaluators.convergence import answer_from_starts, start_metrics
from evaluators.depth import depth_stability, report_depth
from evaluators.evaluation import picture_example
from evaluators.trace.choose import trace_examples
from evaluators.trace.files import write_trace
from evaluators.trace.trace import load_trace
from models.losses import ACTLossHead
from models.random_start import RandomStartModel
from models.recorder import UpdateRecorder
from utils.errors import UserError
from utils.settings import EvaluateConfig, EvaluatorConfig

_TOP = 5  # of the answers from many starts, how many of the best are looked at
_ROWS = 256  # answers from many starts at once


class Inside:
    """Looks into the answers to the first set of the data, as the configuration of an evaluation asks for.

    Args:
        config: the configuration.
        head: the model, in evaluation mode.
        split: the data.
        evaluators: the evaluators of the evaluation, whose options say which boards the task has.
        max_steps: ACT steps; None: halt_max_steps of the model.

    Raises:
        UserError: the architecture cannot show what is asked for, or a file of trace_beside cannot be used.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        head: ACTLossHead,
        split: PuzzleSplit,
        evaluators: Sequence[EvaluatorConfig],
        max_steps: int | None,
    ):
        self.config, self.head, self.source, self.max_steps = config, head, split.sources[0], max_steps
        self.task, self.task_options = task_at(self.source, evaluators)
        self.beside = [load_trace(path) for path in config.trace_beside]
        if config.trace and config.trace_inner:
            UpdateRecorder(head.model)  # refuses what it cannot record, before the work
        if config.starts is not None and not isinstance(head.model, RandomStartModel):
            raise UserError(
                f"starts={config.starts}: {type(head.model).__name__} starts from the same latents every time. "
                "Leave starts=null; architectures that start at random are eqr and fprm."
            )

    def report(self, checkpoint: Path, folder: Path, slots: int | None) -> dict[str, Any]:
        """Print, and write to `folder`, what is asked for; returns what belongs into results.json.

        Args:
            checkpoint: the weights, for the heading of the pictures.
            folder: the folder of the results.
            slots: for a compiled model, the examples of a batch in the evaluation; None: any number will do.
        """
        config, shard = self.config, self.source.shards[0]
        rows = None if slots is None else fixed_size(slots, min(slots, len(shard.inputs)))
        content: dict[str, Any] = {}
        subset = {"max_examples": config.eval_max_examples, "seed": config.seed}
        if config.depth is not None:
            points = depth_stability(self.head, self.source, shard, config.depth, rows=rows, **subset)
            trained = self.head.model.config.halt_max_steps
            content["depth"] = report_depth(points, trained, folder / "depth.png", print)
        if config.starts is not None:
            content["starts"] = self._starts(config.starts)
        if config.trace:
            about = {
                "name": f"{checkpoint.parent.name}/{checkpoint.name}",
                "task_options": self.task_options,
                "checkpoint": str(checkpoint),
                "data": str(self.source.root),
                "set": shard.name,
                "choice": config.trace_choice,
            }
            trace = trace_examples(
                self.head,
                self.source,
                shard,
                self.task,
                about,
                config.trace,
                config.trace_choice,
                rule=HaltRule(config.halt_threshold, config.halt_unchanged),
                early_halting=config.early_halting,
                max_steps=self.max_steps,
                inner=config.trace_inner,
                rows=rows,
                **subset,
            )
            print(write_trace(trace, folder, self.beside) if trace is not None else self._none())
        if config.show_example:
            path, device = folder / "example.png", next(self.head.parameters()).device
            picture = picture_example(self.head, self.source, device, path, max_steps=self.max_steps, slots=slots)
            print(picture if picture is not None else "no picture: there is none for this kind of data")
        return content

    def _none(self) -> str:
        return f"trace: none of the examples is {self.config.trace_choice}"

    def _starts(self, starts: int) -> dict[str, float]:
        """Means over the examples of the metrics of `evaluators.convergence.start_metrics`, which it prints."""
        model = self.head.model
        assert isinstance(model, RandomStartModel)
        config, device = self.config, next(model.parameters()).device
        subset = {"max_examples": config.eval_max_examples, "seed": config.seed}
        batches = EvalBatches(self.source, self.source.shards[0], max(1, _ROWS // starts), **subset)
        sums: dict[str, float] = {}
        for batch in batches:
            data = {key: torch.from_numpy(batch[key]).to(device) for key in MODEL_INPUTS}
            found = start_metrics(answer_from_starts(model, data, starts, self.max_steps), data["labels"], _TOP)
            for key, value in found.items():
                sums[key] = sums.get(key, 0.0) + value * len(batch["inputs"])
        means = {key: value / max(1, len(batches.examples)) for key, value in sums.items()}
        print(f"\nfrom {starts} starts:")
        for key, value in means.items():
            print(f"  {key:<24}{value:>10.4f}")
        return means


def task_at(source: Source, evaluators: Sequence[EvaluatorConfig] = ()) -> tuple[Task, dict[str, Any]]:
    """The task of a data set at its size, and its options; boards of plain tokens if it is not known, or not so large.

    Args:
        source: the data set.
        evaluators: their options may say which boards the task has.
    """
    sizes = source.metadata.seq_len, source.metadata.vocab_size
    kind = task_of(source.metadata)
    if kind is None:
        return Task(*sizes), {}
    found = [config.model_extra or {} for config in evaluators if config.name.split("@")[0] == kind.name]
    options = found[0] if found else {}
    try:
        return kind.of(*sizes, **options), options
    except UserError:  # such as a maze that is not square
        return Task(*sizes), {}
