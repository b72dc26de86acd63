"""TRM-WTA, winner takes all ("Speed is Confidence", arXiv 2601.19085): K chains of reasoning, of which the best learns.

The recursion is that of TRM (`trm.py`). In training each slot works with K chains: each has a reasoning latent of its
own, which starts from its own initial vector, while all start a step from the same answer z_H. At the end of a step

    winner = the chain with the lowest token loss (stablemax cross-entropy)

is the only one whose last cycle has a gradient; its answer and its halting logit are those of the slot, and its z_H is
copied to all chains. Each chain goes on with its own reasoning latent. An evaluation follows the first chain alone, at
the cost of TRM, or `eval_chains` of them, where the highest halting logit wins a step.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.act import ACTModel
from models.inner import PuzzleInnerModel, ReasonerConfig, RecursionConfig
from models.layers import cast_once, trunc_normal_
from models.losses import stablemax_cross_entropy
from models.recursive_reasoning.trm import TinyRecursion
from models.view import View
from utils.constants import IGNORE_LABEL_ID


class WinnerConfig(ReasonerConfig):
    """As in TRM, and the number of chains."""

    refused: ClassVar = {"deep_improvement": "TRM-WTA chooses the winner of a step by the label itself; leave it false"}

    num_chains: int = Field(default=4, ge=1, le=1024)
    """Chains of reasoning of each example in training."""
    eval_chains: int = Field(default=1, ge=1, le=1024)
    """Chains in evaluation, at most num_chains."""

    @model_validator(mode="after")
    def _chains_fit(self) -> Self:
        if self.eval_chains > self.num_chains:
            raise ValueError(f"eval_chains {self.eval_chains}: at most num_chains, {self.num_chains}")
        if not self.no_ACT_continue:
            raise ValueError(
                "no_ACT_continue: the value of continuing is not defined for several chains; leave it true"
            )
        return self


class WinnerInner(TinyRecursion, PuzzleInnerModel):
    """The recursion of TRM in K chains; the first of them starts from TRM's L_init, the others from vectors alike."""

    config_class = WinnerConfig
    states: ClassVar = {"z_H": "H_init", "z_L": "L_init"}

    def __init__(self, config: RecursionConfig):
        super().__init__(config)
        more = torch.empty(self.settings.num_chains - 1, config.hidden_size)
        self.register_buffer("more_L_init", trunc_normal_(more, std=1).to(self.dtype))

    @property
    def settings(self) -> WinnerConfig:
        """The configuration."""
        assert isinstance(self.config, WinnerConfig)
        return self.config

    def empty_states(self, rows: int, device: torch.device, positions: int | None = None) -> dict[str, Tensor]:
        """z_H as in TRM, and z_L [rows, chains, positions, hidden]."""
        states = super().empty_states(rows, device, positions)
        return states | {"z_L": states["z_L"].unsqueeze(1).repeat(1, self.settings.num_chains, 1, 1)}

    def reset_states(self, z: dict[str, Tensor], halted: Tensor) -> dict[str, Tensor]:
        """`z` with the initial vectors in the slots that have halted."""
        first, more = (self.get_buffer(name).to(self.dtype) for name in ("L_init", "more_L_init"))
        starts = torch.cat((first.unsqueeze(0), more)).unsqueeze(1)  # [chains, 1, hidden]
        return {
            "z_H": torch.where(halted.view(-1, 1, 1), self.get_buffer("H_init").to(self.dtype), z["z_H"]),
            "z_L": torch.where(halted.view(-1, 1, 1, 1), starts, z["z_L"]),
        }

    def forward(
        self, z: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """One supervised step, see `models.inner.InnerModel.forward`."""
        chains = self.settings.num_chains if self.training else self.settings.eval_chains
        batch = z["z_H"].shape[0]
        slots = torch.arange(batch, device=z["z_H"].device)
        with cast_once(self, self.dtype):
            view = View(self.rotary() if self.rotary is not None else None)
            x = self.embed(data)
            with torch.no_grad():
                # all chains side by side: [batch * chains, positions, hidden]
                every_x = x.repeat_interleave(chains, 0)
                z_H, z_L = z["z_H"].repeat_interleave(chains, 0), z["z_L"][:, :chains].flatten(0, 1)
                for _ in range(self.depth.H_cycles - 1):
                    z_H, z_L = self.cycle(z_H, z_L, every_x, view)
                ends = self.cycle(z_H, z_L, every_x, view) if chains > 1 else (z_H, z_L)
                winner = self.winner(ends[0], data, chains) if chains > 1 else torch.zeros_like(slots)
            # the last cycle of the winner once more, with its gradient
            chosen = slots * chains + winner
            new_H, new_L = self.cycle(z_H[chosen], z_L[chosen], x, view)
        following = z["z_L"].clone()
        following[:, :chains] = ends[1].unflatten(0, (batch, chains))
        following[slots, winner] = new_L.detach()
        q_halt, q_continue = self.q_head(new_H[:, 0]).float().unbind(-1)
        return {"z_H": new_H, "z_L": following}, self.logits(new_H)[:, self.prefix_len :], q_halt, q_continue

    def winner(self, answers: Tensor, data: dict[str, Tensor], chains: int) -> Tensor:
        """The best chain of each slot, int64 [batch].

        Args:
            answers: z_H after the step, [batch * chains, positions, hidden].
            data: the examples, whose labels are not looked at in evaluation.
            chains: number of chains.
        """
        if not self.training:
            return self.q_head(answers[:, 0])[:, 0].float().view(-1, chains).argmax(1)
        logits, labels = self.logits(answers)[:, self.prefix_len :], data["labels"].repeat_interleave(chains, 0)
        losses = stablemax_cross_entropy(logits, labels).sum(-1)
        counts = (labels != IGNORE_LABEL_ID).sum(-1)
        return (losses / counts.clamp_min(1)).view(-1, chains).argmin(1)


class WinnerTakesAllModel(ACTModel):
    """TRM-WTA with adaptive computation time."""

    inner_class = WinnerInner
