"""Evaluations of a training run, between its steps."""

from pathlib import Path

import torch

from dataset.puzzle_dataset import PuzzleSplit
from evaluators.answers import HaltRule
from evaluators.evaluation import evaluate_split, make_evaluators, picture_example
from models.losses import ACTLossHead
from utils.distributed import Ranks
from utils.settings import PretrainConfig

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

    def __call__(self, head: ACTLossHead, folder: Path) -> dict[str, float]:
        """Metrics `{set}/{name}` of the current weights. Evaluators write files to `folder`. All ranks must call it."""
        config = self.config
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
        )
        metrics: dict[str, float] = {}
        for name, result in results.items():
            metrics |= {f"{name}/{key}": value for key, value in result.metrics.items()}
            prefix = "" if len(results) == 1 else f"{name}/"
            metrics |= {f"{prefix}{key}": value for key, value in result.task_metrics.items()}
        return metrics

    def picture(self, head: ACTLossHead, path: Path) -> str | None:
        """Draw how a test example is solved to `path`. Returns a picture for the terminal; None if there is none."""
        candidates = min(_PICTURE_CANDIDATES, self.config.global_batch_size)
        source, max_steps = self.split.sources[0], self.config.eval_halt_max_steps
        slots = -(-self._batch_size // self.ranks.world_size) if head.model.compiled else None
        return picture_example(head, source, self.device, path, candidates, max_steps, slots)
