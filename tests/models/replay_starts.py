"""Replays the recorded choice among several starts of EqR (`evaluators.convergence`)."""

import torch

from evaluators.convergence import answer_from_starts, majority_vote, start_metrics
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
    answers = answer_from_starts(model, data, STARTS, window=WINDOW)
    recording.check("select/preds", answers.preds.flatten(0, 1))
    recording.check("select/scores", answers.scores)
    recording.check("select/order", answers.order)
    metrics = start_metrics(answers, data["labels"], TOP_K)
    for name, recorded in NAMES.items():
        for key in recorded:
            recording.check(f"select/metric/{key}", torch.tensor(metrics[name]))
    for key, value in SETTINGS.items():
        recording.check(f"select/metric/{key}", torch.tensor(value))
    labelled = data["labels"] >= 0
    right = (majority_vote(answers.preds) == data["labels"]) & labelled
    recording.check("select/metric/majority_vote/accuracy", right.sum().double() / labelled.sum())
    top = answers.preds.gather(1, answers.order[:, :TOP_K, None].expand(-1, -1, answers.preds.shape[2]))
    any_of_top = ((top == data["labels"].unsqueeze(1)) | ~labelled.unsqueeze(1)).all(-1).any(1)
    recording.check("select/metric/convergence_top_k/any_correct", any_of_top.double().mean())

    copies = {name: values.repeat_interleave(STARTS, 0) for name, values in data.items()}
    head, loss, residuals = ACTLossHead(model, recording.config["loss_type"]).eval(), torch.zeros(()), []
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
