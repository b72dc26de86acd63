"""Replays the recorded choice among several starts of EqR (`evaluators.rollouts`)."""

from typing import Any

import numpy as np
import torch

from dataset.tasks.task import Task
from evaluators.rollouts.curve import share_of_lucky
from evaluators.rollouts.run import RolloutRule, roll_out
from evaluators.rollouts.selectors import SELECTORS
from evaluators.rollouts.trajectories import Trajectories
from models.losses import ACTLossHead
from tests.models.recorded import Recording
from tests.models.replay import OUTPUTS, RecordedStarts, equilibrium_metrics, model_of

PUZZLES, STARTS, WINDOW, TOP_K = 2, 3, 2, 2
# metric -> its recorded names
NAMES = {
    "mean_exact": ("different_init/avg_pass_rate",),
    "any_exact": ("different_init/any_correct",),
    "majority_exact": ("different_init/majority_vote_acc", "majority_vote/exact_accuracy"),
    "pass@1": ("different_init/pass@1",),
    "pass@2": ("different_init/pass@2",),
    "top_score": ("convergence_top_k/avg_convergence_score",),
    "top_1_exact": ("convergence_top_k/cumulative_exact_acc_top1",),
    "top_2_exact": (
        "convergence_top_k/cumulative_exact_acc_top2",
        "convergence_top_k/exact_accuracy",
        "convergence_top_k/pass@1",
    ),
}
SETTINGS = {
    "different_init/n": STARTS,
    "different_init/total_samples": PUZZLES,
    "majority_vote/num_samples": PUZZLES,
    "convergence_top_k/k": TOP_K,
    "convergence_top_k/total_samples": PUZZLES,
}


def replay_starts(recording: Recording) -> None:
    """Compare what was recorded of a choice among three starts of two puzzles, with the weights of step 8."""
    model = model_of(recording).eval()
    assert isinstance(model, RecordedStarts)
    model.load_state_dict(recording.under("step8/weights/"))
    model.set_draws(recording.under("select/draw/"))
    data = {name: values[:PUZZLES] for name, values in recording.under("step8/batch/").items()}
    head = ACTLossHead(model, recording.config["loss_type"]).eval()
    task = Task(model.config.seq_len, model.config.vocab_size)
    puzzles = [(tokens.numpy(), 0) for tokens in data["inputs"]]
    by_puzzle = dict(roll_out(head, task, puzzles, RolloutRule(STARTS, "start"), rows=PUZZLES * STARTS))
    found = [by_puzzle[number] for number in range(PUZZLES)]
    scores = np.stack([one.residual(WINDOW) for one in found])
    order = scores.argsort(axis=1, kind="stable")
    recording.check("select/preds", torch.from_numpy(np.concatenate([one.answers[:, -1] for one in found])))
    recording.check("select/scores", torch.from_numpy(scores))
    recording.check("select/order", torch.from_numpy(order))
    labels = data["labels"].numpy()
    for name, value in _metrics(found, labels, scores, order).items():
        for key in NAMES[name]:
            recording.check(f"select/metric/{key}", torch.tensor(value))
    for key, value in SETTINGS.items():
        recording.check(f"select/metric/{key}", torch.tensor(value))
    majority = np.stack([one.answers[_chosen("majority", one), -1] for one in found])
    right = ((majority == labels) & (labels >= 0)).sum() / (labels >= 0).sum()
    recording.check("select/metric/majority_vote/accuracy", torch.tensor(right))
    any_of_top = [
        _exact(one, label)[best].any() for one, label, best in zip(found, labels, order[:, :TOP_K], strict=True)
    ]
    recording.check("select/metric/convergence_top_k/any_correct", torch.tensor(np.mean(any_of_top)))

    copies = {name: values.repeat_interleave(STARTS, 0) for name, values in data.items()}
    loss, residuals = torch.zeros(()), []
    carry, sums = head.initial_carry(copies), {}
    with torch.inference_mode():
        for _ in range(model.config.halt_max_steps):
            before = torch.cat((carry.states["z_H"], carry.states["z_L"]), 1)
            carry, loss, metrics, outputs, _ = head(carry=carry, batch=copies, return_keys=OUTPUTS)
            change = torch.cat((carry.states["z_H"], carry.states["z_L"]), 1) - before
            residuals.append(float(change.flatten(1).norm(dim=1).sum()))
            sums = metrics | equilibrium_metrics(carry, outputs, loss)
    for name, value in sums.items():
        recording.check_known(f"select/metric/all/{name}", value / sums["count"])
    for step, residual in enumerate(residuals[1:], start=2):
        key = f"select/metric/all/residual_of_{step}_steps"
        whole = float(recording.arrays[key]) * PUZZLES * STARTS  # the sum was rounded down to a whole number
        assert whole - 1e-2 <= residual <= whole + 1 + 1e-2, key
        recording.unchecked.discard(key)


def _metrics(found: list[Trajectories], labels: np.ndarray, scores: np.ndarray, order: np.ndarray) -> dict[str, float]:
    """The recorded metrics under the names of `NAMES`."""
    exact = np.stack([_exact(one, label) for one, label in zip(found, labels, strict=True)])
    ranked = np.take_along_axis(exact, order, 1)
    chosen = [row[_chosen("majority", one)] for one, row in zip(found, exact, strict=True)]
    metrics: dict[str, Any] = {
        "mean_exact": exact.mean(),
        "any_exact": exact.any(1).mean(),
        "majority_exact": np.mean(chosen),
        "top_score": np.take_along_axis(scores, order, 1)[:, :TOP_K].mean(),
        "top_1_exact": ranked[:, :1].mean(),
        "top_2_exact": ranked[:, :2].mean(),
    }
    metrics |= {f"pass@{k}": np.mean([share_of_lucky(k, STARTS, n) for n in exact.sum(1).tolist()]) for k in (1, 2)}
    assert [_chosen("smallest_residual", one) for one in found] == [int(one.residual().argmin()) for one in found]
    return {name: float(value) for name, value in metrics.items()}


def _exact(found: Trajectories, label: np.ndarray) -> np.ndarray:
    """Whether each last answer agrees with all labels, bool [rollouts]."""
    return ((found.answers[:, -1] == label) | (label < 0)).all(-1)


def _chosen(selector: str, found: Trajectories) -> int:
    choice = SELECTORS[selector].choose(found, lambda answers: np.zeros(len(answers), np.bool_))
    assert choice is not None
    return choice.rollout
