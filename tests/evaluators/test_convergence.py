"""Answers from many starts; the choice itself is compared with recorded runs in tests/models/test_recorded_runs.py."""

from itertools import combinations

import pytest
import torch

from evaluators.convergence import StartAnswers, answer_from_starts, majority_vote, pass_at, start_metrics
from tests.models.small import small_batch
from tests.models.small_family import family_model


@pytest.mark.parametrize("right", [0, 1, 2, 5])
def test_pass_at_k_is_the_share_of_lucky_draws(right: int):
    outcomes = [True] * right + [False] * (5 - right)
    for k in (1, 2, 4):
        draws = [any(draw) for draw in combinations(outcomes, k)]
        assert pass_at(k, 5, right) == pytest.approx(sum(draws) / len(draws))


def test_the_first_of_the_most_frequent_answers_wins():
    preds = torch.tensor([[[1, 2], [3, 4], [3, 4]], [[1, 2], [3, 4], [5, 6]]])
    assert majority_vote(preds).tolist() == [[3, 4], [1, 2]]


def test_metrics_follow_the_scores():
    labels = torch.tensor([[1, 2], [3, 4]])
    preds = torch.tensor([[[1, 2], [0, 2], [1, 2]], [[3, 3], [3, 4], [0, 0]]])
    answers = StartAnswers(preds, torch.zeros(2, 3), torch.tensor([[0.3, 0.1, 0.2], [0.2, 0.1, 0.3]]))
    assert answers.order.tolist() == [[1, 2, 0], [1, 0, 2]]
    assert answers.chosen.tolist() == [[0, 2], [3, 4]]
    metrics = start_metrics(answers, labels, top_k=2)
    assert metrics["mean_exact"] == pytest.approx(0.5)
    assert metrics["any_exact"] == 1
    assert metrics["chosen_exact"] == metrics["top_1_exact"] == 0.5
    assert metrics["top_2_exact"] == 0.5
    assert metrics["top_score"] == pytest.approx(0.15)
    assert metrics["majority_exact"] == 0.5


def test_the_first_start_is_that_of_an_ordinary_evaluation():
    model = family_model("eqr", noise_scale=0.0).eval()
    batch = small_batch(3)
    answers = answer_from_starts(model, batch, starts=4)
    ordinary = list(model.answer_steps(batch))[-1][1]["logits"].argmax(-1)
    assert torch.equal(answers.preds[:, 0], ordinary)
    assert (answers.scores > 0).all()
    assert len(set(answers.scores.flatten().tolist())) == 12
