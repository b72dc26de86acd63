"""Evaluations of a training run, between its steps."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dataset.puzzle_dataset import PuzzleSplit
from evaluators.answers import HaltRule, fixed_size
from evaluators.evaluation import EvaluationResult, evaluate_split, make_evaluators, picture_example
from evaluators.inside import task_at
from evaluators.media import evaluation_media
from evaluators.report.runs import RESULTS
from evaluators.trace.choose import trace_examples
from evaluators.trace.files import NAME as TRACE
from evaluators.unfinished import Unfinished
from models.losses import ACTLossHead
from utils.atomic_file import write_json
from utils.distributed import Ranks
from utils.files import writing_to
from utils.logging import FULL_FOLDER
from utils.run import DueEvaluation, Training
from utils.run_control import RunControl
from utils.run_folder import RunPlan
from utils.settings import PretrainConfig

_TRACE_CANDIDATES = 16  # failed and solved examples are looked for among these; all of them take every step
_PICTURE_CANDIDATES = 64  # the most instructive of this many examples is drawn


class TrainingEvaluation:
    """Evaluates a model on the test data of a run, as its configuration asks for.

    Args:
        config: the configuration of the run.
        split: the test data.
        device, ranks: the device of this process, and its rank.

    Raises:
        UserError: an evaluator is unknown, or does not fit the data.
    """

    def __init__(self, config: PretrainConfig, split: PuzzleSplit, device: torch.device, ranks: Ranks):
        self.config, self.split, self.device, self.ranks = config, split, device, ranks
        # created once, because some accumulate over evaluations
        self.evaluators = {
            source.root: make_evaluators(config.evaluators, source.root, source.metadata) for source in split.sources
        }

    @property
    def _batch_size(self) -> int:
        """Examples of a batch, over all ranks."""
        return self.config.eval_batch_size or self.config.global_batch_size

    def notes_on_resume(self) -> list[str]:
        """Notes on what a resume loses from earlier evaluations."""
        if any((evaluator.model_extra or {}).get("aggregated_voting") for evaluator in self.config.evaluators):
            return ["aggregated_voting starts anew; the votes of evaluations before the resume are not in it"]
        return []

    def due(self, state: Training, plan: RunPlan, control: RunControl, goes_on: bool = False) -> DueEvaluation:
        """The evaluation after the step that the run has reached, of the averaged weights; see `utils.run.log_step`."""
        folder, head = plan.folder / f"evaluation_step_{state.step}", state.head
        assert isinstance(head, ACTLossHead)

        def evaluate() -> dict[str, float]:
            with state.averaged():
                return self(head, folder, control.asked_to_end, goes_on)

        return DueEvaluation(evaluate, evaluation_media(folder))

    def __call__(
        self, head: ACTLossHead, folder: Path, stops: Callable[[], bool], goes_on: bool = False
    ) -> dict[str, float]:
        """Metrics `{set}/{name}` of the current weights. All ranks must call it.

        Args:
            head: the model.
            folder: where evaluators write files.
            stops: asked after each batch whether this rank is to break off.
            goes_on: the evaluation of the same weights has been broken off before, and goes on from there.

        Raises:
            Interrupted: `stops` said so on any rank; raised on all of them. What there is so far is kept in `folder`.
        """
        config = self.config
        unfinished = Unfinished(folder, self._identity(), self.ranks, seconds=math.inf, goes_on=goes_on)
        rule = HaltRule(config.eval_halt_threshold, config.eval_halt_unchanged) if config.eval_early_halting else None
        results = evaluate_split(
            head,
            self.split,
            config.evaluators,
            device=self.device,
            ranks=self.ranks,
            global_batch_size=self._batch_size,
            max_examples=config.eval_max_examples,
            halting=rule,
            max_steps=config.eval_halt_max_steps,
            fixed_sizes=head.model.compiled,
            save_outputs=config.eval_save_outputs,
            save_path=folder,
            made=self.evaluators,
            unfinished=unfinished,
            stops=stops,
        )
        if self.ranks.is_main:
            unfinished.remove()
            self._write(head, folder, results)
        metrics: dict[str, float] = {}
        for name, result in results.items():
            metrics |= {f"{name}/{key}": value for key, value in result.metrics.items()}
            prefix = "" if len(results) == 1 else f"{name}/"
            metrics |= {f"{prefix}{key}": value for key, value in result.task_metrics.items()}
        return metrics

    def _identity(self) -> dict[str, Any]:
        """What the results depend on, besides the weights."""
        settings = {key: value for key, value in self.config.model_dump().items() if key.startswith("eval")}
        return settings | {"batch": self._batch_size, "data": [str(source.root) for source in self.split.sources]}

    def _write(self, head: ACTLossHead, folder: Path, results: dict[str, EvaluationResult]) -> None:
        """Write results.json, and trace.npz of a few examples, to `folder`; a trace that fails is only said."""
        config, source = self.config, self.split.sources[0]
        sets = {name: asdict(result) for name, result in results.items()}
        with writing_to(folder, FULL_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / RESULTS, {"sets": sets})
        if not config.eval_traces:
            return
        try:
            shard = source.shards[0]
            rows = self._trace_rows(len(shard.inputs)) if head.model.compiled else None
            task, options = task_at(source, config.evaluators)
            was_training = head.training
            head.eval()
            trace = trace_examples(
                head,
                source,
                shard,
                task,
                {"name": folder.name, "task_options": options, "set": shard.name, "choice": "mixed"},
                config.eval_traces,
                "mixed",
                rule=HaltRule(config.eval_halt_threshold, config.eval_halt_unchanged),
                early_halting=config.eval_early_halting,
                max_steps=config.eval_halt_max_steps,
                max_examples=rows or _TRACE_CANDIDATES,
                rows=rows,
                votes=False,  # which would answer every copy of a test input once more
            )
            head.train(was_training)
            if trace is not None:
                trace.save(folder / TRACE)
        except Exception as error:  # a picture must not end a run
            self.ranks.say(f"no trace of examples ({type(error).__name__}: {error}); eval_traces=0 does without")

    def _trace_rows(self, examples: int) -> int:
        """For a compiled model, the number of rows of a trace: one that the evaluation has compiled a graph for."""
        # with early halting the last examples of an evaluation are few, and it has gone through the smaller sizes
        most = _TRACE_CANDIDATES if self.config.eval_early_halting else examples
        return fixed_size(self._slots, min(self._slots, examples, most))

    @property
    def _slots(self) -> int:
        """Examples of a batch in this process."""
        return -(-self._batch_size // self.ranks.world_size)

    def picture(self, head: ACTLossHead, path: Path) -> str | None:
        """Draw how a test example is solved to `path`. Returns a picture for the terminal; None if there is none."""
        candidates = min(_PICTURE_CANDIDATES, self.config.global_batch_size)
        source, max_steps = self.split.sources[0], self.config.eval_halt_max_steps
        slots = self._slots if head.model.compiled else None
        return picture_example(head, source, self.device, path, candidates, max_steps, slots)
