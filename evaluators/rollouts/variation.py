"""How the rollouts of a puzzle differ. The first is always the ordinary evaluation.

    noise     `z + sigma n` before each step, for each latent z, n standard normal (PTRM)
    start     another start of the latents: of architectures that start at random another one, of all others the usual
              start with noise as above, once
    views     another symmetric view of the puzzle, such as turned and with the digits renamed; what is answered is
              turned back

The numbers are a function of the seed, the puzzle, the rollout and the step, so that an answer depends neither on the
batch nor on the number of processes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.tasks.own_code import symmetries_of
from dataset.tasks.symmetric import on_board
from dataset.tasks.symmetry import random_choice
from dataset.tasks.task import Task
from models.random_start import RandomStartModel
from utils.counter_random import random_words, seed_of, uniform
from utils.errors import UserError
from utils.random_streams import Stream
from utils.settings import Variation

Undo = Callable[[np.ndarray], np.ndarray]


def noisy(states: dict[str, Tensor], names: list[str], sigma: Tensor, seed: int, keys: Tensor) -> dict[str, Tensor]:
    """`states` with normal noise added to the latents `names`.

    Args:
        states: [rows, ...] each.
        names: which of them are latents.
        sigma: fp32 [rows], the standard deviation of each row; 0: it stays as it is, bit for bit.
        seed: separates these draws from others.
        keys: int64 [rows], what the noise of each row is a function of.
    """
    rows = sigma.nonzero().squeeze(1)
    if not len(rows):
        return states
    found = dict(states)
    for number, name in enumerate(names):
        z = states[name]
        drawn = uniform(seed_of(seed, number), keys[rows], math.prod(z.shape[1:]))
        normal = math.sqrt(2) * torch.erfinv(2 * drawn - 1)
        more = (sigma[rows, None] * normal).view(-1, *z.shape[1:])
        found[name] = z.index_copy(0, rows, (z[rows].float() + more).to(z.dtype))
    return found


def step_keys(seeds: Tensor, steps: Tensor) -> Tensor:
    """What the noise of a step is a function of, int64 [rows], from the seeds of the rollouts and the steps made."""
    return random_words(int(Stream.ROLLOUTS), seeds, 1).squeeze(1) + steps


def view(task: Task, question: np.ndarray, seed: int, puzzle_seed: int, rollout: int) -> tuple[np.ndarray, Undo]:
    """A random symmetric view of a question, tokens [seq], and what turns an answer to it back.

    Raises:
        UserError: the task has no symmetries.
    """
    symmetries = symmetries_of(task)
    rng = np.random.default_rng([seed, int(Stream.ROLLOUTS), puzzle_seed & (2**63 - 1), rollout])
    choices = [random_choice(symmetry.choices, rng) for symmetry in symmetries]
    seen = question
    for symmetry, choice in zip(symmetries, choices, strict=True):
        seen = on_board(task, symmetry.apply, choice, seen)
    back = [pair for pair in zip(symmetries, choices, strict=True) if pair[0].answer != "kept"][::-1]

    def undo(answer: np.ndarray) -> np.ndarray:
        for symmetry, choice in back:
            answer = on_board(task, symmetry.undo, choice, answer)
        return answer

    return seen, undo


def check_variation(vary: Variation, task: Task, model: Any, sigma: float) -> None:
    """Refuse a variation that would make all rollouts alike.

    Raises:
        UserError: it would.
    """
    if vary == "views" and not symmetries_of(task):
        raise UserError(
            f"vary=views: the task {getattr(task, 'name', 'of the data')} has no symmetries, so there are no other "
            "views of a puzzle. Use vary=noise or vary=start."
        )
    if not sigma and (vary == "noise" or (vary == "start" and not isinstance(model, RandomStartModel))):
        raise UserError(
            f"vary={vary} with noise=0: all rollouts of a puzzle would be the same. Give a noise above 0, such as "
            "noise=0.3, or restarts=1."
        )
