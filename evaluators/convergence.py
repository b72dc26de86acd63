"""Answers from many starts: a puzzle is answered several times, and the answers whose logits have settled are taken.

An architecture with random starts (`models.random_start`), made to settle wherever it starts, tells a right answer from
a wrong one by whether its trajectory comes to rest. (EqR, arXiv 2605.21488, "depth and breadth".)
"""

from collections import deque
from collections.abc import Iterator
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor

from models.losses import Score
from models.random_start import RandomStartModel, seeds_of

WINDOW = 3  # changes of the logits that the published score looks at


class StartAnswers(NamedTuple):
    """The answers to some puzzles, each from several starts."""

    preds: Tensor  # int [puzzles, starts, seq]
    q_halt_logits: Tensor  # fp32 [puzzles, starts]
    scores: Tensor  # fp32 [puzzles, starts], how much the logits still changed at the end; small is good

    @property
    def order(self) -> Tensor:
        """The starts of each puzzle, best first, int64 [puzzles, starts]."""
        return self.scores.argsort(dim=1, stable=True)

    @property
    def chosen(self) -> Tensor:
        """The answer of the best start of each puzzle, int [puzzles, seq]."""
        return self.preds[torch.arange(len(self.preds), device=self.preds.device), self.order[:, 0]]


@torch.no_grad()
def answer_from_starts(
    model: RandomStartModel, data: dict[str, Tensor], starts: int, max_steps: int | None = None, window: int = WINDOW
) -> StartAnswers:
    """Answer each puzzle from `starts` starts, all of them for all steps.

    The first start of a puzzle is the one of an ordinary evaluation; all depend on its tokens alone.

    Args:
        model: in evaluation mode.
        data: the puzzles: inputs, labels [puzzles, seq], and whatever else the architecture reads.
        starts: number of starts.
        max_steps: steps of each; None: halt_max_steps of the model.
        window: changes of the logits, at the end, that the score is the mean of.
    """
    puzzles = len(data["inputs"])
    copies = {name: values.repeat_interleave(starts, 0) for name, values in data.items()}
    numbers = torch.arange(starts, device=copies["inputs"].device).repeat(puzzles)
    preds, q_halt, logits = torch.empty(0), torch.empty(0), None
    changes: deque[Tensor] = deque(maxlen=window)
    for outputs in _steps(model, copies, seeds_of(copies["inputs"]) + numbers, max_steps):
        if logits is not None:
            changes.append((outputs["logits"].float() - logits).norm(dim=-1).mean(-1))
        logits, q_halt = outputs["logits"].float(), outputs["q_halt_logits"]
        preds = logits.argmax(-1)
    scores = torch.stack(list(changes)).mean(0) if changes else torch.zeros_like(q_halt)
    shape = (puzzles, starts)
    return StartAnswers(preds.view(*shape, -1), q_halt.view(shape), scores.view(shape))


def _steps(
    model: RandomStartModel, data: dict[str, Tensor], row_seeds: Tensor, max_steps: int | None
) -> Iterator[dict[str, Tensor]]:
    """The outputs of each step."""
    carry, steps = model.initial_carry(data), model.steps_limit(max_steps)
    for _ in range(steps):
        carry, outputs = model(carry, data, max_steps=steps, row_seeds=row_seeds)
        yield outputs


def start_metrics(answers: StartAnswers, labels: Tensor, top_k: int) -> dict[str, float]:
    """How good the answers are, as means over the puzzles.

    mean_exact: over all starts; any_exact: whether one of them is right; pass@k: whether one of k random ones is
    right, for k = 1, 2, 4, .. below the number of starts; majority_exact: whether the most frequent answer is right
    (the first one wins ties); chosen_exact: whether the best start is right; top_I_exact: the share of right ones among
    the best I, for I up to `top_k`; top_score: the mean score of the best `top_k`.
    """
    exact = exact_answers(answers.preds, labels)
    starts, order = exact.shape[1], answers.order
    ranked = exact.gather(1, order).float()
    majority = exact_answers(majority_vote(answers.preds).unsqueeze(1), labels)
    right = exact.sum(1).tolist()
    metrics = {
        "mean_exact": float(exact.float().mean()),
        "any_exact": float(exact.any(1).float().mean()),
        "majority_exact": float(majority.float().mean()),
        "chosen_exact": float(ranked[:, 0].mean()),
        "top_score": float(answers.scores.gather(1, order)[:, :top_k].mean()),
    }
    metrics |= {f"top_{most}_exact": float(ranked[:, :most].mean()) for most in range(1, min(top_k, starts) + 1)}
    ks = [1 << power for power in range(starts.bit_length()) if 1 << power < starts]
    return metrics | {f"pass@{k}": sum(pass_at(k, starts, count) for count in right) / len(right) for k in ks}


def exact_answers(preds: Tensor, labels: Tensor) -> Tensor:
    """Whether each answer agrees with all labels: [puzzles, starts, seq], [puzzles, seq] -> bool [puzzles, starts]."""
    repeated = labels.unsqueeze(1).expand(-1, preds.shape[1], -1)
    return Score(preds, torch.zeros(preds.shape[:2], device=preds.device), repeated).exact


def majority_vote(preds: Tensor) -> Tensor:
    """The most frequent answer of each puzzle, the first of several: [puzzles, starts, seq] -> [puzzles, seq]."""
    votes = (preds.unsqueeze(1) == preds.unsqueeze(2)).all(-1).sum(-1)  # [puzzles, starts]
    return preds[torch.arange(len(preds), device=preds.device), votes.argmax(1)]


def pass_at(k: int, starts: int, right: int) -> float:
    """The probability that one of k random answers is right, if `right` of `starts` are."""
    return 1 - comb(starts - right, k) / comb(starts, k)
