"""What an evaluation shows besides the scores: rollouts, an example, traces, many steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.puzzle_dataset import EvalBatches, PuzzleSplit, Source
from dataset.tasks import task_of
from dataset.tasks.task import Task
from evaluators.answers import HaltRule, fixed_size
from evaluators.depth import depth_stability, report_depth
from evaluators.evaluation import picture_example
from evaluators.rollouts.curve import Point
from evaluators.rollouts.evaluate import (
    RolloutEvaluation,
    default_selectors,
    examples_of,
    report_rollouts,
    rollout_points,
)
from evaluators.rollouts.run import RolloutRule, check_rollouts
from evaluators.rollouts.selectors import selectors_named
from evaluators.trace.choose import trace_examples
from evaluators.trace.files import write_trace
from evaluators.trace.trace import load_trace
from models.flops import flops_per_pass
from models.losses import ACTLossHead
from models.recorder import UpdateRecorder
from utils.distributed import Ranks
from utils.errors import UserError
from utils.settings import ArchConfig, EvaluateConfig, EvaluatorConfig


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
        self.points: list[Point] = []
        self.selectors = selectors_named(config.selectors)
        if config.restarts > 1:
            self.rule = RolloutRule(
                config.restarts, config.vary, config.noise, max_steps,
                HaltRule(config.halt_threshold, config.halt_unchanged), config.early_halting, config.beta, config.seed,
            )  # fmt: skip
            if not self.selectors:
                self.selectors = default_selectors(self.task, self.source.shards[0].inputs[0])
            check_rollouts(head, self.task, self.rule, any(one.resamples for one in self.selectors))

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
        if config.restarts > 1:
            content["rollouts"] = report_rollouts(self.points, self.rule, folder)
        subset = {"max_examples": config.eval_max_examples, "seed": config.seed}
        if config.depth is not None:
            points = depth_stability(self.head, self.source, shard, config.depth, rows=rows, **subset)
            trained = self.head.model.config.halt_max_steps
            content["depth"] = report_depth(points, trained, folder / "depth.png", print)
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

    def roll_out(self, arch: ArchConfig, ranks: Ranks, batch_size: int) -> None:
        """Answer the examples by rollouts, if that is asked for; `report` then says what came out. Collective.

        Args:
            arch: the architecture of the model.
            ranks: the rank of this process.
            batch_size: rows at once, over all processes.
        """
        config, metadata = self.config, self.source.metadata
        if config.restarts == 1:
            return
        batches = EvalBatches(
            self.source, self.source.shards[0], batch_size, ranks.rank, ranks.world_size, config.eval_max_examples,
            config.seed,
        )  # fmt: skip
        how = RolloutEvaluation(self.rule, self.selectors, config.curve, -(-batch_size // ranks.world_size))
        flops = flops_per_pass(arch, metadata.vocab_size, metadata.seq_len)
        self.points = rollout_points(self.head, self.task, examples_of(batches, self.task), how, flops, ranks)


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
