"""Lattices of candidates from tokens, and back."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from models.lattice.board import Board


class Candidates(NamedTuple):
    """Which tokens are candidates of a cell."""

    allowed: Tensor  # bool [vocab, candidates]: the candidates of a cell with this token in the question
    tokens: Tensor  # int64 [candidates]: the token that each candidate stands for

    @classmethod
    def of(cls, board: Board) -> Self:
        """The candidates of a task."""
        tokens = board.candidates
        allowed = torch.tensor([[token in row for token in tokens] for row in board.allowed])
        return cls(allowed, torch.tensor(tokens))

    def lattice_of(self, questions: Tensor) -> Tensor:
        """The lattices of questions, tokens [..., cells]: bool [..., cells, candidates]."""
        return self.allowed[questions.long()]

    def one_hot(self, tokens: Tensor) -> Tensor:
        """The candidate of each cell, bool [..., candidates]; tokens that are no candidates, and ignored labels, have
        none."""
        return tokens.unsqueeze(-1) == self.tokens

    def tokens_of(self, lattice: Tensor, questions: Tensor) -> Tensor:
        """Tokens [..., cells] of a lattice; a cell with no candidate, or with several, keeps that of its question."""
        first = self.tokens[lattice.long().argmax(-1)]
        return torch.where(lattice.sum(-1) == 1, first, questions)
