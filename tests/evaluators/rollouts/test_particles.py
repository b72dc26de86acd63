"""Systematic resampling, beside a second implementation in plain Python."""

import math
import random

import torch

from evaluators.rollouts.particles import parents


def drawn(q_halt: list[float], u: float, beta: float) -> list[int]:
    weights = [math.exp(beta * q) for q in q_halt]
    found, total, ends = [], 0.0, []
    for weight in weights:
        total += weight / sum(weights)
        ends.append(total)
    for k in range(len(q_halt)):
        point = (u + k) / len(q_halt)
        found.append(next((i for i, end in enumerate(ends) if point < end), len(q_halt) - 1))
    return found


def test_parents_are_those_of_a_second_implementation():
    chance = random.Random(0)
    for _ in range(200):
        q_halt = [chance.uniform(-12, 12) for _ in range(chance.randrange(2, 17))]
        u, beta = chance.random(), chance.choice([0.1, 0.25, 1.0])
        found = parents(torch.tensor([q_halt]), torch.tensor([u]), beta)[0].tolist()
        expected = drawn(q_halt, u, beta)
        assert sum(a != b for a, b in zip(found, expected, strict=True)) <= 1  # rounding at the end of a share
        weights = torch.tensor(q_halt).mul(beta).softmax(0) * len(q_halt)
        for particle, weight in enumerate(weights.tolist()):
            assert math.floor(weight - 1e-4) <= found.count(particle) <= math.ceil(weight + 1e-4)


def test_without_guidance_every_particle_stays():
    assert parents(torch.randn(3, 8), torch.tensor([0.0, 0.5, 0.99]), 0.0).tolist() == [list(range(8))] * 3


def test_each_puzzle_has_its_own_shares():
    q_halt = torch.tensor([[50.0, 0.0, 0.0], [0.0, 0.0, 50.0]])
    assert parents(q_halt, torch.tensor([0.3, 0.9]), 1.0).tolist() == [[0, 0, 0], [2, 2, 2]]
