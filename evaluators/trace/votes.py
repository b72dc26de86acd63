"""The votes for the test inputs of ARC, and which trajectories carried them.

The answer to a test input is the one that most of its augmented copies vote for (`evaluators.arc`). The right answer
may be among the candidates and lose; a trace of the copies that voted for it and for the winner shows why.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from dataset.puzzle_dataset import EvalBatches, Shard, Source
from dataset.tasks.arc.field import FIRST_COLOUR
from evaluators.answers import HaltRule, answer_batches
from evaluators.arc import ARC, Candidate, Key, Question, best_first, grid_of
from models.losses import ACTLossHead

MOST_TESTS = 12  # test inputs whose votes are counted
_MOST_COPIES = 1024  # of a test input
_PLACES = 4  # candidates that are shown of a test input, besides the right one
_CARRIERS = 3  # trajectories that are traced of each of them
_ROWS = 64  # examples at once


class FoundVotes(NamedTuple):
    """The votes for some test inputs."""

    votes: list[dict[str, Any]]  # of each test input; see `find_votes`
    carriers: np.ndarray  # places, in the set, of trajectories that carried candidates, int64


def find_votes(
    head: ACTLossHead,
    source: Source,
    shard: Shard,
    examples: Sequence[int] | np.ndarray,
    halting: HaltRule | None,
    max_steps: int | None,
    rows: int | None = None,
) -> FoundVotes:
    """Count the votes for the test inputs of some examples, over all their copies in the set (at most 1,024 of each).

    Args:
        head: the model, in evaluation mode.
        source, shard: the set, one of ARC.
        examples: places in the set.
        halting, max_steps: how the copies are answered; see `evaluators.answers.answer_batches`.
        rows: for a compiled model, the number of examples at once.

    Returns:
        For each test input plain values: title; known (whether the solution is); copies (votes); examples (the places
        of all its copies that voted); candidates, best first: place, height, width, tokens, votes, confidence (mean
        halting probability), right, examples (the places of the first that voted for it).
    """
    arc = ARC(str(source.root), source.metadata)
    puzzles = np.searchsorted(shard.puzzle_indices, np.arange(len(shard.inputs)), side="right") - 1
    tasks = np.array([arc.task_of(int(identifier)) for identifier in shard.puzzle_identifiers])[puzzles]
    known = {question: (title, solution) for question, title, solution in arc.tests()}
    asked: dict[Question, None] = {}
    for place in examples:
        batch = EvalBatches(source, shard, 1, examples=[int(place)])[0]
        tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
        tensors["puzzle_identifiers"] = tensors["own_identifiers"]
        blank = {"preds": tensors["inputs"], "q_halt_logits": torch.zeros(1)}
        asked |= {ballot.question: None for ballot in arc.ballots(tensors, blank) if ballot.question in known}
    votes: list[dict[str, Any]] = []
    carriers: set[int] = set()
    for question in list(asked)[:MOST_TESTS]:
        copies = np.flatnonzero(tasks == question[0])[:_MOST_COPIES]
        counted, voters = _count(head, arc, source, shard, copies, question, halting, max_steps, rows)
        title, solution = known[question]
        order = best_first(counted)
        shown: list[dict[str, Any]] = []
        for place, answer in enumerate(order, start=1):
            grid, candidate = grid_of(answer), counted[answer]
            right = solution is not None and np.array_equal(grid, solution)
            if place > _PLACES and not right:
                continue
            carried = voters[answer][:_CARRIERS]
            carriers.update(carried)
            shown.append(
                {
                    "place": place,
                    "height": grid.shape[0],
                    "width": grid.shape[1],
                    "tokens": (grid.astype(int) + FIRST_COLOUR).flatten().tolist(),
                    "votes": candidate.votes,
                    "confidence": sum(candidate.confidence) / candidate.votes,
                    "right": bool(right),
                    "examples": carried,
                }
            )
        everybody = sorted(example for voted in voters.values() for example in voted)
        votes.append(
            {
                "title": title,
                "known": solution is not None,
                "copies": len(everybody),
                "examples": everybody,
                "candidates": shown,
            }
        )
    return FoundVotes(votes, np.array(sorted(carriers), np.int64))


def _count(
    head: ACTLossHead,
    arc: ARC,
    source: Source,
    shard: Shard,
    copies: np.ndarray,
    question: Question,
    halting: HaltRule | None,
    max_steps: int | None,
    rows: int | None,
) -> tuple[dict[Key, Candidate], dict[Key, list[int]]]:
    """The candidates for a question, and the places of the examples that voted for each."""
    device, size = next(head.parameters()).device, rows or _ROWS
    counted: dict[Key, Candidate] = {}
    voters: dict[Key, list[int]] = {}
    batches = EvalBatches(source, shard, size, examples=copies.tolist())
    on_device = ({key: torch.from_numpy(value).to(device) for key, value in batch.items()} for batch in batches)
    with torch.inference_mode():
        answered = answer_batches(head, on_device, size, halting, fixed_sizes=rows is not None, max_steps=max_steps)
        for number, (batch, answers) in enumerate(answered):
            own = {**batch, "puzzle_identifiers": batch["own_identifiers"]}
            for ballot in arc.ballots(own, answers.predictions):
                if ballot.question == question:
                    counted.setdefault(ballot.answer, Candidate((number, 0, ballot.row))).add(ballot.confidence)
                    voters.setdefault(ballot.answer, []).append(int(batch["example_index"][ballot.row]))
    return counted, voters
